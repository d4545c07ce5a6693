"""Stage before the denoiser: the text encoders learn what captions mean.

SDXL's text encoders know words before the denoiser sees any. These learn theirs from captions
alone, which costs little: to answer, for each place, what is there. Once from the states before the
last layer, read by attention as the denoiser reads them, and once from the pooled embedding.
"""

from __future__ import annotations

import threading
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Final

import torch
from torch.nn.functional import cross_entropy

from .autoencoder import save_checkpoint
from .captions import random_caption
from .denoiser import Noising, TextEncoders
from .loop import Progress, run
from .parallel import Workers
from .recipe import Recipe
from .scene import Scene, random_scene
from .world import BACKGROUNDS, KINDS, PLACES, RADII, SHAPE_COLOURS

CHECKPOINT: Final = "wording.pt"
#: What is asked of each place; the last answer of each is "nothing".
_QUESTIONS: Final = (SHAPE_COLOURS, KINDS, tuple(RADII))
_ANSWERS: Final = sum(len(choices) + 1 for choices in _QUESTIONS)


class Readers(torch.nn.Module):
    """Read answers out of what the encoders give; thrown away afterwards."""

    def __init__(self, states_width: int, pooled_width: int) -> None:
        super().__init__()
        # One question a place, and one for the background.
        self.queries = torch.nn.Parameter(torch.randn(len(PLACES) + 1, states_width) * 0.1)
        self.keys = torch.nn.Linear(states_width, states_width)
        self.values = torch.nn.Linear(states_width, states_width)
        self.place = torch.nn.Linear(states_width, _ANSWERS)
        self.background = torch.nn.Linear(states_width, len(BACKGROUNDS))
        self.pooled = torch.nn.Linear(pooled_width, len(PLACES) * _ANSWERS + len(BACKGROUNDS))

    def forward(
        self, states: torch.Tensor, pooled: torch.Tensor
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Answer from either.

        Args:
            states: ``(count, tokens, states_width)``.
            pooled: ``(count, pooled_width)``.

        Returns:
            From states and from the pooled embedding: logits for places ``(count, 9, answers)``
            and for the background ``(count, backgrounds)``.
        """
        read = torch.nn.functional.scaled_dot_product_attention(
            self.queries.expand(len(states), -1, -1), self.keys(states), self.values(states)
        )
        whole = self.pooled(pooled)
        # Shape: (count, 9 * answers) -> (count, 9, answers).
        places = whole[:, : -len(BACKGROUNDS)].unflatten(1, (len(PLACES), _ANSWERS))
        return [
            (self.place(read[:, :-1]), self.background(read[:, -1])),
            (places, whole[:, -len(BACKGROUNDS) :]),
        ]


def right_answers(scenes: list[Scene]) -> tuple[torch.Tensor, torch.Tensor]:
    """For each scene: ``(count, 9, 3)`` what is in each place, ``(count,)`` the background."""
    nothing = [len(choices) for choices in _QUESTIONS]
    places = torch.tensor(nothing).repeat(len(scenes), len(PLACES), 1)
    for number, scene in enumerate(scenes):
        for thing in scene.things:
            words = (thing.colour, thing.kind, thing.size)
            answers = [c.index(word) for c, word in zip(_QUESTIONS, words, strict=True)]
            places[number, list(PLACES).index(thing.place)] = torch.tensor(answers)
    backgrounds = torch.tensor([BACKGROUNDS.index(scene.background) for scene in scenes])
    return places, backgrounds


def wording_loss(
    encoders: TextEncoders, readers: Readers, noising: Noising, scenes: list[Scene], rng: Random
) -> torch.Tensor:
    """Cross entropy of the answers, from states and pooled embedding alike."""
    captions = [random_caption(scene, rng) for scene in scenes]
    places, backgrounds = right_answers(scenes)
    loss = torch.zeros(())
    for place_logits, background_logits in readers(*encoders(noising.encode(captions))):
        loss = loss + cross_entropy(background_logits, backgrounds)
        start = 0
        for number, choices in enumerate(_QUESTIONS):
            logits = place_logits[..., start : start + len(choices) + 1]
            # Shape: (count, 9, choices) -> (count * 9, choices).
            loss = loss + cross_entropy(logits.flatten(0, 1), places[..., number].flatten())
            start += len(choices) + 1
    return loss


def train_wording(
    recipe: Recipe, work: Path, noising: Noising, workers: Workers, stop: threading.Event
) -> tuple[TextEncoders, Progress, bool]:
    """Run the stage, or what is left of it.

    Args:
        recipe: The numbers of the run.
        work: Folder of checkpoints; one that is there is gone on from.
        noising: Holds the tokenizers.
        workers: Compute the gradients.
        stop: Set to end early, with a checkpoint.

    Returns:
        The encoders, what was done, and whether the stage is done.
    """
    torch.manual_seed(recipe.seed)
    encoders = TextEncoders(len(noising.tokenizers[0]))
    readers = Readers(*encoders.widths)
    both = torch.nn.ModuleDict({"encoders": encoders, "readers": readers})
    optimizer = torch.optim.AdamW(both.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
    progress = Progress()
    if (work / CHECKPOINT).exists():
        saved = torch.load(work / CHECKPOINT, weights_only=True)
        both.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        progress = Progress(**saved["progress"])
    schedule = recipe.wording

    def take_step(step: int, rate: float) -> float:
        optimizer.param_groups[0]["lr"] = rate

        def part(rng: Random) -> torch.Tensor:
            scenes = [random_scene("train", rng) for _ in range(schedule.part)]
            return wording_loss(encoders, readers, noising, scenes, rng)

        count = schedule.batch // schedule.part
        rngs = [Random(f"wording {recipe.seed} {step} {number}") for number in range(count)]
        loss = workers.backward([lambda rng=rng: part(rng) for rng in rngs])
        torch.nn.utils.clip_grad_norm_(both.parameters(), recipe.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    def save() -> None:
        save_checkpoint(
            work / CHECKPOINT,
            {
                "model": both.state_dict(),
                "optimizer": optimizer.state_dict(),
                "progress": asdict(progress),
            },
        )

    done = run("wording", schedule, progress, take_step=take_step, save=save, stop=stop)
    return encoders, progress, done
