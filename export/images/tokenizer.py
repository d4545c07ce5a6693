"""A CLIP tokenizer as every runtime reads it: vocabulary and merges, and one ``tokenizer.json``.

A device reads ``tokenizer.json`` with the tokenizers library and pads or truncates by itself;
other runtimes read the slow tokenizer's files. A pipeline has the one or the other or both; a
bundle gets both.
"""

from __future__ import annotations

import json
import pathlib
from dataclasses import dataclass, field

from tokenizers import Tokenizer
from transformers import CLIPTokenizer

from export.tokenizer_file import TOKENIZER, library_errors
from lambda_split.errors import CheckpointInvalid
from lambda_split.partition.files import ModelFiles, read_bounded, read_json_object

__all__ = ["ClipTokenizer", "read_clip_tokenizer"]

_VOCABULARY, _MERGES = "vocab.json", "merges.txt"
_SETTINGS, _SPECIAL = "tokenizer_config.json", "special_tokens_map.json"
_MAX_BYTES = 64 * 1024 * 1024
_END = "<|endoftext|>"
_MAX_TOKENS = 77  # CLIP's, where a tokenizer does not say


@dataclass(frozen=True)
class ClipTokenizer:
    """A tokenizer and what is written of it.

    Attributes:
        folder: In pipeline and bundle, for example ``tokenizer_2``.
        contents: Files by name in that folder.
        max_tokens: What a prompt is padded or truncated to.
        pad_token: What it is padded with.
        pad_token_id: The same as a number.
        tokenizer: Without padding or truncation.
    """

    folder: str
    contents: dict[str, bytes] = field(repr=False)
    max_tokens: int
    pad_token: str
    pad_token_id: int
    tokenizer: Tokenizer = field(repr=False)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, padded or truncated, as a device computes them."""
        padded = Tokenizer.from_str(self.tokenizer.to_str())
        padded.enable_truncation(self.max_tokens)
        padded.enable_padding(
            length=self.max_tokens, pad_id=self.pad_token_id, pad_token=self.pad_token
        )
        ids: list[int] = padded.encode(text).ids
        return ids


def read_clip_tokenizer(
    files: ModelFiles, folder: str, *, positions: int, vocabulary: int
) -> ClipTokenizer:
    """Read a tokenizer, converting it where it has no ``tokenizer.json``.

    Args:
        files: The pipeline's.
        folder: The tokenizer's.
        positions: What its encoder has.
        vocabulary: Tokens that its encoder knows.

    Raises:
        CheckpointInvalid: there is none, or it cannot be read or converted, or its encoder lacks
            some of its tokens.
    """
    paths = {name: files.find(f"{folder}/{name}") for name in (_VOCABULARY, _MERGES, _SPECIAL)}
    settings_path, fast = (files.find(f"{folder}/{name}") for name in (_SETTINGS, TOKENIZER))
    settings = _json(settings_path)
    source = fast or paths[_VOCABULARY]
    if source is None:
        raise CheckpointInvalid(f"{folder}/{_VOCABULARY}", "the pipeline has no tokenizer")
    with library_errors(str(source)):
        tokenizer = (
            Tokenizer.from_str(read_bounded(fast, max_bytes=_MAX_BYTES).decode("utf-8"))
            if fast is not None
            else _convert(source)
        )
        tokenizer.no_padding()
        tokenizer.no_truncation()
        ends: list[int] = tokenizer.encode("").ids
    if len(ends) != 2:
        raise CheckpointInvalid(str(source), "it adds no first and last token")
    if tokenizer.get_vocab_size() > vocabulary:
        reason = f"it has {tokenizer.get_vocab_size()} tokens, its encoder knows {vocabulary}"
        raise CheckpointInvalid(str(source), reason)
    pad = _text(settings.get("pad_token")) or _text(_json(paths[_SPECIAL]).get("pad_token")) or _END
    pad_id = tokenizer.token_to_id(pad)
    if pad_id is None:
        raise CheckpointInvalid(str(source), f"it pads with {pad!r}, which it has not")
    contents = _slow_files(tokenizer)
    for name, path in (*paths.items(), (_SETTINGS, settings_path)):
        if path is not None:
            contents[name] = read_bounded(path, max_bytes=_MAX_BYTES)
    contents[TOKENIZER] = tokenizer.to_str().encode()
    return ClipTokenizer(folder, contents, _max_tokens(settings, positions), pad, pad_id, tokenizer)


def _json(path: pathlib.Path | None) -> dict[str, object]:
    return {} if path is None else read_json_object(path, max_bytes=_MAX_BYTES)


def _convert(vocabulary: pathlib.Path) -> Tokenizer:
    # The library looks for the other files in the same folder.
    converted = CLIPTokenizer.from_pretrained(vocabulary.parent, local_files_only=True)
    return Tokenizer.from_str(converted.backend_tokenizer.to_str())


def _text(token: object) -> str | None:
    # A token is a string, or an object that also says how it is matched.
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) and text else None


def _max_tokens(settings: dict[str, object], positions: int) -> int:
    found = settings.get("model_max_length", _MAX_TOKENS)
    # Where nothing was set the library writes a number beyond every model.
    whole = isinstance(found, int) and not isinstance(found, bool) and found > 1
    return min(found if whole and isinstance(found, int) else _MAX_TOKENS, positions)


def _slow_files(tokenizer: Tokenizer) -> dict[str, bytes]:
    """Vocabulary and merges, as the slow tokenizer has them, out of a fast one."""
    model = json.loads(tokenizer.to_str())["model"]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model.get("merges", [])]
    vocabulary = json.dumps(tokenizer.get_vocab(), ensure_ascii=False)
    lines = "\n".join(["#version: 0.2", *merges])
    return {_VOCABULARY: vocabulary.encode(), _MERGES: f"{lines}\n".encode()}
