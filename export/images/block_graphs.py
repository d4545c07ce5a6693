"""From a UNet in PyTorch to the ONNX graphs of its first and its last blocks.

What they take and give is described in :mod:`lambda_split.denoiser_blocks`; inputs and outputs are
named as their roles. Attention is traced as for the VAE's decoder: Stable Diffusion's first block
has it over all latents.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from export.images.attention import attention_in_blocks
from export.images.graphs import (
    EXAMPLE_BATCH,
    EXAMPLE_HEIGHT,
    EXAMPLE_WIDTH,
    TracedImageGraph,
    trace_module,
)
from lambda_split.partition.pipelines import UNetFacts
from lambda_split.partition.pipelines.deep import (
    FirstBlocks,
    LastBlocks,
    Told,
    embedded_guidance,
)

__all__ = ["first_roles", "last_roles", "told_of", "trace_first", "trace_last"]

_TOKENS = 7
_TIME_IDS = 6
_AXES = {0: "batch", 2: "height", 3: "width"}
_INNER_AXES = {0: "batch", 2: "inner_height", 3: "inner_width"}
_TOKEN_AXES = {0: "batch", 1: "tokens"}
_ROW_AXES = {0: "batch"}


def first_roles(first: FirstBlocks, facts: UNetFacts) -> tuple[str, ...]:
    """What the first blocks take, in order."""
    takes = {
        "context": _attends(first.block),
        "pooled": facts.pooled_width is not None,
        "time_ids": facts.time_ids,
        "guidance": facts.guidance_embedding is not None,
    }
    return ("latents", "timesteps", *(role for role, taken in takes.items() if taken))


def last_roles(last: LastBlocks, skips: int) -> tuple[str, ...]:
    """What the last blocks take, in order."""
    context = ("context",) if _attends(last.block) else ()
    return ("features", "embedding", *context, *(f"skip.{number}" for number in range(skips)))


def told_of(given: Mapping[str, torch.Tensor], facts: UNetFacts) -> Told:
    """What a UNet is told, from a graph's inputs by role."""
    added = None
    if "pooled" in given:
        added = {"text_embeds": given["pooled"]}
        if "time_ids" in given:
            added["time_ids"] = given["time_ids"]
    guidance, width = given.get("guidance"), facts.guidance_embedding
    return Told(
        timesteps=given["timesteps"],
        # Blocks without attention do not look at it.
        context=given["context"] if "context" in given else given["timesteps"],
        added=added,
        guidance=None if guidance is None or width is None else embedded_guidance(guidance, width),
    )


class _FirstGraph(nn.Module):
    def __init__(self, first: FirstBlocks, facts: UNetFacts, roles: tuple[str, ...]) -> None:
        super().__init__()
        self.first = first
        self.facts = facts
        self.roles = roles

    def forward(self, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        given = dict(zip(self.roles, inputs, strict=True))
        found: tuple[torch.Tensor, ...] = self.first(given["latents"], told_of(given, self.facts))
        return found


class _LastGraph(nn.Module):
    def __init__(self, last: LastBlocks, roles: tuple[str, ...]) -> None:
        super().__init__()
        self.last = last
        self.roles = roles

    def forward(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        given = dict(zip(self.roles, inputs, strict=True))
        skips = [tensor for role, tensor in given.items() if role.startswith("skip.")]
        embedding = given["embedding"]
        context = given.get("context", embedding)  # blocks without attention do not look at it
        noise: torch.Tensor = self.last(given["features"], embedding, context, *skips)
        return noise


def trace_first(first: FirstBlocks, facts: UNetFacts, skips: int) -> TracedImageGraph:
    """Trace the first blocks with dynamic rows, height and width.

    Args:
        first: The blocks, their weights in a format already.
        facts: What the UNet takes.
        skips: How many skip connections they give.
    """
    roles = first_roles(first, facts)
    examples = {
        "latents": torch.zeros(EXAMPLE_BATCH, facts.latent_channels, EXAMPLE_HEIGHT, EXAMPLE_WIDTH),
        "timesteps": torch.zeros(EXAMPLE_BATCH),
        "context": torch.zeros(EXAMPLE_BATCH, _TOKENS, facts.conditioning_width),
        "pooled": torch.zeros(EXAMPLE_BATCH, facts.pooled_width or 1),
        "time_ids": torch.zeros(EXAMPLE_BATCH, _TIME_IDS),
        "guidance": torch.ones(EXAMPLE_BATCH),
    }
    axes = dict.fromkeys(roles, _ROW_AXES) | {"latents": _AXES, "context": _TOKEN_AXES}
    outputs = ("features", "embedding", *(f"skip.{number}" for number in range(skips)))
    with attention_in_blocks():
        model = trace_module(
            _FirstGraph(first, facts, roles),
            {role: examples[role] for role in roles},
            {role: axes[role] for role in roles},
            outputs,
        )
    return TracedImageGraph(model, {role: role for role in roles}, {role: role for role in outputs})


def trace_last(
    last: LastBlocks, facts: UNetFacts, example: Mapping[str, torch.Tensor]
) -> TracedImageGraph:
    """Trace the last blocks with dynamic rows, height and width.

    Args:
        last: The blocks, their weights in a format already.
        facts: What the UNet takes.
        example: What they take, by role, of any size: widths are taken over.
    """
    skips = [role for role in example if role.startswith("skip.")]
    roles = last_roles(last, len(skips))
    inner = (EXAMPLE_HEIGHT // 2, EXAMPLE_WIDTH // 2)
    examples = {
        "features": torch.zeros(EXAMPLE_BATCH, example["features"].shape[1], *inner),
        "embedding": torch.zeros(EXAMPLE_BATCH, example["embedding"].shape[1]),
        "context": torch.zeros(EXAMPLE_BATCH, _TOKENS, facts.conditioning_width),
    }
    axes = {"features": _INNER_AXES, "embedding": _ROW_AXES, "context": _TOKEN_AXES}
    for role in skips:
        width = example[role].shape[1]
        examples[role] = torch.zeros(EXAMPLE_BATCH, width, EXAMPLE_HEIGHT, EXAMPLE_WIDTH)
        axes[role] = _AXES
    with attention_in_blocks():
        model = trace_module(
            _LastGraph(last, roles),
            {role: examples[role] for role in roles},
            {role: axes[role] for role in roles},
            ("noise",),
        )
    return TracedImageGraph(model, {role: role for role in roles}, {"noise": "noise"})


def _attends(block: Any) -> bool:  # noqa: ANN401 - the library's type is loose
    return bool(getattr(block, "has_cross_attention", False))
