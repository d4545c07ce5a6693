"""A picture's conditioning as it arrives: tensors out of bytes, and rows for the denoiser."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from cloud.pictures.denoiser import Conditioning
from lambda_split.errors import FrameLengthMismatch
from lambda_split.wire.pictures.layout import DenoiserGeometry, conditioning_shapes
from lambda_split.wire.pictures.settings import PictureSettings
from lambda_split.wire.tensor_codecs import decode
from lambda_split.wire.tensor_format import TensorFormat, payload_bytes

__all__ = ["read_conditioning", "rows_of"]

Floats = npt.NDArray[np.float32]


def read_conditioning(
    settings: PictureSettings,
    payload: bytes | memoryview,
    form: TensorFormat,
    geometry: DenoiserGeometry,
) -> list[Floats]:
    """Context, then pooled output where there is one; float32, as :func:`conditioning_shapes` says.

    Raises:
        FrameLengthMismatch: the payload has another length.
        NonFinite: it holds NaN or infinity.
    """
    shapes = conditioning_shapes(settings, geometry)
    sizes = [payload_bytes(form, shape) for shape in shapes]
    if len(payload) != sum(sizes):
        raise FrameLengthMismatch(len(payload), sum(sizes))
    view, tensors = memoryview(payload), []
    for shape, size in zip(shapes, sizes, strict=True):
        tensors.append(decode(view[:size], form, shape))
        view = view[size:]
    return tensors


def rows_of(settings: PictureSettings, tensors: Sequence[Floats]) -> Conditioning:
    """What the denoiser is told of one image: the prompt's row, then the negative prompt's."""
    rows = [_branches(settings, tensor) for tensor in tensors]
    ids = None
    if settings.time_ids:
        ids = torch.tensor([settings.time_ids] * settings.branches, dtype=torch.float32)
    return Conditioning(rows[0], rows[1] if len(rows) > 1 else None, ids)


def _branches(settings: PictureSettings, tensor: Floats) -> torch.Tensor:
    if settings.negative == "zeros":
        tensor = np.concatenate([tensor, np.zeros_like(tensor)])
    return torch.from_numpy(tensor)
