"""Gradients of a batch in parts, one thread a part.

PyTorch's own threads meet after every operation. The operations here are small, so the meetings
cost more than they bring, and when another program has one of the cores, every operation waits
for it. Threads that each take the next part of a batch meet once a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch


class Workers:
    """Threads that compute losses of parts and their gradients."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(1)
        self._pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))

    def backward(self, parts: Sequence[Callable[[], torch.Tensor]]) -> float:
        """Add up the gradients of the parts' mean loss.

        Adding to a parameter's gradient is safe from several threads; the order of the parts,
        and with it the last bits of the sum, is not fixed.

        Args:
            parts: Each computes the mean loss of its part.

        Returns:
            The mean of the losses.
        """

        def one(loss_of: Callable[[], torch.Tensor]) -> float:
            loss = loss_of() / len(parts)
            loss.backward()
            return float(loss.detach())

        return sum(self._pool.map(one, parts))

    def map(self, parts: Sequence[Callable[[], torch.Tensor]]) -> list[torch.Tensor]:
        """Compute the parts, in their order."""
        return list(self._pool.map(lambda part: part(), parts))
