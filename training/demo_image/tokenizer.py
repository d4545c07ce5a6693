"""The two tokenizers: CLIP's byte-pair encoding, with merges learnt from the captions.

CLIP's vocabulary is 256 bytes, the same bytes at the end of a word, the merges, and two special
tokens (Radford et al. 2021). With merges from these captions, nearly every word of theirs is one
token; any other text is spelt. Both tokenizers of SDXL are the same but for what they pad with.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Final

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from .captions import random_caption
from .recipe import MAX_TOKENS
from .scene import random_scene

BOS: Final = "<|startoftext|>"
EOS: Final = "<|endoftext|>"
_END_OF_WORD: Final = "</w>"
#: More merges than the captions have words to merge; training ends where nothing is left.
_MOST_MERGES: Final = 1000
_TRAINING_CAPTIONS: Final = 2000


def clip_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Learn the merges; the same captions give the same ones.

    Returns:
        The vocabulary in CLIP's order, special tokens last, and the merges.
    """
    letters = _bytes_in_order()
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix=_END_OF_WORD))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=2 * len(letters) + _MOST_MERGES,
        initial_alphabet=letters,
        end_of_word_suffix=_END_OF_WORD,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_captions(), trainer)
    merges = [(left, right) for left, right in json.loads(tokenizer.to_str())["model"]["merges"]]
    tokens = [
        *letters,
        *(letter + _END_OF_WORD for letter in letters),
        *(left + right for left, right in merges),
        BOS,
        EOS,
    ]
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}, merges


def save_tokenizers(folder: Path) -> None:
    """Write ``tokenizer/`` and ``tokenizer_2/`` of a pipeline, in the files that SDXL has."""
    vocabulary, merges = clip_vocabulary()
    # The second encoder's padding is token 0, as in OpenCLIP.
    for name, pad in (("tokenizer", EOS), ("tokenizer_2", next(iter(vocabulary)))):
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        special = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "pad_token": pad}
        config = special | {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": MAX_TOKENS,
            "do_lower_case": True,
            "add_prefix_space": False,
            "errors": "replace",
        }
        _write(place / "vocab.json", json.dumps(vocabulary, ensure_ascii=False))
        lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
        _write(place / "merges.txt", "\n".join(lines))
        _write(place / "tokenizer_config.json", json.dumps(config, indent=2))
        _write(place / "special_tokens_map.json", json.dumps(special, indent=2))


def load_tokenizers(folder: Path) -> tuple[CLIPTokenizer, CLIPTokenizer]:
    """Open both tokenizers of a pipeline."""
    first, second = (
        CLIPTokenizer.from_pretrained(str(folder / name)) for name in ("tokenizer", "tokenizer_2")
    )
    return first, second


def _write(path: Path, text: str) -> None:
    path.write_text(text + "\n", encoding="utf-8")


def _captions() -> Iterator[str]:
    rng = Random(0)
    for _ in range(_TRAINING_CAPTIONS):
        yield random_caption(random_scene("train", rng), rng)


def _bytes_in_order() -> list[str]:
    """The printable letter of every byte, in CLIP's order: printable bytes first ("!" is 0)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [number for number in range(256) if number not in printable]
    # The others are shown as letters from 256 on, in their order.
    return [chr(number) for number in printable] + [chr(256 + i) for i in range(len(others))]
