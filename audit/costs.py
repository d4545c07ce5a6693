"""What a setting costs: perplexity, bytes and device time."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from audit.capture import Victim, over_the_wire
from audit.defending.noise import apply
from lambda_split.wire.frames import payload_bytes

__all__ = ["bytes_per_token", "device_logits", "device_seconds", "perplexity", "root_mean_square"]

Floats = npt.NDArray[np.float32]
_TIMED_PAST = 64
_TIMED_TOKENS = 15


@torch.inference_mode()
def device_logits(
    victim: Victim, token_ids: Sequence[int], text: int = 0
) -> tuple[Floats, Floats, torch.Tensor]:
    """Run a known text as device and cloud do.

    Args:
        victim: The device and its trunk.
        token_ids: The text.
        text: Its number, for noise of its own.

    Returns:
        What went up and what came back, each float32 (T, W), and logits (T, V).
    """
    model, setting = victim.model, victim.setting
    count = model.layer_count
    ends = victim.ends()
    sent = ends.head(token_ids, 0)
    permuted = setting.defence.kind == "permutation"
    generator = victim.generator(text)
    if not permuted:
        sent = apply(sent, setting.defence, victim.scale, generator)
    up = over_the_wire(sent, setting.codec)
    out = model.run(torch.from_numpy(up)[None], 0, setting.split.trunk(count))
    down = over_the_wire(out[0].numpy(), setting.codec)
    logits = ends.tail(down, 0, range(len(down)))
    if permuted:
        up = apply(up, setting.defence, 0.0, generator)
    return up, down, logits


def perplexity(victim: Victim, texts: Sequence[Sequence[int]]) -> float:
    """Perplexity per token with everything that the setting does to hidden states.

    Args:
        victim: The device and its trunk.
        texts: Token ids; the first of each is given.
    """
    total, tokens = 0.0, 0
    for number, ids in enumerate(texts):
        _, _, logits = device_logits(victim, ids, number)
        wanted = torch.tensor(list(ids[1:]))
        total += float(torch.nn.functional.cross_entropy(logits[:-1], wanted, reduction="sum"))
        tokens += len(wanted)
    return math.exp(total / tokens)


def root_mean_square(victim: Victim, texts: Sequence[Sequence[int]]) -> float:
    """Of what the head computes, before anything is done to it."""
    squares = [float(np.square(victim.ends().head(ids, 0)).mean()) for ids in texts]
    return math.sqrt(statistics.fmean(squares))


def bytes_per_token(victim: Victim) -> int:
    """Payload bytes of one position, one way."""
    return payload_bytes(victim.setting.codec, 1, victim.model.hidden_size, scaled=False)


def device_seconds(victim: Victim) -> float:
    """Median time of head and tail for one token, on this machine's CPU.

    Of a bundle's graphs it is what a device of this speed takes; of the model's own modules it is
    for comparing settings with one another.
    """
    ends, width = victim.ends(), victim.model.hidden_size
    ends.head([0] * _TIMED_PAST, 0)
    ends.tail(np.zeros((_TIMED_PAST, width), np.float32), 0, ())
    times = []
    for _ in range(_TIMED_TOKENS):
        begin = time.perf_counter()
        hidden = ends.head([0], _TIMED_PAST)
        ends.tail(hidden, _TIMED_PAST, [0])
        times.append(time.perf_counter() - begin)
        ends.truncate(_TIMED_PAST)
    return statistics.median(times)
