"""The texts of an audit: whose prompts are attacked, what perplexity is measured on, other text.

A ``.txt`` file is cut at blank lines into passages that are as long as wanted. A ``.jsonl`` file
has one document a line, ``{"text": …}`` or ``{"messages": [{"role": …, "content": …}, …]}``; of a
chat the prompt ends with the first user message, put through the model's chat template.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edge_runtime.chat import ChatTemplate, Message
from export.text_settings import TextFiles, read_text_files
from export.tokenizer_file import TokenizerFile, read_tokenizer
from lambda_split.errors import LambdaSplitError, UsageError
from lambda_split.partition import Checkpoint

__all__ = ["Reader", "Texts", "open_reader", "read_texts", "text_rows"]

_MAX_FILE_BYTES = 64 * 1024 * 1024
_MEASURED_TOKENS = 192  # of a text that perplexity is measured on
_LONG_ENOUGH = f"of a .txt each has at least {_MEASURED_TOKENS} tokens, of a .jsonl a line"
_ROW_TOKENS = 64  # of a text that an attacker trains on
_SHORTEST_ROW = 8

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Texts:
    """Token ids of all texts; no text is in two groups.

    Attributes:
        prompts: What is attacked.
        measured: What perplexity is measured on.
        other: What attackers train on.
    """

    prompts: tuple[Ids, ...]
    measured: tuple[Ids, ...]
    other: tuple[Ids, ...]


@dataclass(frozen=True, eq=False)
class Reader:
    """From text to token ids and back.

    Attributes:
        tokenizer: The checkpoint's.
        template: Its chat template, where it has one.
        start: The start token that stands before a text, where there is one.
        special_ids: Tokens that are no text: an attacker knows where they stand.
        stop_ids: Tokens that end a reply.
    """

    tokenizer: TokenizerFile
    template: ChatTemplate | None
    start: Ids
    special_ids: frozenset[int]
    stop_ids: frozenset[int]

    def encode(self, text: str) -> Ids:
        """Token ids with the start token; as long as the text is."""
        return tuple(self.tokenizer.encode(text))

    def encode_chat(self, messages: Sequence[Message], *, ask: bool) -> Ids:
        """Token ids of a chat; with ``ask`` up to where the answer begins.

        Raises:
            UsageError: the model has no chat template, or it refuses the messages.
        """
        if self.template is None:
            raise UsageError("the model has no chat template: audit it with plain text")
        rendered = self.template.render(messages, add_generation_prompt=ask)
        encoding = self.tokenizer.tokenizer.encode(rendered, add_special_tokens=False)
        return tuple(encoding.ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some tokens, without special ones."""
        text: str = self.tokenizer.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text


def open_reader(checkpoint: Checkpoint) -> Reader:
    """The checkpoint's tokenizer and chat template.

    Raises:
        CheckpointInvalid: a file is missing or malformed.
    """
    tokenizer = read_tokenizer(checkpoint)
    files = read_text_files(checkpoint, tokenizer)
    start = tuple(tokenizer.encode(""))
    added = tokenizer.tokenizer.get_added_tokens_decoder()
    special = {number for number, token in added.items() if token.special}
    template = _template(files)
    stop = frozenset(files.settings.stop_token_ids)
    return Reader(tokenizer, template, start, frozenset(special), stop)


def _template(files: TextFiles) -> ChatTemplate | None:
    name = files.settings.chat_template
    if name is None:
        return None
    source = files.contents[name].decode("utf-8")
    return ChatTemplate.from_source(source, files.settings.special_tokens)


def read_texts(
    path: pathlib.Path, reader: Reader, *, prompts: int, prompt_tokens: int, measured: int
) -> Texts:
    """Read a file and deal its documents out.

    Args:
        path: A ``.txt`` or ``.jsonl`` file.
        reader: Encodes it.
        prompts: How many texts to attack.
        prompt_tokens: The most tokens of each, the start token included.
        measured: How many texts to measure perplexity on.

    Raises:
        UsageError: it cannot be read, or holds too little.
    """
    documents = list(_documents(path, reader, prompt_tokens))
    if len(documents) < prompts + measured:
        raise UsageError(
            f"{path} holds {len(documents)} texts ({_LONG_ENOUGH}), and {prompts + measured} are "
            f"needed: {prompts} to attack (--texts) and {measured} to measure perplexity on; give "
            "a longer file"
        )
    # Spread over the file, so that its beginning decides nothing.
    order = np.random.default_rng(0).permutation(len(documents)).tolist()
    chosen = [documents[number] for number in order]
    attacked, kept = chosen[:prompts], chosen[prompts : prompts + measured]
    rest = chosen[prompts + measured :]
    return Texts(
        tuple(prompt[:prompt_tokens] for prompt, _ in attacked),
        tuple(whole[:_MEASURED_TOKENS] for _, whole in kept),
        text_rows([whole for _, whole in rest]),
    )


def text_rows(texts: Sequence[Ids]) -> tuple[Ids, ...]:
    """Texts in pieces that learned attacks train on; what is left over and short is dropped."""
    return tuple(
        whole[begin : begin + _ROW_TOKENS]
        for whole in texts
        for begin in range(0, len(whole), _ROW_TOKENS)
        if len(whole) - begin >= _SHORTEST_ROW
    )


def _documents(path: pathlib.Path, reader: Reader, tokens: int) -> Iterator[tuple[Ids, Ids]]:
    """Pairs of a prompt and the whole text, each with at least a few tokens."""
    lines = _content(path).splitlines()
    pairs = _json_documents(path, lines, reader) if path.suffix == ".jsonl" else None
    if pairs is None:
        pairs = _passages(lines, reader, max(tokens, _MEASURED_TOKENS))
    for prompt, whole in pairs:
        if min(len(prompt), len(whole)) >= len(reader.start) + 4:
            yield prompt, whole


def _content(path: pathlib.Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    if len(data) > _MAX_FILE_BYTES:
        raise UsageError(f"{path} is longer than {_MAX_FILE_BYTES >> 20} MiB: give a part of it")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no UTF-8 text") from error


def _passages(lines: list[str], reader: Reader, tokens: int) -> Iterator[tuple[Ids, Ids]]:
    """Paragraphs together, as many as make a text long enough."""
    passage = ""
    for line in [*lines, ""]:
        passage += line + "\n"
        if line.strip():
            continue
        ids = reader.encode(passage.strip())
        if len(ids) >= tokens:
            yield ids, ids
            passage = ""


def _json_documents(
    path: pathlib.Path, lines: list[str], reader: Reader
) -> Iterator[tuple[Ids, Ids]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
            if "messages" in document:
                chat = [
                    Message(_text(m, "role"), _text(m, "content")) for m in document["messages"]
                ]
                asked = next(n for n, message in enumerate(chat, 1) if message.role == "user")
                prompt = reader.encode_chat(chat[:asked], ask=True)
                yield prompt, reader.encode_chat(chat, ask=False)
            else:
                ids = reader.encode(_text(document, "text"))
                yield ids, ids
        except LambdaSplitError as error:
            raise UsageError(f"{path}, line {number}: {error}") from error
        except (ValueError, TypeError, KeyError, RecursionError, StopIteration) as error:
            raise UsageError(
                f'{path}, line {number}: not a document with "text" or "messages"'
            ) from error


def _text(document: dict[str, object], key: str) -> str:
    value = document[key]
    if not isinstance(value, str):
        raise TypeError(key)
    return value
