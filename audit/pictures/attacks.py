"""The attacks on pictures, each with its figures."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from audit.pictures.asking import Asked, Plan, ask
from audit.pictures.denoising import Receiver, synchronized
from audit.pictures.findings import PictureAttack
from audit.pictures.maps import LinearMap, channel_mean, features_of, first_channels
from audit.pictures.model import PublicModel
from audit.pictures.scores import likeness
from audit.pictures.searching import ROUNDS, search
from audit.pictures.tapped import TappedPicture, watch
from lambda_split.errors import UsageError
from lambda_split.wire.tensor_format import Base, TensorFormat

__all__ = [
    "CHANNELS",
    "DECODER",
    "FIRST_CHANNELS",
    "LINEAR",
    "MEAN",
    "OTHER",
    "SEARCH",
    "Own",
    "attack_deep",
    "attack_whole",
    "baselines",
    "make_own",
]

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]

MEAN, OTHER = "the mean of other pictures", "a picture of another prompt"
DECODER = "the public decoder"
FIRST_CHANNELS, CHANNELS = "the first channels for latents", "the mean of the channels"
LINEAR, SEARCH = "a linear map", "a search with the public model"
_FIRST_SEED = 1 << 20  # his own pictures have other seeds than those that he attacks
_FORM = TensorFormat(Base.FP16)


@dataclass(frozen=True, eq=False)
class Own:
    """Pictures that whoever attacks made himself, to learn from.

    Attributes:
        asked: What he asked for.
        receivers: How each went its way.
        latents: Where each ended, float32 (n, C, h, w).
    """

    asked: Sequence[Asked] = field(repr=False)
    receivers: Sequence[Receiver] = field(repr=False)
    latents: Floats = field(repr=False)


def make_own(model: PublicModel, plan: Plan, count: int, *, known: Sequence[Own] = ()) -> Own:
    """Make so many pictures: the plan's prompts in turn, each time with another seed.

    Args:
        model: The public one.
        plan: Its prompts, steps and guidance; not its seeds.
        count: How many.
        known: At most one that was made before of the same plan, which is gone on with.
    """
    prompts = len(plan.prompts)
    seeds = tuple(_FIRST_SEED + number for number in range(-(-count // prompts)))
    each = ask(model, replace(plan, seeds=seeds), _FORM)
    # By prompt, then seed -> by seed, then prompt.
    asked = [each[one * len(seeds) + seed] for seed in range(len(seeds)) for one in range(prompts)]
    asked = asked[:count]
    before = list(known[0].receivers) if known else []
    receivers = before + synchronized(model.denoiser, asked[len(before) :], _FORM)
    return Own(asked, receivers, np.concatenate([one.state.sample for one in receivers]))


def baselines(
    model: PublicModel, own: Own | None, shown: Pixels, *, samples: int
) -> list[PictureAttack]:
    """What is seen without any wire: with these figures nothing was learned."""
    guesses: dict[str, Callable[[], Pixels]] = {}
    if own is not None:
        mean = model.decode(own.latents).mean(axis=0, keepdims=True)
        guesses[MEAN] = lambda: np.repeat(_rounded(mean), len(shown), axis=0)
    if len(shown) > 1:
        guesses[OTHER] = lambda: np.roll(shown, 1, axis=0)
    return [
        _scored(guess, shown, samples, split="", form="", name=name, step=0, pairs=0)
        for name, guess in guesses.items()
    ]


def attack_whole(
    model: PublicModel, seen: Sequence[TappedPicture], shown: Pixels, step: int, *, samples: int
) -> list[PictureAttack]:
    """Go the device's way with what crossed, and decode with the public VAE.

    Args:
        model: The public one.
        seen: What was read of each picture's messages.
        shown: What the device shows, uint8 (n, height, width, 3): only to compare with.
        step: How many steps had been made.
        samples: Of how many pictures what was seen is kept.
    """

    def decoded() -> Pixels:
        return model.show(np.concatenate([watch(picture, step) for picture in seen]))

    return [
        _scored(
            decoded, shown, samples,
            split="whole", form=_label(seen), name=DECODER, step=step, pairs=0,
        )
    ]  # fmt: skip


def attack_deep(
    model: PublicModel,
    seen: Sequence[TappedPicture],
    shown: Pixels,
    step: int,
    learned: Sequence[Own],
    *,
    samples: int,
    rounds: int = ROUNDS,
) -> list[PictureAttack]:
    """Go back from the features that crossed in a step.

    Args:
        model: The public one.
        seen: What was read of each picture's messages.
        shown: What the device shows, uint8 (n, height, width, 3): only to compare with.
        step: How many steps had been made, the last of which is looked at.
        learned: His own pictures, in several amounts; the last one is the largest.
        samples: Of how many pictures what was seen is kept.
        rounds: Of the search.
    """
    last = step - 1
    features = np.stack([picture.features[last][0] for picture in seen])  # (n, channels, h, w)
    form = TensorFormat.from_label(_label(seen))
    if form is None:
        raise UsageError("no steps of the split 'deep' were read")
    size = (shown.shape[1], shown.shape[2])

    def looked() -> Pixels:
        return _rounded(channel_mean(features, size))

    def searched() -> Pixels:
        return model.show(search(model, seen, last, rounds=rounds)[0])

    ways: list[tuple[str, int, Callable[[], Pixels]]] = [(CHANNELS, 0, looked)]
    for own in learned:

        def mapped(own: Own = own) -> Pixels:
            states = [receiver.states[last] for receiver in own.receivers]
            known = features_of(model, own.asked, states, last, form)
            return model.show(LinearMap.fitted(known, own.latents)(features))

        ways.append((LINEAR, len(own.receivers), mapped))
    if learned:
        likely = learned[-1].latents
        ways.insert(0, (FIRST_CHANNELS, 0, lambda: model.show(first_channels(features, likely))))
    ways.append((SEARCH, 0, searched))
    return [
        _scored(
            way, shown, samples, split="deep", form=form.label, name=name, step=step, pairs=pairs
        )
        for name, pairs, way in ways
    ]


def _scored(
    way: Callable[[], Pixels],
    shown: Pixels,
    samples: int,
    *,
    split: str,
    form: str,
    name: str,
    step: int,
    pairs: int,
) -> PictureAttack:
    began = time.perf_counter()
    pictures = way()
    seconds = time.perf_counter() - began
    return PictureAttack(
        split=split,
        form=form,
        name=name,
        step=step,
        pairs=pairs,
        likeness=likeness(pictures, shown),
        seconds=seconds,
        pictures=pictures[:samples],
    )


def _label(seen: Sequence[TappedPicture]) -> str:
    form = seen[0].form
    return "" if form is None else form.label


def _rounded(pictures: Floats) -> Pixels:
    return np.rint(pictures).astype(np.uint8)
