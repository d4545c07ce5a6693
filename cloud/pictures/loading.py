"""From a pipeline to what a server serves: its denoiser, and what fits into the memory."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm

from cloud.memory import free_memory
from cloud.options import MemoryShare
from cloud.pictures.denoiser import Denoiser
from cloud.pictures.engine import DenoisingEngine
from cloud.pictures.service import DenoiserService
from lambda_split.errors import UsageError
from lambda_split.partition.pipelines.loading import load_unet
from lambda_split.partition.pipelines.pipeline import Pipeline
from lambda_split.wire.pictures.handshake import PictureOffer
from lambda_split.wire.pictures.layout import DenoiserGeometry

__all__ = ["DenoiserSettings", "load_denoiser"]

_logger = logging.getLogger(__name__)
_TIME_IDS = 6
# Tensors of the outermost width that live at the same time, at most, in a run of a UNet with
# attention that does not store its scores; measured for SD 1.5's and SDXL's, with some to spare.
_LIVE_TENSORS = 32
_STEP_SHARE = 0.6  # of the free memory, for a run of the UNet
_KEPT_SHARE = 0.2  # for what sessions keep between steps


@dataclass(frozen=True, kw_only=True)
class DenoiserSettings:
    """How a denoiser is served.

    Attributes:
        device: Where it runs.
        dtype: Of its weights and computation.
        max_sessions: The most sessions at a time.
        max_latents: The most latent positions of a picture; what fits where None.
        memory: For what all sessions keep: bytes, or a share of what is free; the usual share where
            None.
    """

    device: torch.device
    dtype: torch.dtype
    max_sessions: int
    max_latents: int | None = None
    memory: int | MemoryShare | None = None


def load_denoiser(pipeline: Pipeline, settings: DenoiserSettings) -> DenoiserService:
    """Read the UNet's tensors and describe it for the handshake.

    Raises:
        UsageError: larger pictures asked for than fit.
        CheckpointError: the tensors cannot be read.
    """
    with tqdm(desc="reading the denoiser", unit=" tensors", disable=None) as bar:

        def advance(total: int) -> None:
            bar.total = total
            bar.update()

        unet: Any = load_unet(
            pipeline, dtype=settings.dtype, device=settings.device, on_tensor=advance
        )
    facts = pipeline.facts
    denoiser = Denoiser(
        unet,
        device=settings.device,
        dtype=settings.dtype,
        guidance_width=facts.guidance_embedding,
    )
    geometry = DenoiserGeometry(
        channels=facts.latent_channels,
        context_width=facts.conditioning_width,
        pooled_width=facts.pooled_width or 0,
        time_ids=_TIME_IDS if facts.time_ids else 0,
        guidance_embedding=facts.guidance_embedding is not None,
        deep=denoiser.deep,
    )
    free = free_memory(settings.device)
    row_bytes = unet.config.block_out_channels[0] * _LIVE_TENSORS * settings.dtype.itemsize
    most = int(free * _STEP_SHARE / row_bytes)
    # With guidance each image is two rows.
    max_latents = settings.max_latents or most // 2
    if not 1 <= max_latents <= most // 2:
        raise UsageError(
            f"--max-latents {max_latents}: the free memory is enough for {most // 2} latent "
            "positions in a step"
        )
    kept = settings.memory or MemoryShare(round(_KEPT_SHARE * 100))
    engine = DenoisingEngine(
        denoiser,
        geometry=geometry,
        max_sessions=settings.max_sessions,
        max_rows=most,
        memory=int(free * kept.percent / 100) if isinstance(kept, MemoryShare) else kept,
    )
    offer = PictureOffer(
        fingerprint=pipeline.fingerprint,
        geometry=geometry,
        max_latents=max_latents,
        witnesses=pipeline.witnesses(),
    )
    _logger.info(
        "%s: %s, %s on %s, pictures of up to %d latent positions, splits %s, fingerprint %s",
        pipeline.id,
        pipeline.family,
        str(settings.dtype).removeprefix("torch."),
        settings.device,
        max_latents,
        " and ".join(offer.splits),
        pipeline.fingerprint,
    )
    return DenoiserService(engine, offer)
