"""Prompts: what a caller may pass to be continued, and the tokens that it means."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import SupportsIndex

from edge_runtime.chat import ChatTemplate, Message
from edge_runtime.tokenizer import Tokenizer
from lambda_split.bundle import Bundle, TextSettings
from lambda_split.errors import ChatTemplateInvalid, PromptEmpty, UsageError

__all__ = ["Prompt", "PromptEncoder", "load_prompt_encoder"]

Prompt = str | Sequence[Message] | Sequence[Mapping[str, str]] | Sequence[int]

_MAX_TEMPLATE_BYTES = 4 * 1024 * 1024  # bounds the read; the longest that models ship have 20 KB


class PromptEncoder:
    """Turns prompts into tokens with a bundle's tokenizer and chat template."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate | None) -> None:
        """Use :func:`load_prompt_encoder`, which reads them."""
        self.tokenizer = tokenizer
        self._template = template

    def encode(self, prompt: Prompt) -> list[int]:
        """The tokens of a prompt; arguments and errors as :meth:`TextGenerator.tokenize`."""
        if isinstance(prompt, str):
            ids = self.tokenizer.encode(prompt, add_special_tokens=True)
        else:
            items = _items(prompt)
            if items and isinstance(items[0], Message | Mapping):
                ids = self._encode_messages(items)
            else:
                ids = [_token_id(index, item) for index, item in enumerate(items)]
                self.tokenizer.check(ids)
        if not ids:
            raise PromptEmpty
        return ids

    def _encode_messages(self, items: list[object]) -> list[int]:
        if self._template is None:
            raise UsageError("this model has no chat template: pass a text prompt")
        messages = [_message(index, item) for index, item in enumerate(items)]
        text = self._template.render(messages, add_generation_prompt=True)
        return self.tokenizer.encode(text, add_special_tokens=False)


def load_prompt_encoder(bundle: Bundle, text: TextSettings) -> PromptEncoder:
    """Read a bundle's tokenizer and chat template.

    Raises:
        TokenizerInvalid: the tokenizer cannot be read.
        ChatTemplateInvalid: the chat template cannot be read or does not compile.
    """
    tokenizer = Tokenizer.load(bundle.file(text.tokenizer), bundle.manifest.geometry.vocab_size)
    template = None
    if text.chat_template is not None:
        source = _read_template(bundle, text.chat_template)
        template = ChatTemplate.from_source(source, text.special_tokens)
    return PromptEncoder(tokenizer, template)


def _read_template(bundle: Bundle, name: str) -> str:
    try:
        with bundle.file(name).open("rb") as file:
            raw = file.read(_MAX_TEMPLATE_BYTES + 1)
    except OSError as error:
        raise ChatTemplateInvalid(error.strerror or "it cannot be read") from error
    if len(raw) > _MAX_TEMPLATE_BYTES:
        raise ChatTemplateInvalid(f"it is larger than {_MAX_TEMPLATE_BYTES} bytes")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ChatTemplateInvalid("it is not UTF-8 text") from error


def _items(prompt: object) -> list[object]:
    # Bytes would pass for token ids, and a mapping for a list of its keys.
    if isinstance(prompt, bytes | bytearray | memoryview | Mapping) or not isinstance(
        prompt, Iterable
    ):
        raise UsageError(
            f"a prompt is a text, a list of messages or a list of token ids, not {_kind(prompt)}"
        )
    return list(prompt)


def _message(index: int, item: object) -> Message:
    if isinstance(item, Message):
        return item
    if not isinstance(item, Mapping):
        raise UsageError(f"prompt item {index} is {_kind(item)} where a message is expected")
    if item.keys() != {"role", "content"}:
        raise UsageError(f"prompt item {index} must have 'role' and 'content' and nothing else")
    role, content = item["role"], item["content"]
    if not isinstance(role, str) or not isinstance(content, str):
        raise UsageError(f"prompt item {index}: its role and content must be strings")
    return Message(role, content)


def _token_id(index: int, item: object) -> int:
    # True and False would pass for the ids 1 and 0.
    if isinstance(item, SupportsIndex) and not isinstance(item, bool):
        # An array of several numbers has the method, too, but fails in it.
        with contextlib.suppress(TypeError):
            return operator.index(item)
    raise UsageError(f"prompt item {index} is {_kind(item)} where a token id is expected")


def _kind(item: object) -> str:
    name = type(item).__name__
    return f"an {name}" if name[0].lower() in "aeiou" else f"a {name}"
