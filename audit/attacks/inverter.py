"""A learned inverter: from hidden states to tokens, without any weights of the ends.

The attacker has pairs of what crossed and which token it was, from text that is known to it: its
own use of the same head, or text that leaked. *linear* is one layer from a position's state to
logits over the vocabulary; *transformer* sees all positions of a text, before and after (Morris et
al. 2023, arXiv 2310.06816, and arXiv 2503.09291, invert with transformers).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

__all__ = ["Inverter", "InverterSettings", "Pairs", "take_positions", "train_inverter"]

Floats = npt.NDArray[np.float32]
Kind = Literal["linear", "transformer"]

_VALIDATED = 0.1  # of the pairs: the best state by these is kept
_CHECKS = 10
_IGNORED = -100
_ROWS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Pairs:
    """Known text: for each text its states, float32 (T, W), and the token of each position."""

    states: tuple[Floats, ...]
    token_ids: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class InverterSettings:
    """How an inverter is trained.

    Attributes:
        kind: The form of the inverter.
        steps: Optimizer steps.
        positions: Positions of a step.
        learning_rate: Of AdamW, at its peak.
        width: Of the transformer.
        layers: Of the transformer.
        seed: Of weights and order.
    """

    kind: Kind = "linear"
    steps: int = 400
    positions: int = 1024
    learning_rate: float = 3e-3
    width: int = 192
    layers: int = 2
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Inverter:
    """A trained inverter."""

    network: nn.Module
    mean: torch.Tensor
    deviation: torch.Tensor

    @torch.inference_mode()
    def tokens(self, states: Floats) -> tuple[int, ...]:
        """The most likely token at each position of one text's states, float32 (T, W)."""
        scaled = (torch.from_numpy(states) - self.mean) / self.deviation
        logits = self.network(scaled[None])[0]  # (1, T, V) -> (T, V)
        return tuple(logits.argmax(-1).tolist())


class _Transformer(nn.Module):
    """States in, attention both ways, logits out; the states say where they stand themselves."""

    def __init__(self, states: int, vocabulary: int, settings: InverterSettings) -> None:
        super().__init__()
        self.enter = nn.Linear(states, settings.width)
        layer = nn.TransformerEncoderLayer(
            settings.width,
            nhead=max(1, settings.width // 48),
            dim_feedforward=3 * settings.width,
            dropout=0.1,
            batch_first=True,
            norm_first=True,
        )
        self.layers = nn.TransformerEncoder(layer, settings.layers, enable_nested_tensor=False)
        self.direct = nn.Linear(states, vocabulary)
        self.leave = nn.Linear(settings.width, vocabulary)

    def forward(self, states: torch.Tensor, padding: torch.Tensor | None = None) -> torch.Tensor:
        """(B, T, W) and what is padding, bool (B, T), to logits (B, T, V)."""
        inner = self.layers(self.enter(states), src_key_padding_mask=padding)
        # The direct way is the linear inverter: a transformer is never worse for want of steps.
        out: torch.Tensor = self.leave(inner) + self.direct(states)
        return out


def take_positions(pairs: Pairs, positions: int) -> Pairs:
    """The first texts that have so many positions together; the last one is cut."""
    states: list[Floats] = []
    token_ids: list[tuple[int, ...]] = []
    for one, ids in zip(pairs.states, pairs.token_ids, strict=True):
        left = positions - sum(map(len, token_ids))
        if left <= 0:
            break
        states.append(one[:left])
        token_ids.append(ids[:left])
    return Pairs(tuple(states), tuple(token_ids))


def train_inverter(
    pairs: Pairs,
    vocabulary: int,
    settings: InverterSettings,
    progress: Callable[[], None] = lambda: None,
) -> Inverter:
    """Train an inverter on known text.

    Args:
        pairs: The known text.
        vocabulary: Number of tokens.
        settings: How.
        progress: Called after each of ten parts of the training.
    """
    torch.manual_seed(settings.seed)
    flat = torch.from_numpy(np.concatenate(pairs.states))  # (N, W)
    mean, deviation = flat.mean(0), flat.std(0) + 1e-6
    width = flat.shape[1]
    network: nn.Module = (
        nn.Linear(width, vocabulary)
        if settings.kind == "linear"
        else _Transformer(width, vocabulary, settings)
    )
    texts = [
        ((torch.from_numpy(one) - mean) / deviation, torch.tensor(ids))
        for one, ids in zip(pairs.states, pairs.token_ids, strict=True)
    ]
    order = np.random.default_rng(settings.seed)
    held_out = max(1, int(len(texts) * _VALIDATED)) if len(texts) > 1 else 0
    _fit(
        network,
        texts[held_out:],
        validation=texts[:held_out] or texts,
        settings=settings,
        order=order,
        progress=progress,
    )
    network.eval()
    return Inverter(network, mean, deviation)


_Text = tuple[torch.Tensor, torch.Tensor]


def _fit(
    network: nn.Module,
    texts: Sequence[_Text],
    *,
    validation: Sequence[_Text],
    settings: InverterSettings,
    order: np.random.Generator,
    progress: Callable[[], None],
) -> None:
    optimizer = torch.optim.AdamW(
        network.parameters(), settings.learning_rate, weight_decay=0.02, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.steps + 1, pct_start=0.1
    )
    best, kept = float("inf"), network.state_dict()
    batches = _batches(texts, settings.positions, order)
    check_every = max(1, settings.steps // _CHECKS)
    for step in range(1, settings.steps + 1):
        network.train()
        loss = _loss(network, next(batches))
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if step % check_every == 0 or step == settings.steps:
            network.eval()
            with torch.inference_mode():
                parts = [
                    validation[begin : begin + _ROWS_AT_ONCE]
                    for begin in range(0, len(validation), _ROWS_AT_ONCE)
                ]
                found = sum(float(_loss(network, _pad(part))) * len(part) for part in parts)
            if found < best:
                best = found
                kept = {name: value.clone() for name, value in network.state_dict().items()}
            if step % check_every == 0:
                progress()
    network.load_state_dict(kept)


def _batches(
    texts: Sequence[_Text], positions: int, order: np.random.Generator
) -> Iterator[_Batch]:
    while True:
        batch: list[_Text] = []
        size = 0
        for number in order.permutation(len(texts)).tolist():
            batch.append(texts[number])
            size += len(texts[number][1])
            if size >= positions:
                yield _pad(batch)
                batch, size = [], 0
        if batch:
            yield _pad(batch)


_Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _pad(texts: Sequence[_Text]) -> _Batch:
    """States (B, T, W), tokens (B, T), and what is padding (B, T)."""
    states = nn.utils.rnn.pad_sequence([one for one, _ in texts], batch_first=True)
    token_ids = nn.utils.rnn.pad_sequence(
        [ids for _, ids in texts], batch_first=True, padding_value=_IGNORED
    )
    return states, token_ids, token_ids == _IGNORED


def _loss(network: nn.Module, batch: _Batch) -> torch.Tensor:
    states, token_ids, padding = batch
    logits = network(states) if isinstance(network, nn.Linear) else network(states, padding)
    # (B, T, V) and (B, T) -> (B·T, V) and (B·T,)
    return nn.functional.cross_entropy(
        logits.flatten(0, 1), token_ids.flatten(), ignore_index=_IGNORED
    )
