"""Measure how far the written graphs are from PyTorch, and refuse those that are too far.

Before the weights are replaced, PyTorch computes head and tail on a page of text in one pass.
Later onnxruntime runs the written files on the same input as a device would: a prompt in chunks,
single tokens, and a step back. Each graph gets the input that PyTorch got, so each is measured by
itself. The tail is fed with the head's output, since the trunk in between is not loaded here: its
logits are not what the whole model predicts, but they pass through every weight of the tail.

=======  ==============  ================  ==========  =======================================
weights  head, relative  logits, relative  KL, nats    where the error comes from
=======  ==============  ================  ==========  =======================================
fp32     1e-3            1e-3              1e-4        order of summation
fp16     1e-2            1e-2              1e-3        weights of 11 significant bits
int8     0.15            0.15              0.1         weights of 8 bits; activations of 8 bits
int4     0.7             0.7               1           weights of 4 bits; activations of 8 bits
=======  ==============  ================  ==========  =======================================

In both integer formats the kernels round the input of a linear layer to 8 bits, a block at a time
(``accuracy_level`` 4); with weights of 4 bits that adds little to the error.

A relative error is the root-mean-square difference over the root-mean-square value, where the
logits' mean per position is removed because it has no effect. A graph that computes something else
(a wrong position, mask or tensor) has relative errors of 1 and more. The limits are above what
random weights reach, which bear quantization worse than trained ones. Agreement of the most likely
token is reported but has no limit: where two tokens are about equally likely it is chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from export.graph_runner import GraphRunner
from lambda_split.bundle import Graph, Verification, WeightFormat
from lambda_split.errors import VerificationFailed
from lambda_split.partition import GrowingKVCache, Head, Tail, causal_masks

__all__ = [
    "LIMITS",
    "HeadReference",
    "Limits",
    "TailReference",
    "compare",
    "reference_head",
    "reference_tail",
    "run_head",
    "run_tail",
    "sample_tokens",
]

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_SAMPLE = Path(__file__).with_name("sample_text.txt")
_MAX_TOKENS = 384
_MAX_LOGITS = 1 << 24  # numbers held for comparison: 64 MiB each for PyTorch and ONNX
_STEP_BACK = 5


@dataclass(frozen=True)
class Limits:
    """The largest errors that an export of some weight format may have; see the table above."""

    head_relative: float
    logits_relative: float
    kl_divergence: float


LIMITS: dict[WeightFormat, Limits] = {
    "fp32": Limits(1e-3, 1e-3, 1e-4),
    "fp16": Limits(1e-2, 1e-2, 1e-3),
    "int8": Limits(0.15, 0.15, 0.1),
    "int4": Limits(0.7, 0.7, 1.0),
}


@dataclass(frozen=True)
class HeadReference:
    """What PyTorch's head computes.

    Attributes:
        token_ids: int64 (1, T).
        hidden: float32 (1, T, W).
    """

    token_ids: Ints
    hidden: Floats


@dataclass(frozen=True)
class TailReference:
    """What PyTorch's tail computes.

    Attributes:
        hidden: float32 (1, T, W), its input.
        wanted: int64 (N,), ascending: the positions whose logits were computed.
        logits: float32 (1, N, V).
    """

    hidden: Floats
    wanted: Ints
    logits: Floats


def sample_tokens(token_ids: list[int], vocab_size: int, max_positions: int) -> Ints:
    """The tokens that both sides run, int64 (1, T).

    Args:
        token_ids: The sample text, tokenized.
        vocab_size: Tokens beyond it (a tokenizer may know more than its model) are left out.
        max_positions: T is at most this.
    """
    known = [token for token in token_ids if token < vocab_size]
    # A tokenizer of another vocabulary altogether still has to be exported: any tokens will do.
    known = known or list(range(vocab_size))
    return np.array([known[: min(_MAX_TOKENS, max_positions)]], np.int64)


def sample_text() -> str:
    """A page of English prose with names, numbers and punctuation."""
    return _SAMPLE.read_text(encoding="utf-8")


@torch.no_grad()
def reference_head(head: Head, token_ids: Ints) -> HeadReference:
    """Run PyTorch's head on all tokens at once."""
    positions = _positions(token_ids.shape[1])
    cache = GrowingKVCache(token_ids.shape[1], head.stack.numbers)
    masks = causal_masks(positions, token_ids.shape[1], head.stack.window, torch.float32)
    hidden = head(torch.from_numpy(token_ids), positions, cache, masks)
    return HeadReference(token_ids, hidden.numpy())


@torch.no_grad()
def reference_tail(tail: Tail, hidden: Floats, vocab_size: int) -> TailReference:
    """Run PyTorch's tail on all positions at once; logits only for as many as fit in memory."""
    tokens = hidden.shape[1]
    positions = _positions(tokens)
    count = max(1, min(tokens, _MAX_LOGITS // vocab_size))
    wanted = np.unique(np.linspace(0, tokens - 1, count).round().astype(np.int64))
    cache = GrowingKVCache(tokens, tail.stack.numbers)
    masks = causal_masks(positions, tokens, tail.stack.window, torch.float32)
    logits = tail(torch.from_numpy(hidden), positions, cache, masks, torch.from_numpy(wanted))
    return TailReference(hidden, wanted, logits.numpy())


def _positions(tokens: int) -> torch.Tensor:
    return torch.arange(tokens)[None, :]  # (1, T)


def _calls(tokens: int) -> list[range]:
    """The positions of each call: half a prompt, a chunk, single tokens, a step back, the rest."""
    prompt, chunk = tokens // 2, tokens // 4
    decoded = min(prompt + chunk + 8, tokens)
    back = max(decoded - _STEP_BACK, 0)
    calls = [range(prompt), range(prompt, prompt + chunk)]
    calls += [range(one, one + 1) for one in range(prompt + chunk, decoded)]
    calls += [range(back, tokens)]
    return [call for call in calls if len(call) > 0]


def run_head(path: Path, graph: Graph, reference: HeadReference) -> Floats:
    """The written head on the reference's tokens, call by call; (1, T, W)."""
    tokens = reference.token_ids.shape[1]
    runner = GraphRunner(path, graph, tokens)
    hidden = np.empty_like(reference.hidden)
    for call in _calls(tokens):
        piece = reference.token_ids[:, call.start : call.stop]
        hidden[:, call.start : call.stop] = runner.run({"token_ids": piece}, call.start, "hidden")
    return hidden


def run_tail(path: Path, graph: Graph, reference: TailReference) -> Floats:
    """The written tail on the reference's hidden states, call by call; (1, N, V)."""
    tokens = reference.hidden.shape[1]
    runner = GraphRunner(path, graph, tokens)
    logits = np.empty_like(reference.logits)
    for call in _calls(tokens):
        rows = np.flatnonzero((reference.wanted >= call.start) & (reference.wanted < call.stop))
        feeds: dict[str, Floats | Ints] = {
            "hidden": reference.hidden[:, call.start : call.stop],
            "logit_positions": reference.wanted[rows] - call.start,
        }
        logits[:, rows] = runner.run(feeds, call.start, "logits")
    return logits


def compare(
    head: HeadReference,
    head_found: Floats,
    tail: TailReference,
    tail_found: Floats,
    weights: WeightFormat,
) -> Verification:
    """Measure, and refuse what is beyond the format's limits.

    Raises:
        VerificationFailed: an error is too large, or not a number.
    """
    limits = LIMITS[weights]
    head_relative = _relative(head.hidden, head_found)
    expected = tail.logits - tail.logits.mean(-1, keepdims=True)
    logits_relative = _relative(expected, tail_found - tail_found.mean(-1, keepdims=True))
    divergence = _divergence(tail.logits, tail_found)
    for measure, value, limit in (
        ("the head's relative error", head_relative, limits.head_relative),
        ("the logits' relative error", logits_relative, limits.logits_relative),
        ("the KL divergence", divergence, limits.kl_divergence),
    ):
        if not value <= limit:  # also true for NaN
            raise VerificationFailed(measure, value, limit)
    return Verification(
        tokens=head.token_ids.shape[1],
        head_max_error=float(np.abs(head.hidden - head_found).max()),
        head_relative_error=head_relative,
        logits_max_error=float(np.abs(tail.logits - tail_found).max()),
        kl_divergence=divergence,
        top1_agreement=float((tail.logits.argmax(-1) == tail_found.argmax(-1)).mean()),
    )


def _relative(expected: Floats, found: Floats) -> float:
    size = float(np.sqrt(np.mean(np.square(expected), dtype=np.float64)))
    difference = float(np.sqrt(np.mean(np.square(expected - found), dtype=np.float64)))
    return difference / size if size else difference


def _divergence(expected: Floats, found: Floats) -> float:
    total = 0.0
    # A position at a time: float64 copies of all logits would be large.
    for row_expected, row_found in zip(expected[0], found[0], strict=True):
        log_p, log_q = _log_softmax(row_expected), _log_softmax(row_found)
        total += float(np.sum(np.exp(log_p) * (log_p - log_q)))
    # Rounding can make it a little negative; unlike max, this keeps NaN.
    return float(np.maximum(0.0, total / expected.shape[1]))


def _log_softmax(logits: Floats) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - float(logits.max())
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return result
