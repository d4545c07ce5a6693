"""The denoiser: diffusers' own UNet, run for the steps of several pictures at once.

A *row* is one run of the UNet for one image: with classifier-free guidance an image has two, the
prompt's first and then the negative prompt's.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import torch
from torch import nn

from lambda_split.errors import PictureImpossible, ServerDraining
from lambda_split.partition.pipelines.deep import (
    InnerBlocks,
    Told,
    deep_geometry,
    embedded_guidance,
)

__all__ = ["Conditioning", "Denoiser", "guided"]


@dataclass(frozen=True, eq=False)
class Conditioning:
    """What a picture's rows are told besides latents and timestep; n rows.

    Attributes:
        context: (n, tokens, width).
        pooled: (n, pooled width), where the denoiser takes it.
        time_ids: (n, 6), where it takes them.
        guidance: float32 (n, ), the scale that a distilled denoiser is told.
    """

    context: torch.Tensor
    pooled: torch.Tensor | None = None
    time_ids: torch.Tensor | None = None
    guidance: torch.Tensor | None = None

    @classmethod
    def together(cls, parts: list[Conditioning]) -> Conditioning:
        """Rows of several pictures, one after another."""
        return cls(
            context=torch.cat([part.context for part in parts]),
            pooled=_together([part.pooled for part in parts]),
            time_ids=_together([part.time_ids for part in parts]),
            guidance=_together([part.guidance for part in parts]),
        )


def _together(parts: list[torch.Tensor | None]) -> torch.Tensor | None:
    found = [part for part in parts if part is not None]
    return torch.cat(found) if found else None


class Denoiser:
    """A UNet on its device.

    Args:
        unet: diffusers' ``UNet2DConditionModel``, on ``device`` in ``dtype``.
        device: Where it is.
        dtype: What it computes in.
        guidance_width: Width of the embedded guidance scale; None where it takes none.

    Attributes:
        deep: Measures at the cuts of its deep split; None where it cannot be cut like that.
    """

    def __init__(
        self,
        unet: nn.Module,
        *,
        device: torch.device,
        dtype: torch.dtype,
        guidance_width: int | None = None,
    ) -> None:
        self.unet = unet.eval()
        self.device = device
        self.dtype = dtype
        self._guidance_width = guidance_width
        self.deep = deep_geometry(unet)
        self._inner = InnerBlocks(unet) if self.deep is not None else None
        self._interrupted = threading.Event()
        for block in (unet.down_blocks, unet.mid_block, unet.up_blocks):
            for each in block if isinstance(block, nn.ModuleList) else [block]:
                if isinstance(each, nn.Module):
                    each.register_forward_pre_hook(self._check)

    def interrupt(self) -> None:
        """From any thread: end a run at its next block; nothing runs after that."""
        self._interrupted.set()

    def _check(self, _module: nn.Module, _arguments: object) -> None:
        if self._interrupted.is_set():
            raise ServerDraining

    @torch.inference_mode()
    def predict(
        self, latents: torch.Tensor, timesteps: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        """Predict, with the whole denoiser.

        Args:
            latents: float32 (n, C, H, W), scaled as the solver wants them.
            timesteps: float32 (n,).
            conditioning: Of n rows.

        Returns:
            float32 (n, C, H, W), on the denoiser's device.
        """
        output: torch.Tensor = self.unet(
            latents.to(self.device, self.dtype),
            timesteps.to(self.device),
            encoder_hidden_states=conditioning.context,
            timestep_cond=self._embedded(conditioning.guidance),
            added_cond_kwargs=_added(conditioning),
            return_dict=False,
        )[0]
        return output.to(torch.float32)

    @torch.inference_mode()
    def predict_inner(
        self, features: torch.Tensor, timesteps: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        """Run what lies between the first and the last block.

        Args:
            features: float32 (n, input channels, h, w).
            timesteps: float32 (n,).
            conditioning: Of n rows.

        Returns:
            float32 (n, output channels, h, w), on the denoiser's device.

        Raises:
            PictureImpossible: the denoiser has no deep split.
        """
        if self._inner is None:
            raise PictureImpossible("this denoiser has no deep split")
        output: torch.Tensor = self._inner(
            features.to(self.device, self.dtype),
            Told(
                timesteps.to(self.device),
                conditioning.context,
                _added(conditioning),
                self._embedded(conditioning.guidance),
            ),
        )
        return output.to(torch.float32)

    def _embedded(self, guidance: torch.Tensor | None) -> torch.Tensor | None:
        if guidance is None or self._guidance_width is None:
            return None
        return embedded_guidance(guidance, self._guidance_width).to(self.dtype)


def _added(conditioning: Conditioning) -> dict[str, torch.Tensor] | None:
    if conditioning.pooled is None:
        return None
    added = {"text_embeds": conditioning.pooled}
    if conditioning.time_ids is not None:
        added["time_ids"] = conditioning.time_ids
    return added


def guided(rows: torch.Tensor, images: int, guidance: float, rescale: float) -> torch.Tensor:
    """What classifier-free guidance makes of both predictions of each image.

    Args:
        rows: float32 (2 × images, C, H, W): for the prompts, then for the negative prompts.
        images: How many images.
        guidance: The scale (arXiv 2207.12598); 1 is the prompt's prediction as it is.
        rescale: How far the result's spread is brought back to that of the prompt's own prediction,
            φ of arXiv 2305.08891, section 3.4.

    Returns:
        float32 (images, C, H, W).
    """
    prompt, negative = rows[:images], rows[images:]
    result = negative + guidance * (prompt - negative)
    if rescale == 0.0:
        return result
    dims = (1, 2, 3)
    spread = prompt.std(dim=dims, keepdim=True) / result.std(dim=dims, keepdim=True)
    return rescale * (result * spread) + (1.0 - rescale) * result
