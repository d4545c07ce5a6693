"""The split ``deep``: simple ways back from the features behind the denoiser's first block.

Two of them look at the channels as they are; the linear map is fitted on pairs that whoever has the
public model can make as many of as he wants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch

from audit.pictures.asking import Asked
from audit.pictures.denoising import chunks
from audit.pictures.model import PublicModel
from audit.pictures.sessions import told_of
from cloud.pictures.denoiser import Conditioning
from lambda_split.diffusion.solver import SolverState
from lambda_split.partition.pipelines.deep import FirstBlocks
from lambda_split.wire.tensor_codecs import decode, encode
from lambda_split.wire.tensor_format import TensorFormat

__all__ = ["LinearMap", "channel_mean", "features_of", "first_channels"]

Floats = npt.NDArray[np.float32]


def features_of(
    model: PublicModel,
    pictures: Sequence[Asked],
    states: Sequence[SolverState],
    step: int,
    form: TensorFormat,
) -> Floats:
    """What a device of the split ``deep`` sends of given latents in a step, as it arrives.

    Returns:
        float32 (n, channels, h, w), of each picture with its prompt.
    """
    first = FirstBlocks(model.denoiser.unet)
    solver = pictures[0].trajectory.solver
    arrived: list[Floats] = []
    for chunk in chunks(len(pictures)):
        told = Conditioning.together([pictures[number].conditioning for number in chunk])
        scaled = [solver.scale_input(states[number].sample, step) for number in chunk]
        latents = torch.from_numpy(np.concatenate(scaled)).repeat_interleave(2, dim=0)
        with torch.inference_mode():
            features, *_ = first(latents, told_of(told, solver.timesteps[step]))
        for pair in torch.split(features, 2):  # (2, channels, h, w): what crosses of one picture
            sent = np.asarray(pair.numpy(), np.float32)
            arrived.append(decode(encode(sent, form), form, sent.shape)[0])
    return np.stack(arrived)


def first_channels(features: Floats, likely: Floats) -> Floats:
    """Take the first channels for latents, with the mean and spread that latents have.

    Args:
        features: float32 (n, channels, h, w).
        likely: Latents of other pictures, float32 (m, C, H, W).
    """
    taken = features[:, : likely.shape[1]]
    axes = (2, 3)
    taken = taken - taken.mean(axis=axes, keepdims=True)
    taken /= taken.std(axis=axes, keepdims=True) + 1e-6
    spread = likely.std(axis=axes).mean(axis=0)[:, None, None]  # (C, 1, 1)
    latents = taken * spread + likely.mean(axis=(0, 2, 3))[:, None, None]
    return _enlarged(latents, likely.shape[2:])


def channel_mean(features: Floats, size: tuple[int, int]) -> Floats:
    """Show the channels' mean in grey: float32 (n, *size, 3), from 0 to 255."""
    mean = features.mean(axis=1, keepdims=True)  # (n, 1, h, w)
    lows = mean.min(axis=(2, 3), keepdims=True)
    grey = (mean - lows) / np.maximum(np.ptp(mean, axis=(2, 3), keepdims=True), 1e-6) * 255
    return np.repeat(_enlarged(grey, size).transpose(0, 2, 3, 1), 3, axis=3)


@dataclass(frozen=True, eq=False)
class LinearMap:
    """From each place's features and its eight neighbours' to the latents of that place.

    Attributes:
        weights: (9 × channels + 1, C × H/h × W/w), by least squares.
        shape: (C, H, W) of the latents.
    """

    weights: npt.NDArray[np.float64]
    shape: tuple[int, int, int]

    @classmethod
    def fitted(cls, features: Floats, latents: Floats) -> Self:
        """Fit on pairs: float32 (n, channels, h, w) and (n, C, H, W)."""
        scale = latents.shape[2] // features.shape[2]
        cells = torch.nn.functional.pixel_unshuffle(torch.from_numpy(latents), scale)
        # (n, C × scale², h, w) -> (n × h × w, C × scale²)
        wanted = cells.permute(0, 2, 3, 1).flatten(0, 2).numpy().astype(np.float64)
        weights = np.linalg.lstsq(_neighbourhoods(features), wanted, rcond=1e-6)[0]
        _, channels, height, width = latents.shape
        return cls(weights.astype(np.float64), (channels, height, width))

    def __call__(self, features: Floats) -> Floats:
        """Latents, float32 (n, C, H, W), of features (n, channels, h, w)."""
        n, _, height, width = features.shape
        found = (_neighbourhoods(features) @ self.weights).astype(np.float32)
        cells = torch.from_numpy(found).reshape(n, height, width, -1).permute(0, 3, 1, 2)
        scale = self.shape[1] // height
        return np.asarray(torch.nn.functional.pixel_shuffle(cells, scale).numpy(), np.float32)


def _neighbourhoods(features: Floats) -> npt.NDArray[np.float64]:
    """(n × h × w, 9 × channels + 1), the last column being 1."""
    columns = torch.nn.functional.unfold(torch.from_numpy(features), 3, padding=1)
    rows = columns.permute(0, 2, 1).flatten(0, 1).numpy().astype(np.float64)
    return np.hstack([rows, np.ones((len(rows), 1))])


def _enlarged(values: Floats, size: Sequence[int]) -> Floats:
    """(n, c, h, w) -> (n, c, *size), each value becoming a rectangle."""
    enlarged = torch.nn.functional.interpolate(torch.from_numpy(values), size=tuple(size))
    return np.asarray(enlarged.numpy(), np.float32)
