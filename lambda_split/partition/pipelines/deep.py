"""The deep split of a UNet: first and last blocks for the device, what lies between for a trunk.

::

    latents ─ conv_in ─ down 0 ─┐ features                   ┌ upsampler ─ up n−1 ─ conv_out ─ noise
                 └──────┴───────│── skip connections ────────│────┘
                                └─ down 1 … mid … up n−2 ────┘

The skip connections of the first block end in the last one, so that they never leave the device.
The trunk's last block stops before its upsampler: what it returns is a quarter as large then. All
parts are the library's own modules, run as its own forward runs them.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, cast

import torch
from diffusers.models.embeddings import get_timestep_embedding
from torch import nn

from lambda_split.wire.pictures.layout import DeepGeometry

__all__ = [
    "FirstBlocks",
    "InnerBlocks",
    "LastBlocks",
    "Told",
    "deep_geometry",
    "embedded_guidance",
]

_GUIDANCE_FACTOR = 1000.0  # guidance-distilled models are told their scale in thousandths


def deep_geometry(unet: Any) -> DeepGeometry | None:  # noqa: ANN401  # the library's type is loose
    """The measures at the cuts; None where a UNet has too few blocks to be cut like this."""
    down, up = unet.down_blocks, unet.up_blocks
    if len(down) < 2 or down[0].downsamplers is None or up[-2].upsamplers is None:
        return None
    return DeepGeometry(
        input_channels=down[0].resnets[-1].out_channels,
        output_channels=up[-2].resnets[-1].out_channels,
        reduction=2,
    )


def embedded_guidance(scale: torch.Tensor, width: int) -> torch.Tensor:
    """The guidance scale as distilled denoisers take it: (n,) -> (n, width).

    The scale less one is what such models were told in training (arXiv 2310.04378).
    """
    thousandths = (scale - 1.0) * _GUIDANCE_FACTOR
    embedded: torch.Tensor = get_timestep_embedding(
        thousandths, width, flip_sin_to_cos=False, downscale_freq_shift=1
    )
    return embedded


@dataclass(frozen=True, eq=False)
class Told:
    """What the blocks of a UNet are told besides what flows through them; n rows.

    Attributes:
        timesteps: (n,).
        context: (n, tokens, width).
        added: ``text_embeds`` and ``time_ids``, for UNets that take them.
        guidance: The embedded guidance scale, (n, width), for UNets that take it.
    """

    timesteps: torch.Tensor
    context: torch.Tensor
    added: dict[str, torch.Tensor] | None = None
    guidance: torch.Tensor | None = None

    def embedding(self, unet: Any, sample: torch.Tensor) -> torch.Tensor:  # noqa: ANN401  # the library's type is loose
        """Time, sizes and guidance as all blocks take them: (n, embedding width)."""
        time = unet.get_time_embed(sample=sample, timestep=self.timesteps)
        told = unet.time_embedding(time, self.guidance)
        extra = unet.get_aug_embed(
            emb=told, encoder_hidden_states=self.context, added_cond_kwargs=self.added
        )
        embedding: torch.Tensor = told if extra is None else told + extra
        return embedding


def _down(
    block: Any,  # noqa: ANN401  # the library's type is loose
    hidden: torch.Tensor,
    embedding: torch.Tensor,
    context: torch.Tensor,
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    told: dict[str, Any] = {}
    if getattr(block, "has_cross_attention", False):
        told["encoder_hidden_states"] = context
    result: tuple[torch.Tensor, tuple[torch.Tensor, ...]] = block(
        hidden_states=hidden, temb=embedding, **told
    )
    return result


def _up(
    block: Any,  # noqa: ANN401  # the library's type is loose
    hidden: torch.Tensor,
    embedding: torch.Tensor,
    context: torch.Tensor,
    skips: tuple[torch.Tensor, ...],
    *,
    size: tuple[int, int] | None,
) -> torch.Tensor:
    told: dict[str, Any] = {}
    if getattr(block, "has_cross_attention", False):
        told["encoder_hidden_states"] = context
    result: torch.Tensor = block(
        hidden_states=hidden,
        temb=embedding,
        res_hidden_states_tuple=skips,
        upsample_size=size,
        **told,
    )
    return result


def _without_interpolation(upsampler: nn.Module) -> nn.Module:
    """The same upsampler with the same weights, of what is as large already."""
    bare: Any = copy.copy(upsampler)
    bare.interpolate = False
    return cast("nn.Module", bare)


def _without_upsampler(block: nn.Module) -> nn.Module:
    """The same block with the same weights, less its upsampler; the original stays as it is."""
    bare = copy.copy(block)
    bare._modules = {**block._modules, "upsamplers": None}  # noqa: SLF001  # a copy's own table
    return bare


class InnerBlocks(nn.Module):
    """The trunk of the deep split: everything between the first and the last block.

    Args:
        unet: The whole UNet, whose modules are shared.
    """

    def __init__(self, unet: Any) -> None:  # noqa: ANN401  # the library's type is loose
        super().__init__()
        self._unet = [unet]  # in a list, so that it is no child of this module
        self.down = nn.ModuleList(unet.down_blocks[1:])
        self.mid = unet.mid_block
        self.up = nn.ModuleList([*unet.up_blocks[:-2], _without_upsampler(unet.up_blocks[-2])])

    def forward(self, features: torch.Tensor, told: Told) -> torch.Tensor:
        """Run the inner blocks.

        Args:
            features: (n, input channels, h, w), what the first block returns.
            told: Of the same rows.

        Returns:
            (n, output channels, h, w), what the last block's upsampler takes.
        """
        (unet,) = self._unet
        embedding = told.embedding(unet, features)
        context = told.context
        hidden = features
        skips: tuple[torch.Tensor, ...] = (features,)
        for block in self.down:
            hidden, more = _down(block, hidden, embedding, context)
            skips += more
        if self.mid is not None:
            attends = getattr(self.mid, "has_cross_attention", False)
            more_told = {"encoder_hidden_states": context} if attends else {}
            hidden = self.mid(hidden, embedding, **more_told)
        for block in self.up:
            count = len(cast("nn.ModuleList", block.resnets))
            taken, skips = skips[-count:], skips[:-count]
            # As large as what it is joined with, which is not twice as large where that is odd.
            size = (skips[-1].shape[2], skips[-1].shape[3]) if skips else None
            hidden = _up(block, hidden, embedding, context, taken, size=size)
        return hidden


class FirstBlocks(nn.Module):
    """The device's first part: input convolution and first down block."""

    def __init__(self, unet: Any) -> None:  # noqa: ANN401  # the library's type is loose
        super().__init__()
        self._unet = [unet]
        self.time_embedding = unet.time_embedding
        self.add_embedding = getattr(unet, "add_embedding", None)
        self.conv_in = unet.conv_in
        self.block = unet.down_blocks[0]

    def forward(self, latents: torch.Tensor, told: Told) -> tuple[torch.Tensor, ...]:
        """Run it.

        Args:
            latents: (n, C, H, W), scaled as the solver wants them.
            told: Of the same rows.

        Returns:
            The features that cross the wire; the embedding that the last part takes; the skip
            connections, from the first to the last.
        """
        (unet,) = self._unet
        embedding = told.embedding(unet, latents)
        hidden = self.conv_in(latents)
        features, skips = _down(self.block, hidden, embedding, told.context)
        return features, embedding, hidden, *skips[:-1]  # its last skip is the features themselves


class LastBlocks(nn.Module):
    """The device's last part: the trunk's last upsampler, last up block, output convolution."""

    def __init__(self, unet: Any) -> None:  # noqa: ANN401  # the library's type is loose
        super().__init__()
        # The library's own sizes its input in a way that cannot be traced for any size.
        self.upsampler = _without_interpolation(unet.up_blocks[-2].upsamplers[0])
        self.block = unet.up_blocks[-1]
        self.norm = unet.conv_norm_out
        self.act = unet.conv_act if unet.conv_norm_out is not None else nn.Identity()
        self.conv_out = unet.conv_out

    def forward(
        self,
        features: torch.Tensor,
        embedding: torch.Tensor,
        context: torch.Tensor,
        *skips: torch.Tensor,
    ) -> torch.Tensor:
        """Run it.

        Args:
            features: (n, output channels, h, w), from the trunk.
            embedding: From the first part.
            context: (n, tokens, width).
            skips: From the first part.

        Returns:
            The predicted noise, (n, C, H, W).
        """
        size = (skips[-1].shape[2], skips[-1].shape[3])
        hidden = self.upsampler(nn.functional.interpolate(features, size=size, mode="nearest"))
        hidden = _up(self.block, hidden, embedding, context, skips, size=None)
        if self.norm is not None:
            hidden = self.act(self.norm(hidden))
        noise: torch.Tensor = self.conv_out(hidden)
        return noise
