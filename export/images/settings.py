"""What a caller decides when a pipeline is exported."""

from __future__ import annotations

from dataclasses import dataclass

from lambda_split.image_bundle import ImageSplit, ImageWeights

__all__ = ["DEFAULT_CALIBRATION_STEPS", "DEFAULT_IMAGE_WEIGHTS", "ImageExportSettings"]

DEFAULT_IMAGE_WEIGHTS: ImageWeights = "int8"
DEFAULT_CALIBRATION_STEPS = 8


@dataclass(frozen=True)
class ImageExportSettings:
    """How a pipeline becomes a bundle.

    Attributes:
        split: ``whole``: the whole denoiser is the trunk. ``deep``: its first and last blocks are
            the device's, and the whole UNet is read for them.
        weights: How weights are stored: ``fp32``; ``fp16``, computed in fp32; ``int8``, encoders
            with activations quantized as they come, convolutions of the decoder and of the
            denoiser's blocks with ranges that were calibrated.
        vae: ``full`` for the pipeline's own decoder, ``tiny`` for a light one, or the folder or
            Hub id of another; see :meth:`lambda_split.partition.pipelines.Pipeline.vae`.
        calibration_steps: For int8: denoising steps of the pictures whose latents ranges
            come from. They are made by the pipeline itself, so the UNet is read (and, for a
            Hub id, downloaded) this once. 0 takes artificial latents and, with the split
            ``whole``, leaves the UNet alone.
        lora: Folders or Hub ids of adapters that are merged, in order.
        revision: Commit, branch or tag of a Hub model.
        overwrite: Replace an existing output folder.
    """

    split: ImageSplit = "whole"
    weights: ImageWeights = DEFAULT_IMAGE_WEIGHTS
    vae: str = "full"
    calibration_steps: int = DEFAULT_CALIBRATION_STEPS
    lora: tuple[str, ...] = ()
    revision: str | None = None
    overwrite: bool = False
