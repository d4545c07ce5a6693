"""Random Llama-architecture checkpoints of stated sizes, written shard by shard."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast

__all__ = ["LLAMA_2_7B", "SIZES", "Size", "write_checkpoint"]


@dataclass(frozen=True)
class Size:
    """The measures of a Llama.

    Attributes:
        name: For tables.
        width: Hidden size.
        layers: Decoder layers.
        heads: Attention heads (as many key-value heads).
        intermediate: Width of the feed-forward part.
        vocab: Tokens.
    """

    name: str
    width: int
    layers: int
    heads: int
    intermediate: int
    vocab: int = 32000

    def with_layers(self, layers: int) -> Size:
        """The same width with another number of layers."""
        return replace(self, name=f"width {self.width} × {layers} layers", layers=layers)


SIZES = {
    "small": Size("width 512 × 8 layers", 512, 8, 8, 1376),
    "big": Size("width 2048 × 6 layers", 2048, 6, 16, 5504),
}
LLAMA_2_7B = Size("Llama-2-7B's dimensions", 4096, 32, 32, 11008)


def llama_config(size: Size, dtype: torch.dtype) -> LlamaConfig:
    """A Llama of that size without grouped queries."""
    return LlamaConfig(
        vocab_size=size.vocab,
        hidden_size=size.width,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
        dtype=dtype,
    )


def write_checkpoint(
    size: Size, folder: pathlib.Path, *, dtype: torch.dtype = torch.float32
) -> None:
    """Write a random checkpoint, one shard a layer, and a byte-level tokenizer.

    Never more than one shard is in memory. The first shard holds the embedding, the last one norm
    and LM head, so that head, trunk and tail lie in different files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = llama_config(size, dtype)
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return (torch.randn(shape, generator=generator) * 0.02).to(dtype)

    def norm() -> torch.Tensor:
        return torch.ones(size.width, dtype=dtype)

    weight_map: dict[str, str] = {}
    total = 0
    for number in range(size.layers + 2):
        if number == 0:
            shard = {"model.embed_tokens.weight": random(size.vocab, size.width)}
        elif number <= size.layers:
            shard = _layer(size, f"model.layers.{number - 1}.", random, norm)
        else:
            shard = {
                "model.norm.weight": norm(),
                "lm_head.weight": random(size.vocab, size.width),
            }
        file = f"model-{number + 1:05}-of-{size.layers + 2:05}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(shard, file)
        total += sum(tensor.nbytes for tensor in shard.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    _tokenizer().save_pretrained(folder)


def _layer(
    size: Size,
    prefix: str,
    random: Callable[..., torch.Tensor],
    norm: Callable[[], torch.Tensor],
) -> dict[str, torch.Tensor]:
    square = (size.width, size.width)
    return {
        f"{prefix}input_layernorm.weight": norm(),
        f"{prefix}post_attention_layernorm.weight": norm(),
        **{f"{prefix}self_attn.{name}_proj.weight": random(*square) for name in "qkvo"},
        f"{prefix}mlp.gate_proj.weight": random(size.intermediate, size.width),
        f"{prefix}mlp.up_proj.weight": random(size.intermediate, size.width),
        f"{prefix}mlp.down_proj.weight": random(size.width, size.intermediate),
    }


def _tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)
