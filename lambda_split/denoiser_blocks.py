"""What a picture bundle with the split ``deep`` says of the denoiser's first and last blocks.

A step runs them for n rows, one for each image, or two with guidance. With k skip connections, and
h and w of the latents::

    first blocks    latents (n, channels, h, w), as the solver scales them; timesteps (n,); what
                    they take of context (n, tokens, width), pooled (n, pooled_width),
                    time_ids (n, 6) and guidance (n,), the scale itself
    give            features (n, input_channels, ⌈h / reduction⌉, ⌈w / reduction⌉), for the trunk;
                    embedding (n, …) and skip.0 … skip.k-1 (n, …, h, w), for the last blocks
    last blocks     features (n, output_channels, ⌈h / reduction⌉, ⌈w / reduction⌉), the trunk's;
                    embedding, skip.0 …; and context where they take it
    give            noise (n, channels, h, w)

All are float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Annotated

import msgspec
from msgspec import Meta

from lambda_split.bundle_files import Count, Size

__all__ = ["BlocksVerification", "DenoiserBlocks", "GraphRoles", "wrong_blocks"]

GraphRoles = tuple[AbstractSet[str], AbstractSet[str]]
"""Roles of a graph's inputs, and of its outputs."""


class DenoiserBlocks(msgspec.Struct, frozen=True, kw_only=True):
    """The two graphs and the measures at the cuts.

    Attributes:
        first: Name of the first blocks' graph in ``graphs``.
        last: Name of the last blocks'.
        input_channels: Of what the trunk is sent.
        output_channels: Of what it sends back.
        reduction: How many times smaller than the latents both are, each way.
        skips: Skip connections from the first blocks to the last.
    """

    first: str
    last: str
    input_channels: Size
    output_channels: Size
    reduction: Annotated[int, Meta(ge=2, le=2)]
    skips: Annotated[int, Meta(ge=1, le=256)]

    @property
    def skip_roles(self) -> tuple[str, ...]:
        """Roles of the skip connections, given by the first blocks, taken by the last."""
        return tuple(f"skip.{number}" for number in range(self.skips))


class BlocksVerification(msgspec.Struct, frozen=True, kw_only=True):
    """How far the graphs are from PyTorch: root-mean-square errors over deviations.

    Attributes:
        features: Relative error of what the first blocks send.
        noise: Relative error of the predicted noise, with PyTorch's own trunk between the graphs.
        steps: Runs of the denoiser that were compared.
    """

    features: float
    noise: float
    steps: Count


def wrong_blocks(
    blocks: DenoiserBlocks, graphs: Mapping[str, GraphRoles], told: AbstractSet[str]
) -> str | None:
    """What does not fit together, or None.

    Args:
        blocks: What the manifest says.
        graphs: The bundle's, by name.
        told: Which of ``context``, ``pooled``, ``time_ids`` and ``guidance`` the denoiser takes.
    """
    skips = set(blocks.skip_roles)
    needed, optional = {"latents", "timesteps"}, set(told)
    inputs, outputs = graphs.get(blocks.first, (set(), set()))
    if not needed <= inputs <= needed | optional or outputs != {"features", "embedding", *skips}:
        return f"the first blocks {blocks.first!r} need a graph from latents to features"
    needed, optional = {"features", "embedding", *skips}, {"context"}
    inputs, outputs = graphs.get(blocks.last, (set(), set()))
    if not needed <= inputs <= needed | optional or outputs != {"noise"}:
        return f"the last blocks {blocks.last!r} need a graph from features to noise"
    return None
