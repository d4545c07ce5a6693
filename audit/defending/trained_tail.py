"""A tail that is trained to live with the noise which its own device puts on the upload."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from audit.capture import Victim
from audit.defending.noise import apply
from audit.whole_model import WholeModel, with_private_ends

__all__ = ["TrainedTailSettings", "train_tail"]


@dataclass(frozen=True)
class TrainedTailSettings:
    """How the tail is trained.

    Attributes:
        steps: Optimizer steps.
        rows: Texts in a step.
        learning_rate: Of AdamW, at its peak.
        seed: Of order and noise.
    """

    steps: int = 200
    rows: int = 16
    learning_rate: float = 1e-3
    seed: int = 0


def train_tail(
    victim: Victim,
    texts: Sequence[Sequence[int]],
    settings: TrainedTailSettings,
    progress: Callable[[int], None] = lambda _step: None,
) -> WholeModel:
    """Distil the model without noise into one with noise, changing nothing but the tail.

    Args:
        victim: The device, with noise on its upload.
        texts: Token ids to train on; those that are shorter than the longest are left out.
        settings: How.
        progress: Is told how many steps are done.

    Returns:
        The model with its new tail.
    """
    model, split = victim.model, victim.setting.split
    count = model.layer_count
    trained = with_private_ends(model, split)
    parts = [trained.norm, trained.lm_head, *(trained.stack.layers[n] for n in split.tail(count))]
    parameters = [parameter for part in parts for parameter in part.parameters()]
    for parameter in parameters:
        parameter.requires_grad = True
    optimizer = torch.optim.AdamW(parameters, settings.learning_rate, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.steps + 1, pct_start=0.1
    )
    longest = max(map(len, texts))
    rows = torch.tensor([list(text) for text in texts if len(text) == longest])
    random = np.random.default_rng((settings.seed, 2))
    for step in range(settings.steps):
        ids = rows[torch.from_numpy(random.integers(len(rows), size=settings.rows))]  # (B, T)
        with torch.no_grad():
            hidden = model.states(ids, split.head_layers)
            clean = model.run(hidden, 0, range(split.head_layers, count))
            expected = model.logits(clean).log_softmax(-1)
            flat = hidden.flatten(0, 1).numpy()  # (B, T, W) -> (B·T, W)
            noisy = torch.from_numpy(apply(flat, victim.setting.defence, victim.scale, random))
            answered = model.run(noisy.view_as(hidden), 0, split.trunk(count))
        found = trained.logits(trained.run(answered, 0, split.tail(count))).log_softmax(-1)
        loss = functional.kl_div(found, expected, reduction="none", log_target=True).sum(-1).mean()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        progress(step + 1)
    for parameter in parameters:
        parameter.requires_grad = False
    return trained
