"""The tokenizer, chat template and generation settings that a device needs."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from tokenizers import Tokenizer

from export.tokenizer_file import TOKENIZER, TokenizerFile
from lambda_split.bundle import GenerationDefaults, TextSettings
from lambda_split.errors import CheckpointInvalid
from lambda_split.partition import Checkpoint
from lambda_split.partition.files import read_bounded, read_json_object

__all__ = ["TextFiles", "read_text_files", "write_text_files"]

_CHAT_TEMPLATE = "chat_template.jinja"
_GENERATION = "generation_config.json"
_MAX_JSON_BYTES = 64 * 1024 * 1024  # tokenizer_config.json can list every added token
_MAX_TEMPLATE_CHARACTERS = 1 << 20  # what a device reads; the longest have some 20,000
# Tokens that end a turn in common chat formats. Checkpoints do not always list them as end tokens,
# and a base model's vocabulary has them without ever emitting them.
_END_OF_TURN = (
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_turn>",
)
_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token")
# transformers samples from the 50 most likely tokens unless told otherwise.
_LIBRARY_TOP_K = 50
_LARGEST = 1e300  # of any setting


@dataclass(frozen=True)
class TextFiles:
    """What a bundle holds about text.

    Attributes:
        settings: For the manifest.
        contents: Files by name.
    """

    settings: TextSettings
    contents: dict[str, bytes] = field(repr=False)


def read_text_files(checkpoint: Checkpoint, tokenizer: TokenizerFile) -> TextFiles:
    """Collect ``tokenizer.json``, the chat template, where there is one, and the settings.

    Args:
        checkpoint: Where the settings come from.
        tokenizer: The checkpoint's tokenizer.

    Raises:
        CheckpointInvalid: a file is malformed, or holds a setting that no device can use.
    """
    contents = {TOKENIZER: tokenizer.raw}
    config = _read_json(checkpoint, "tokenizer_config.json")
    template = _chat_template(checkpoint, config)
    if template is not None:
        contents[_CHAT_TEMPLATE] = template
    generation = _read_json(checkpoint, _GENERATION)
    special = _special_tokens(config, _read_json(checkpoint, "special_tokens_map.json"))
    settings = TextSettings(
        tokenizer=TOKENIZER,
        chat_template=None if template is None else _CHAT_TEMPLATE,
        stop_token_ids=_stop_tokens(checkpoint, tokenizer.tokenizer, generation, special),
        special_tokens=special,
        generation=_generation_defaults(generation, checkpoint.vocab_size),
    )
    return TextFiles(settings, contents)


def write_text_files(files: TextFiles, folder: Path) -> None:
    """Write the files and make them durable.

    Raises:
        OSError: one cannot be written.
    """
    for name, raw in files.contents.items():
        with (folder / name).open("wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())


def _read_json(checkpoint: Checkpoint, name: str) -> dict[str, object]:
    path = checkpoint.text_file(name)
    return {} if path is None else read_json_object(path, max_bytes=_MAX_JSON_BYTES)


def _chat_template(checkpoint: Checkpoint, config: dict[str, object]) -> bytes | None:
    path = checkpoint.text_file(_CHAT_TEMPLATE)
    if path is not None:
        raw = read_bounded(path, max_bytes=4 * _MAX_TEMPLATE_CHARACTERS)
        try:
            return _encode_template(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise CheckpointInvalid(str(path), "it is not UTF-8 text") from error
    found = config.get("chat_template")
    if found is None:
        found = _read_json(checkpoint, "chat_template.json").get("chat_template")
    if isinstance(found, list):  # several named ones
        named = {
            str(item.get("name")): item.get("template") for item in found if isinstance(item, dict)
        }
        found = named.get("default")
    return _encode_template(found) if isinstance(found, str) else None


def _encode_template(template: str) -> bytes:
    if len(template) > _MAX_TEMPLATE_CHARACTERS:
        reason = f"it has more than {_MAX_TEMPLATE_CHARACTERS} characters"
        raise CheckpointInvalid("the chat template", reason)
    return _encode("the chat template", template)


def _encode(name: str, text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:  # JSON can spell half a character
        raise CheckpointInvalid(name, "it holds characters that are not valid Unicode") from error


def _special_tokens(*sources: dict[str, object]) -> dict[str, str]:
    # A token is a string, or an object that also says how it is matched; earlier sources win.
    texts: dict[str, str] = {}
    for source in sources:
        for name in _SPECIAL:
            token = source.get(name)
            text = token.get("content") if isinstance(token, dict) else token
            if isinstance(text, str):
                _encode(f"tokenizer_config.json ({name})", text)
                texts.setdefault(name, text)
    return texts


def _stop_tokens(
    checkpoint: Checkpoint,
    tokenizer: Tokenizer,
    generation: dict[str, object],
    special: dict[str, str],
) -> tuple[int, ...]:
    found: list[object] = []
    for listed in (
        generation.get("eos_token_id"),
        getattr(checkpoint.config, "eos_token_id", None),
    ):
        found += listed if isinstance(listed, list | tuple) else [listed]
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    found += [tokenizer.token_to_id(text) for text in _END_OF_TURN if text in added]
    if "eos_token" in special:
        found.append(tokenizer.token_to_id(special["eos_token"]))
    # bool is an int in Python, but not a token
    ids = {token for token in found if isinstance(token, int) and not isinstance(token, bool)}
    return tuple(sorted(token for token in ids if 0 <= token < checkpoint.vocab_size))


def _generation_defaults(generation: dict[str, object], vocab_size: int) -> GenerationDefaults:
    found = {"repetition_penalty": _number(generation, "repetition_penalty", 1.0)}
    if generation.get("do_sample"):
        # Less than zero means off in some engines; more than the vocabulary amounts to it.
        top_k = min(max(0.0, _number(generation, "top_k", _LIBRARY_TOP_K)), vocab_size)
        found |= {
            "temperature": _number(generation, "temperature", 1.0),
            "top_k": int(top_k) if top_k == int(top_k) else top_k,
            "top_p": _number(generation, "top_p", 1.0),
            "min_p": _number(generation, "min_p", 0.0),
        }
    try:
        return msgspec.convert(found, GenerationDefaults)
    except msgspec.ValidationError as error:
        raise CheckpointInvalid(_GENERATION, str(error)) from error


def _number(generation: dict[str, object], name: str, default: float) -> float:
    value = generation.get(name)
    if value is None:
        return default
    # The bounds also keep out infinity, what is not a number, and integers beyond every float.
    if (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and -_LARGEST < value < _LARGEST
    ):
        return float(value)
    raise CheckpointInvalid(_GENERATION, f"{name} is {value!r}, not a number")
