"""The tokenizer, chat template and generation settings that a device needs."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tokenizers import Tokenizer

from lambda_split.bundle import GenerationDefaults, TextSettings
from lambda_split.errors import CheckpointInvalid
from lambda_split.partition import Checkpoint

__all__ = ["load_tokenizer", "write_text_files"]

_TOKENIZER = "tokenizer.json"
_CHAT_TEMPLATE = "chat_template.jinja"
# What the library can build a fast tokenizer from where there is no tokenizer.json.
_SLOW_FILES = ("tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
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


def load_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """The checkpoint's fast tokenizer, converted from a slow one where it has no other.

    Raises:
        CheckpointInvalid: there is none, or it cannot be read or converted.
    """
    path = checkpoint.text_file(_TOKENIZER)
    if path is not None:
        try:
            return Tokenizer.from_file(str(path))
        except Exception as error:  # the binding raises bare Exception
            raise CheckpointInvalid(str(path), str(error)) from error
    slow = next(filter(None, map(checkpoint.text_file, _SLOW_FILES)), None)
    if slow is None:
        raise CheckpointInvalid(_TOKENIZER, "the checkpoint has no tokenizer")
    # The library looks for these in the same folder.
    for name in ("tokenizer_config.json", "special_tokens_map.json", "merges.txt"):
        checkpoint.text_file(name)
    from transformers import AutoTokenizer

    try:
        converted = AutoTokenizer.from_pretrained(slow.parent, local_files_only=True)
    except (ImportError, OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointInvalid(str(slow), f"it cannot be converted: {error}") from error
    backend = getattr(converted, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise CheckpointInvalid(str(slow), "the library has no fast tokenizer for it")
    return backend


def write_text_files(checkpoint: Checkpoint, tokenizer: Tokenizer, folder: Path) -> TextSettings:
    """Write ``tokenizer.json`` and, where there is one, ``chat_template.jinja``.

    Args:
        checkpoint: Where the settings come from.
        tokenizer: As :func:`load_tokenizer` gave it.
        folder: The bundle.

    Raises:
        CheckpointInvalid: one of the checkpoint's JSON files is malformed.
    """
    source = checkpoint.text_file(_TOKENIZER)
    raw = tokenizer.to_str().encode() if source is None else source.read_bytes()
    _write(folder / _TOKENIZER, raw)
    config = _read_json(checkpoint, "tokenizer_config.json")
    template = _chat_template(checkpoint, config)
    if template is not None:
        _write(folder / _CHAT_TEMPLATE, template.encode())
    generation = _read_json(checkpoint, "generation_config.json")
    special = _special_tokens(config, _read_json(checkpoint, "special_tokens_map.json"))
    return TextSettings(
        tokenizer=_TOKENIZER,
        chat_template=None if template is None else _CHAT_TEMPLATE,
        stop_token_ids=_stop_tokens(checkpoint, tokenizer, generation, special),
        special_tokens=special,
        generation=_generation_defaults(generation),
    )


def _write(path: Path, raw: bytes) -> None:
    with path.open("wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())


def _read_json(checkpoint: Checkpoint, name: str) -> dict[str, object]:
    path = checkpoint.text_file(name)
    if path is None:
        return {}
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointInvalid(str(path), str(error)) from error
    if not isinstance(found, dict):
        raise CheckpointInvalid(str(path), "it is not a JSON object")
    return found


def _chat_template(checkpoint: Checkpoint, config: dict[str, object]) -> str | None:
    path = checkpoint.text_file(_CHAT_TEMPLATE)
    if path is not None:
        return path.read_text(encoding="utf-8")
    found = config.get("chat_template")
    if found is None:
        found = _read_json(checkpoint, "chat_template.json").get("chat_template")
    if isinstance(found, list):  # several named ones
        named = {
            str(item.get("name")): item.get("template") for item in found if isinstance(item, dict)
        }
        found = named.get("default")
    return found if isinstance(found, str) else None


def _special_tokens(*sources: dict[str, object]) -> dict[str, str]:
    # A token is a string, or an object that also says how it is matched; earlier sources win.
    texts: dict[str, str] = {}
    for source in sources:
        for name in _SPECIAL:
            token = source.get(name)
            text = token.get("content") if isinstance(token, dict) else token
            if isinstance(text, str):
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


def _generation_defaults(generation: dict[str, object]) -> GenerationDefaults:
    def number(name: str, default: float) -> float:
        value = generation.get(name)
        return float(value) if isinstance(value, int | float) else default

    penalty = number("repetition_penalty", 1.0)
    if not generation.get("do_sample"):
        return GenerationDefaults(repetition_penalty=penalty)
    return GenerationDefaults(
        temperature=number("temperature", 1.0),
        top_k=int(number("top_k", _LIBRARY_TOP_K)),
        top_p=number("top_p", 1.0),
        min_p=number("min_p", 0.0),
        repetition_penalty=penalty,
    )
