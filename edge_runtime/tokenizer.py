"""The bundle's tokenizer: text to token ids and back."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Self

import tokenizers

from lambda_split.errors import TokenizerInvalid, UsageError

__all__ = ["Tokenizer"]

_MAX_TOKENIZER_BYTES = 256 * 1024 * 1024  # bounds the read; a vocabulary of 262k tokens takes 33 MB


class Tokenizer:
    """A ``tokenizer.json`` and the size of the vocabulary that its model has.

    Attributes:
        vocab_size: Ids are below it: a larger one would read beyond the model's embedding.
    """

    def __init__(
        self, implementation: tokenizers.Tokenizer, vocab_size: int, *, name: str = "tokenizer.json"
    ) -> None:
        """Wrap a tokenizer that is already there; :meth:`load` reads one."""
        # A file may say how its training data was cut and padded; a prompt is neither.
        implementation.no_truncation()
        implementation.no_padding()
        self._implementation = implementation
        self._name = name
        self.vocab_size = vocab_size

    @classmethod
    def load(cls, path: str | os.PathLike[str], vocab_size: int) -> Self:
        """Read a ``tokenizer.json``.

        Args:
            path: The file.
            vocab_size: Number of tokens that the model knows.

        Raises:
            TokenizerInvalid: it is absent, too large, or not what the tokenizers library reads.
        """
        file = pathlib.Path(path)
        try:
            with file.open("rb") as opened:
                raw = opened.read(_MAX_TOKENIZER_BYTES + 1)
        except OSError as error:
            raise TokenizerInvalid(file.name, error.strerror or "it cannot be read") from error
        if len(raw) > _MAX_TOKENIZER_BYTES:
            raise TokenizerInvalid(file.name, f"it is larger than {_MAX_TOKENIZER_BYTES} bytes")
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise TokenizerInvalid(file.name, "it is not UTF-8 text") from error
        with _library_errors(file.name):
            implementation = tokenizers.Tokenizer.from_str(text)
        return cls(implementation, vocab_size, name=file.name)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The token ids of a text.

        Args:
            text: Any text.
            add_special_tokens: Also what the tokenizer puts around a text, such as a start token;
                not wanted where a chat template has written it already.

        Raises:
            UsageError: the text is not Unicode (an undecodable byte on the command line).
            TokenizerInvalid: it cannot tokenize the text, or gave a token that the model does not
                know.
        """
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UsageError("the text holds characters that are not valid Unicode") from error
        with _library_errors(self._name):
            ids: list[int] = self._implementation.encode(
                text, add_special_tokens=add_special_tokens
            ).ids
        if ids and max(ids) >= self.vocab_size:
            raise TokenizerInvalid(
                self._name,
                f"it made token {max(ids)}, the model has {self.vocab_size}: they do not belong "
                "together, or tokens were added without resizing the model's embedding",
            )
        return ids

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of tokens; U+FFFD stands where their bytes are no whole character.

        Tokens that only the model knows (embeddings are often padded) have no text.

        Raises:
            TokenizerInvalid: its decoder fails.
        """
        with _library_errors(self._name):
            text: str = self._implementation.decode(
                list(token_ids), skip_special_tokens=skip_special_tokens
            )
        return text

    def name_of(self, token_id: int) -> str | None:
        """How the vocabulary spells a token; None where it does not have it."""
        with _library_errors(self._name):
            name: str | None = self._implementation.id_to_token(token_id)
        return name

    def check(self, token_ids: Sequence[int]) -> None:
        """Raise :class:`UsageError` unless each is a token of the model."""
        for token in token_ids:
            if not 0 <= token < self.vocab_size:
                raise UsageError(
                    f"{token} is no token of this model: ids go from 0 to {self.vocab_size - 1}"
                )


@contextlib.contextmanager
def _library_errors(name: str) -> Iterator[None]:
    """Turn whatever the tokenizers library raises about a file into :class:`TokenizerInvalid`."""
    try:
        yield
    except BaseException as error:
        # The library has no class of its own for a file's faults, and some make it panic: that is
        # a BaseException, whose class cannot be imported. Ctrl-C must get through.
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise TokenizerInvalid(name, str(error)) from error
        raise
