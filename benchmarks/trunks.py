"""Random trunks made in memory, engines over them, and sessions that decode in a process.

:func:`make_engine` is the only place where a benchmark says which engine it measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from benchmarks.models import Size, llama_config
from cloud.engine import (
    BatchingEngine,
    Engine,
    KVGeometry,
    KVPool,
    Result,
    SessionCache,
    Work,
    required_attention,
)
from cloud.engine.graphs import cuda_recorder
from cloud.engine.packing import pack_linear_layers
from cloud.engine.paged import PagedAttention, best_attention, varlen_kernel
from lambda_split.partition import LayerStack, Trunk

__all__ = [
    "Decoding",
    "decode_step",
    "make_engine",
    "open_at",
    "random_llama",
    "spread",
    "trunk_bytes",
]

_PROMPT_PIECE = 512
_BLOCK_POSITIONS = {"cpu": 16, "cuda": 256}  # as the server's


def random_llama(size: Size, *, dtype: torch.dtype, device: torch.device) -> LlamaForCausalLM:
    """A Llama with random weights, made where they stay: nothing is read or copied."""
    config = llama_config(size, dtype)
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(dtype)
    model.to_empty(device=device)
    # What is not stored was on the meta device, too.
    model.model.rotary_emb = LlamaRotaryEmbedding(config).to(device)
    with torch.inference_mode():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.02)
            else:
                parameter.fill_(1)
    return model.requires_grad_(requires_grad=False).eval()


def trunk_bytes(model: LlamaForCausalLM, layers: range) -> int:
    """Bytes of the weights that one step of these layers reads."""
    parameters = (p for number in layers for p in model.model.layers[number].parameters())
    return sum(parameter.nbytes for parameter in parameters)


def make_engine(
    model: LlamaForCausalLM, layers: range, *, sessions: int, positions: int, packed: bool = True
) -> Engine:
    """The engine to be measured, over some layers of a model.

    The layers are shared with the model, whose attention function is set to what the engine needs.

    Args:
        model: On the device to measure.
        layers: The trunk.
        sessions: The most sessions that will be open.
        positions: Of all of them together, at most.
        packed: On a CPU, lay the weights out for the processor, as the server does.
    """
    config: Any = model.config
    config._attn_implementation = required_attention()  # noqa: SLF001 - the library's name
    geometry = KVGeometry(
        layers=layers,
        kv_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        dtype=model.dtype,
        devices=[model.device],
    )
    size = _BLOCK_POSITIONS[model.device.type]
    blocks = positions // size + sessions  # each session's last block is not full
    pool = KVPool(geometry, block_positions=size, blocks=blocks, lane=max(1, blocks // sessions))
    # As the server chooses it: on a GPU what it has for pages, and steps recorded.
    attend = best_attention(pool, config.num_attention_heads, varlen_kernel())
    trunk = _trunk(model, layers)
    if model.device.type == "cpu" and packed:
        pack_linear_layers(trunk)  # as the server does
    return BatchingEngine(
        trunk,
        width=config.hidden_size,
        dtype=model.dtype,
        pool=pool,
        max_sessions=sessions,
        max_positions=min(pool.positions, config.max_position_embeddings),
        attend=attend,
        record=cuda_recorder if isinstance(attend, PagedAttention) else None,
    )


def _trunk(model: LlamaForCausalLM, layers: range) -> Trunk:
    chosen = [model.model.layers[number] for number in layers]
    windows = (None,) * len(layers)
    return Trunk(LayerStack(model.config, layers, chosen, model.model.rotary_emb, windows))


def spread(count: int, low: int, high: int) -> list[int]:
    """Lengths that are evenly spread; the middle for one. Their mean is the same for any count."""
    if count == 1:
        return [(low + high) // 2]
    return [round(low + (high - low) * number / (count - 1)) for number in range(count)]


@dataclass
class Decoding:
    """A session that is past its prompt.

    Attributes:
        session: Its place in the engine.
        length: Positions that it holds.
    """

    session: SessionCache
    length: int


def open_at(engine: Engine, layers: range, length: int, *, room: int) -> Decoding:
    """Open a session and run a prompt of random hidden states.

    Args:
        engine: Where.
        layers: What it runs through.
        length: Of the prompt.
        room: Positions that are left for decoding.
    """
    decoding = Decoding(engine.open(layers, length + room), 0)
    while decoding.length < length:
        tokens = min(_PROMPT_PIECE, length - decoding.length)
        _run(engine, [decoding], tokens)
    return decoding


def decode_step(engine: Engine, group: Sequence[Decoding]) -> None:
    """One step with one token of each session."""
    _run(engine, group, 1)


def _run(engine: Engine, group: Sequence[Decoding], tokens: int) -> None:
    # float32 on the host, as they come from the wire.
    batch = [
        Work(each.session, each.length, torch.randn(tokens, engine.width), 1) for each in group
    ]
    for each, outcome in zip(group, engine.step(batch), strict=True):
        if not isinstance(outcome, Result):
            raise outcome
        each.length += tokens
