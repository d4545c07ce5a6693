"""A whole model in PyTorch, with a cache of keys and values: what a cloud without a split runs.

It is the same engine that serves trunks, with all layers, between the model's own embedding and LM
head, so that what is compared is where the model runs and not by what.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from cloud.engine import Work
from cloud.engine.packing import pack_linear_layers
from cloud.loading import TrunkSettings, choose_device, choose_dtype, load_service
from lambda_split.errors import InternalError, PromptTooLong
from lambda_split.partition import Checkpoint, Masks, load_head, load_tail
from lambda_split.split import Split

__all__ = ["CloudModel"]

_NO_MASKS = Masks(None, None)
_ALL_TO_THE_TRUNK = Split(0, 0)


class CloudModel:
    """One conversation at a time, greedy.

    Attributes:
        max_positions: Positions of prompt and reply together.
    """

    def __init__(self, checkpoint: Checkpoint, dtype: str) -> None:
        """Load it onto a GPU, where there is one.

        Args:
            checkpoint: The model.
            dtype: Of weights and computation, as ``serve`` takes it.

        Raises:
            CheckpointError: it cannot be read.
        """
        self._device = choose_device("auto")
        self._dtype = chosen = choose_dtype(dtype, self._device)
        settings = TrunkSettings(
            split=_ALL_TO_THE_TRUNK, device=self._device, dtype=chosen, max_sessions=1
        )
        self._engine, offer = load_service(checkpoint, settings)
        self.max_positions = offer.max_positions
        # Rows of a table: cheap wherever it is, and the engine takes them on the host.
        self._head = load_head(checkpoint, _ALL_TO_THE_TRUNK, dtype=chosen)
        self._tail = load_tail(checkpoint, _ALL_TO_THE_TRUNK, dtype=chosen, device=self._device)
        if self._device.type == "cpu":
            pack_linear_layers(self._tail)
        self._session = self._engine.open(offer.layers, offer.max_positions)
        self._first_logits = torch.zeros(1, dtype=torch.int64, device=self._device)

    def generate(self, token_ids: Sequence[int], max_new_tokens: int) -> Iterator[int]:
        """New tokens, one by one; nothing is held of the conversation before.

        Raises:
            PromptTooLong: prompt and new tokens take more positions than there are.
            InternalError: the engine failed.
        """
        if len(token_ids) + max_new_tokens > self.max_positions:
            raise PromptTooLong("make it shorter", len(token_ids), self.max_positions)
        waiting, start = list(token_ids), 0
        for _ in range(max_new_tokens):
            token = self._next(waiting, start)
            start += len(waiting)
            waiting = [token]
            yield token

    @torch.inference_mode()
    def _next(self, token_ids: list[int], start: int) -> int:
        ids = torch.tensor([token_ids])  # (1, T)
        positions = torch.arange(start, start + len(token_ids))[None, :]  # (1, T)
        hidden = self._head(ids, positions, None, _NO_MASKS)[0]  # (T, W)
        if not self._engine.reserve(self._session, start + len(token_ids)):
            raise InternalError("no memory for keys and values")
        (outcome,) = self._engine.step([Work(self._session, start, hidden, reply=1)])
        if isinstance(outcome, Exception):
            raise outcome
        last = outcome.hidden.to(self._device, self._dtype)[None, :]  # (1, W) -> (1, 1, W)
        where = torch.tensor([[start + len(token_ids) - 1]], device=self._device)  # (1, 1)
        logits = self._tail(last, where, None, _NO_MASKS, self._first_logits)  # (1, 1, V)
        return int(logits.argmax())
