"""Tiny random models of every supported family, saved as real checkpoints.

``save_tiny(name, folder)`` writes a model of 6 layers with a tokenizer; ``VARIANTS`` lists the
names. Each variant is there for one thing that can go wrong when its family is cut.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from functools import cache

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Olmo3Config,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

__all__ = ["LAYERS", "VARIANTS", "VOCABULARY", "build_tiny", "save_tiny", "tiny_tokenizer"]

LAYERS = 6
VOCABULARY = 320
WINDOW = 16

_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_PER_LAYER = ["sliding_attention" if number % 2 else "full_attention" for number in range(LAYERS)]
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0 + 0.1 * i for i in range(8)],
    "long_factor": [2.0 + 0.5 * i for i in range(8)],
}

VARIANTS: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: LlamaConfig(**_COMMON, tie_word_embeddings=False),
    "llama-tied": lambda: LlamaConfig(**_COMMON, tie_word_embeddings=True),
    "llama-rope-llama3": lambda: LlamaConfig(**_COMMON, rope_parameters=dict(_LLAMA3_ROPE)),
    "llama-rope-linear": lambda: LlamaConfig(
        **_COMMON, rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
    ),
    "llama-rope-dynamic": lambda: LlamaConfig(
        **_COMMON, rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    ),
    "mistral": lambda: MistralConfig(**_COMMON, sliding_window=WINDOW),
    "mistral-full": lambda: MistralConfig(**_COMMON, sliding_window=None),
    "qwen2": lambda: Qwen2Config(**_COMMON, tie_word_embeddings=True),
    "qwen2-sliding": lambda: Qwen2Config(
        **_COMMON, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=3
    ),
    "qwen3": lambda: Qwen3Config(**_COMMON, head_dim=24),
    "gemma2": lambda: Gemma2Config(
        **_COMMON,
        head_dim=24,
        query_pre_attn_scalar=24,
        sliding_window=WINDOW,
        layer_types=list(_PER_LAYER),
        attn_logit_softcapping=5.0,
        final_logit_softcapping=8.0,
    ),
    "gemma": lambda: GemmaConfig(**_COMMON, head_dim=24),
    "gemma3": lambda: Gemma3TextConfig(
        **_COMMON,
        head_dim=24,
        query_pre_attn_scalar=24,
        sliding_window=WINDOW,
        layer_types=list(_PER_LAYER),
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            "full_attention": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
        },
    ),
    "phi3": lambda: Phi3Config(
        **_COMMON, rope_parameters={"rope_type": "default", "partial_rotary_factor": 0.5}
    ),
    "phi3-longrope": lambda: Phi3Config(
        **_COMMON, original_max_position_embeddings=384, rope_parameters=dict(_LONGROPE)
    ),
    "olmo2": lambda: Olmo2Config(**_COMMON),
    "olmo3": lambda: Olmo3Config(**_COMMON, sliding_window=WINDOW, layer_types=list(_PER_LAYER)),
    "smollm3": lambda: SmolLM3Config(**_COMMON, no_rope_layer_interval=3),
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=64,
        n_layer=LAYERS,
        n_head=4,
        n_positions=512,
        bos_token_id=1,
        eos_token_id=2,
    ),
}


def build_tiny(name: str, seed: int = 0) -> PreTrainedModel:
    """A random float32 model, large enough in its values that greedy text varies."""
    config = VARIANTS[name]()
    config.dtype = "float32"
    torch.manual_seed(seed)
    model: PreTrainedModel = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter.ndim >= 2:
                # A deviation of 1/sqrt(fan-in) keeps signals alive through all layers; more makes
                # the model depend sharply on its input, so that a wrong position shows.
                transposed = name == "gpt2" and ".h." in parameter_name
                fan_in = parameter.shape[0 if transposed else -1]
                parameter.normal_(0, 1.6 * fan_in**-0.5)
            elif parameter_name.endswith("bias"):
                parameter.normal_(0, 0.1)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
        if name.startswith("gemma"):
            # Scaled by the square root of its width, the embedding would drown what layers add;
            # the final norm makes up for it in the logits, as the LM head is tied.
            model.get_input_embeddings().weight.div_(model.config.hidden_size**0.5)
            model.base_model.norm.weight.add_(7.0)
        # Logits of special tokens are 0, far from the largest: generations don't stop early.
        model.get_output_embeddings().weight[:3] = 0
    return model.eval()


@cache
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on one sentence: every text has tokens, none is unknown."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = "the quick brown fox jumps over the lazy dog and then the other dog jumps over the fox"
    tokenizer.train_from_iterator([text] * 4, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def save_tiny(
    name: str,
    folder: pathlib.Path,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    max_shard_size: str | int | None = None,
) -> PreTrainedModel:
    """Write a variant's checkpoint and tokenizer; returns the model.

    Args:
        name: One of ``VARIANTS``.
        folder: Created if need be.
        seed: Of the random weights.
        dtype: What the weights are stored in.
        max_shard_size: Write several shards of at most this size, as ``save_pretrained`` does.
    """
    model = build_tiny(name, seed).to(dtype)
    more = {} if max_shard_size is None else {"max_shard_size": max_shard_size}
    model.save_pretrained(folder, **more)
    tiny_tokenizer().save_pretrained(folder)
    return model
