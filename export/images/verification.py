"""Measure how far the written graphs are from diffusers, and refuse those that are too far.

Before weights are replaced, PyTorch encodes prompts and decodes latents; later onnxruntime runs the
written files on the same. The relative error is the root-mean-square difference over the
root-mean-square value (of pictures, features and noise: over their deviation, as their mean says
little).

=======  =====================  =====================  ========================================
weights  encoders, relative     pictures, noise        where the error comes from
=======  =====================  =====================  ========================================
fp32     1e-3                   1e-3                   order of summation
fp16     1e-2                   2e-2                   weights of 11 significant bits
int8     0.2                    0.5                    weights and activations of 8 bits
=======  =====================  =====================  ========================================

A graph that computes something else has relative errors of 1 and more. The limits are above what
random weights reach, which bear quantization worse than trained ones; the figures in the manifest
say how good an export is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from lambda_split.denoiser_blocks import BlocksVerification
from lambda_split.errors import VerificationFailed
from lambda_split.image_bundle import (
    DecoderVerification,
    EncoderVerification,
    ImageGraph,
    ImageWeights,
)

__all__ = [
    "LIMITS",
    "ImageLimits",
    "compare_blocks",
    "compare_decoder",
    "compare_encoder",
    "open_written",
    "run_graph",
]

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_PEAK = 2.0  # pictures go from -1 to 1
_HIGHEST_PSNR = 200.0


@dataclass(frozen=True)
class ImageLimits:
    """The largest relative errors that an export of some weight format may have."""

    encoder: float
    picture: float


LIMITS: dict[ImageWeights, ImageLimits] = {
    "fp32": ImageLimits(1e-3, 1e-3),
    "fp16": ImageLimits(1e-2, 2e-2),
    "int8": ImageLimits(0.2, 0.5),
}


def open_written(
    path: Path, graph: ImageGraph
) -> Callable[[Mapping[str, Floats | Ints]], dict[str, Floats]]:
    """Load a written graph; the result takes inputs by role and gives outputs by role.

    Args:
        path: The ``.onnx`` file.
        graph: How to feed it.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Idle threads would spin beside PyTorch's.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(given: Mapping[str, Floats | Ints]) -> dict[str, Floats]:
        feed = {name: given[role] for role, name in graph.inputs.items()}
        found = session.run(list(graph.outputs.values()), feed)
        return dict(zip(graph.outputs, found, strict=True))

    return run


def run_graph(path: Path, graph: ImageGraph, feeds: list[Floats | Ints]) -> dict[str, Floats]:
    """Run a written graph on each input, one at a time.

    Args:
        path: The ``.onnx`` file.
        graph: How to feed it; it has one input.
        feeds: Arrays whose first axis is the batch.

    Returns:
        By role, the outputs joined along the first axis (their other axes must be alike).
    """
    run = open_written(path, graph)
    (role,) = graph.inputs
    found = [run({role: feed}) for feed in feeds]
    return {output: np.concatenate([each[output] for each in found]) for output in graph.outputs}


def compare_encoder(
    name: str, expected: dict[str, Floats], found: dict[str, Floats], weights: ImageWeights
) -> EncoderVerification:
    """Measure an encoder, and refuse it beyond the format's limit.

    Args:
        name: The encoder's, for the error.
        expected: Its outputs by role, from PyTorch.
        found: The same from the graph.
        weights: The format.

    Raises:
        VerificationFailed: an error is too large, or not a number.
    """
    largest, cosine = 0.0, 1.0
    for role, reference in expected.items():
        difference = reference - found[role]
        size = _root_mean_square(reference)
        relative = _root_mean_square(difference) / (size or 1.0)
        _check(f"the relative error of {name}'s {role} output", relative, LIMITS[weights].encoder)
        largest = max(largest, float(np.abs(difference).max()))
        cosine = min(cosine, _smallest_cosine(reference, found[role]))
    return EncoderVerification(max_error=largest, cosine=cosine)


def compare_decoder(
    expected: list[Floats], found: list[Floats], weights: ImageWeights
) -> DecoderVerification:
    """Measure a decoder, and refuse it beyond the format's limit.

    Args:
        expected: Pictures from PyTorch, float32 (B, 3, H, W) each.
        found: The same from the graph.
        weights: The format.

    Raises:
        VerificationFailed: an error is too large, or not a number.
    """
    reference = np.concatenate([picture.reshape(-1) for picture in expected])
    difference = reference - np.concatenate([picture.reshape(-1) for picture in found])
    error = _root_mean_square(difference)
    deviation = float(reference.std(dtype=np.float64))
    _check("the pictures' relative error", error / (deviation or 1.0), LIMITS[weights].picture)
    psnr = 20 * math.log10(_PEAK / error) if error > 0 else _HIGHEST_PSNR
    return DecoderVerification(
        max_error=float(np.abs(difference).max()), psnr=min(psnr, _HIGHEST_PSNR)
    )


def compare_blocks(
    features: Sequence[tuple[Floats, Floats]],
    noise: Sequence[tuple[Floats, Floats]],
    weights: ImageWeights,
) -> BlocksVerification:
    """Measure a denoiser's first and last blocks, and refuse them beyond the format's limit.

    Args:
        features: For each run what PyTorch's first blocks send, and the graph's.
        noise: What the whole denoiser predicts, and what comes of the two graphs.
        weights: The format.

    Raises:
        VerificationFailed: an error is too large, or not a number.
    """
    errors = []
    for what, pairs in (("features'", features), ("predicted noise's", noise)):
        expected = np.concatenate([first.reshape(-1) for first, _ in pairs])
        error = expected - np.concatenate([second.reshape(-1) for _, second in pairs])
        deviation = float(expected.std(dtype=np.float64))
        errors.append(_root_mean_square(error) / (deviation or 1.0))
        _check(f"the {what} relative error", errors[-1], LIMITS[weights].picture)
    return BlocksVerification(features=errors[0], noise=errors[1], steps=len(noise))


def _check(measure: str, value: float, limit: float) -> None:
    if not value <= limit:  # also true for NaN
        raise VerificationFailed(measure, value, limit)


def _root_mean_square(values: Floats) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def _smallest_cosine(expected: Floats, found: Floats) -> float:
    first = expected.reshape(-1, expected.shape[-1]).astype(np.float64)  # (…, W) -> (rows, W)
    second = found.reshape(-1, found.shape[-1]).astype(np.float64)
    sizes = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    products = np.sum(first * second, axis=1)
    return float(np.min(np.where(sizes > 0, products / np.maximum(sizes, 1e-300), 1.0)))
