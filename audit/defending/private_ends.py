"""Private ends: a head and a tail of one's own around the public trunk.

Head and tail are trained on the device's owner's side; the trunk stays what it is. Two things are
asked of them at once. The function of the whole stays (distillation: the next-token distributions
are those of the public model), and what crosses no longer fits the public model: an attacker who
compares it with what the public head or trunk would give, or who has learned to read such states,
is to be no better than guessing. The trained weights are a secret like a key: who has them can
search the vocabulary as if they were public.

It is no defence against who knows how it is made: what the public trunk can read, others can learn
to read as well (``docs/adr/0016``). It is here so that everybody can measure that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from audit.whole_model import WholeModel, with_private_ends
from lambda_split.split import Split

__all__ = ["PrivateEndsSettings", "end_parameters", "train_private_ends"]

_READER_STEPS = 150  # for the public readers of states that training works against
_READER_RATE = 3e-3
_WARMUP = 50
_SHARPNESS = 32.0  # of the comparison with public states: distances are in units of their mean / 32


@dataclass(frozen=True)
class PrivateEndsSettings:
    """How private ends are trained.

    Attributes:
        strength: Weight of hiding against keeping the function.
        steps: Optimizer steps.
        rows: Texts in a step.
        learning_rate: Of AdamW, at its peak.
        seed: Of the order of the texts.
    """

    strength: float = 1.0
    steps: int = 300
    rows: int = 16
    learning_rate: float = 1.5e-3
    seed: int = 0


def end_parameters(model: WholeModel, split: Split) -> list[nn.Parameter]:
    """Every parameter of head and tail."""
    parts = [model.embedding, model.norm, model.lm_head]
    if model.position_embedding is not None:
        parts.append(model.position_embedding)
    parts += [
        model.stack.layers[number] for number in (*split.head(), *split.tail(model.layer_count))
    ]
    return [parameter for part in parts for parameter in part.parameters()]


def train_private_ends(
    public: WholeModel,
    split: Split,
    texts: Sequence[Sequence[int]],
    settings: PrivateEndsSettings,
    *,
    progress: Callable[[int, float], None] = lambda _step, _divergence: None,
) -> WholeModel:
    """Train a head and a tail around the public trunk.

    Args:
        public: The public model; it is not changed.
        split: Where it is cut; at least one layer on each side gives room to hide in.
        texts: Token ids to train on, for example what the model itself writes.
        settings: How.
        progress: Is told the step and its mean KL(public ‖ private), in nats.

    Returns:
        A model that shares the public trunk.
    """
    torch.manual_seed(settings.seed)
    batches = _batches(texts, settings)
    readers = _public_readers(public, split, batches)
    private = with_private_ends(public, split)
    parameters = end_parameters(private, split)
    for parameter in parameters:
        parameter.requires_grad = True
    optimizer = torch.optim.AdamW(parameters, settings.learning_rate, weight_decay=0.0, fused=True)
    for step in range(settings.steps):
        ids = next(batches)
        with torch.no_grad():
            expected = _run(public, split, ids)
        found = _run(private, split, ids)
        divergence = _divergence(expected.logits, found.logits)
        loss = divergence + settings.strength * _leak(expected, found, readers, ids)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * _rate(step, settings.steps)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        progress(step + 1, float(divergence.detach()))
    for parameter in parameters:
        parameter.requires_grad = False
    return private


@dataclass(frozen=True)
class _Crossing:
    """What goes up and comes back, each (B, T, W), and logits (B, T, V)."""

    up: torch.Tensor
    down: torch.Tensor
    logits: torch.Tensor


def _run(model: WholeModel, split: Split, ids: torch.Tensor) -> _Crossing:
    count = model.layer_count
    up = model.states(ids, split.head_layers)
    down = model.run(up, 0, split.trunk(count))
    return _Crossing(up, down, model.logits(model.run(down, 0, split.tail(count))))


def _divergence(expected: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    """Mean KL(expected ‖ found) of next-token distributions, in nats."""
    each = functional.kl_div(
        found.log_softmax(-1), expected.log_softmax(-1), reduction="none", log_target=True
    )
    return each.sum(-1).mean()


def _leak(
    expected: _Crossing, found: _Crossing, readers: Sequence[nn.Module], ids: torch.Tensor
) -> torch.Tensor:
    """How well public knowledge reads what crosses: 1 perfectly, 0 where it only guesses."""
    secrets = (ids, expected.logits.argmax(-1))  # of the upload, and of the download
    guessing = math.log(expected.logits.shape[-1])
    total = torch.zeros(())
    for public, private, reader, tokens in zip(
        (expected.up, expected.down), (found.up, found.down), readers, secrets, strict=True
    ):
        read = functional.cross_entropy(
            reader(_scaled(private)).flatten(0, 1), tokens.flatten(), reduction="none"
        )
        rows, others = private.flatten(0, 1), public.flatten(0, 1)  # (B, T, W) -> (B·T, W)
        unit = torch.cdist(others, others).square().mean() / _SHARPNESS
        matched = functional.cross_entropy(
            -torch.cdist(rows, others).square() / unit, torch.arange(len(rows)), reduction="none"
        )
        # Beyond guessing nothing is gained: an attacker who is surely wrong is read backwards.
        total = total + read.clamp(max=guessing).mean() + matched.clamp(max=guessing).mean()
    return 1.0 - total / (4 * guessing)


def _scaled(states: torch.Tensor) -> torch.Tensor:
    return functional.layer_norm(states, states.shape[-1:])


def _public_readers(
    public: WholeModel, split: Split, batches: Iterator[torch.Tensor]
) -> list[nn.Module]:
    """Linear maps that read tokens from the public model's states: what attackers can train."""
    readers: list[nn.Module] = [
        nn.Linear(public.hidden_size, public.vocab_size) for _ in ("up", "down")
    ]
    optimizer = torch.optim.AdamW(
        [parameter for reader in readers for parameter in reader.parameters()], _READER_RATE
    )
    for _ in range(_READER_STEPS):
        ids = next(batches)
        with torch.no_grad():
            public_states = _run(public, split, ids)
        secrets = (ids, public_states.logits.argmax(-1))
        loss = torch.zeros(())
        for reader, states, tokens in zip(
            readers, (public_states.up, public_states.down), secrets, strict=True
        ):
            logits = reader(_scaled(states)).flatten(0, 1)
            loss = loss + functional.cross_entropy(logits, tokens.flatten())
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    for reader in readers:
        reader.requires_grad_(requires_grad=False)
    return readers


def _batches(
    texts: Sequence[Sequence[int]], settings: PrivateEndsSettings
) -> Iterator[torch.Tensor]:
    """Rows of equal length, int64 (B, T), without end."""
    length = min(64, max(map(len, texts)))
    rows = torch.tensor([list(text[:length]) for text in texts if len(text) >= length])
    generator = torch.Generator().manual_seed(settings.seed)
    while True:
        yield rows[torch.randint(len(rows), (settings.rows,), generator=generator)]


def _rate(step: int, steps: int) -> float:
    """A linear warm-up, then a cosine down to nearly nothing."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1.0, (step + 1) / _WARMUP) * (0.02 + 0.98 * cosine)
