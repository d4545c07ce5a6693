"""Tokenizers of the kinds that language models use, trained on a little text in many scripts."""

import functools
import json

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = [
    "Hello, world! The quick brown fox jumps over the lazy dog.",
    "Grüße aus Köln, à bientôt — naïve façade, Ω≈ç√∫.",
    "你好，世界。这是一个测试。 こんにちは世界 안녕하세요",
    "👩‍👩‍👧‍👦 family 🇩🇪 flag 👍🏽 skin 😀😀😀 emoji",
    "e\u0301 combining a\u0308 n\u0303, ก็ น้ำ क्षि",
    "  two spaces,\ttabs\nand\n\nlines  ",
] * 3
SPECIAL = ["<unk>", "<s>", "</s>"]


@functools.cache
def byte_level():
    """Like GPT-2, Llama 3 and Qwen: BPE over bytes."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=500,
            special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return made


def _with_byte_fallback(made):
    """Train on Latin text only, and give every byte a token: other scripts fall back to bytes."""
    made.train_from_iterator(
        CORPUS[:2],
        trainers.BpeTrainer(
            vocab_size=420,
            special_tokens=[*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))],
            show_progress=False,
        ),
    )
    # Retrained vocabularies list the byte tokens as special; in Llama's file they are not.
    content = json.loads(made.to_str())
    content["added_tokens"] = [
        token for token in content["added_tokens"] if token["content"] in SPECIAL
    ]
    content["model"]["byte_fallback"] = True
    content["model"]["unk_token"] = "<unk>"
    content["model"]["fuse_unk"] = True
    return tokenizers.Tokenizer.from_str(json.dumps(content))


@functools.cache
def llama_style():
    """Like Llama 2: spaces as U+2581 by a normalizer, byte fallback, the first space stripped."""
    made = tokenizers.Tokenizer(models.BPE())
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return _with_byte_fallback(made)


@functools.cache
def metaspace():
    """Like Mistral's and T5's: the Metaspace pre-tokenizer and decoder, with byte fallback."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    made.decoder = decoders.Sequence(
        [
            decoders.ByteFallback(),
            decoders.Metaspace(prepend_scheme="first", split=False),
        ]
    )
    return _with_byte_fallback(made)


@functools.cache
def unigram():
    """A Unigram model over Metaspace, with a start token added by the post-processor."""
    made = tokenizers.Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.train_from_iterator(
        CORPUS,
        trainers.UnigramTrainer(
            vocab_size=300, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
        ),
    )
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", made.token_to_id("<s>"))]
    )
    return made


ALL = {
    "byte level": byte_level,
    "llama style": llama_style,
    "metaspace": metaspace,
    "unigram": unigram,
}
