"""The checkpoint's tokenizer, read as bytes and checked before a bundle gets it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from lambda_split.errors import CheckpointInvalid
from lambda_split.partition import Checkpoint
from lambda_split.partition.files import read_bounded

__all__ = ["TOKENIZER", "TokenizerFile", "library_errors", "read_tokenizer"]

TOKENIZER = "tokenizer.json"
_MAX_BYTES = 256 * 1024 * 1024  # what a device reads; a vocabulary of 262k tokens takes 33 MB
# What the library can build a fast tokenizer from where there is no tokenizer.json.
_SLOW_FILES = ("tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


@dataclass(frozen=True)
class TokenizerFile:
    """A fast tokenizer.

    Attributes:
        source: The file that it was read or converted from, for messages.
        raw: The ``tokenizer.json`` that a device gets: the checkpoint's own bytes if it has one.
        tokenizer: What was read from them.
    """

    source: str
    raw: bytes
    tokenizer: Tokenizer

    def encode(self, text: str) -> list[int]:
        """The token ids of a text.

        Raises:
            CheckpointInvalid: the tokenizer fails, which some malformed ones do only now.
        """
        with library_errors(self.source):
            ids: list[int] = self.tokenizer.encode(text).ids
        return ids


def read_tokenizer(checkpoint: Checkpoint) -> TokenizerFile:
    """The checkpoint's fast tokenizer, converted from a slow one where it has no other.

    Raises:
        CheckpointInvalid: there is none, or it cannot be read or converted.
    """
    path = checkpoint.text_file(TOKENIZER)
    if path is not None:
        raw = read_bounded(path, max_bytes=_MAX_BYTES)
        with library_errors(str(path)):
            return TokenizerFile(str(path), raw, Tokenizer.from_str(raw.decode("utf-8")))
    slow = next(filter(None, map(checkpoint.text_file, _SLOW_FILES)), None)
    if slow is None:
        raise CheckpointInvalid(TOKENIZER, "the checkpoint has no tokenizer")
    # The library looks for these in the same folder.
    for name in ("tokenizer_config.json", "special_tokens_map.json", "merges.txt"):
        checkpoint.text_file(name)
    backend = _convert(slow)
    with library_errors(str(slow)):
        return TokenizerFile(str(slow), backend.to_str().encode(), backend)


def _convert(slow: Path) -> Tokenizer:
    from transformers import AutoTokenizer

    with library_errors(str(slow)):
        converted = AutoTokenizer.from_pretrained(
            slow.parent,
            local_files_only=True,
            trust_remote_code=False,  # otherwise it asks at the terminal whether to run their code
        )
    backend = getattr(converted, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise CheckpointInvalid(str(slow), "the library has no fast tokenizer for it")
    return backend


@contextmanager
def library_errors(source: str) -> Iterator[None]:
    """Within, what the tokenizers library raises is an error of the file ``source``."""
    # It raises bare Exception; where its Rust code panics, a PanicException, which is no Exception
    # and which no module exports.
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise CheckpointInvalid(source, f"it is no usable tokenizer: {error}") from error
        raise
