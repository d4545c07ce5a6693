"""All attacks on pictures, on what crosses the wire while a pipeline makes some.

Device and service run in one process, with the modules, codecs, solvers and frames that they have;
what is attacked is read from the messages' bytes. Prompts, seeds and latents are known to the code
that makes the pictures and to the code that counts, not to what attacks.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from audit.pictures.asking import EXACT, Plan, ask
from audit.pictures.attacks import (
    DECODER,
    LINEAR,
    SEARCH,
    Own,
    attack_deep,
    attack_whole,
    baselines,
    make_own,
)
from audit.pictures.captions import usual_captions
from audit.pictures.findings import PictureAttack, PicturesAudit, PictureSetting, Samples, Sizes
from audit.pictures.model import open_public_model
from audit.pictures.prompts import attack_prompts
from audit.pictures.scores import likeness
from audit.pictures.searching import ASSUMED_GUIDANCE, ROUNDS
from audit.pictures.sessions import Session, deep_sessions, whole_sessions
from audit.pictures.tapped import TappedPicture, read_messages
from edge_runtime.pictures.prompts import PromptEncoders
from export.progress import Progress, QuietProgress
from lambda_split.errors import UsageError
from lambda_split.wire.pictures.settings import MAX_STEPS
from lambda_split.wire.tensor_format import Base, TensorFormat

__all__ = ["DEEP_FORMATS", "WHOLE_FORMATS", "audit_pictures"]

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]

WHOLE_FORMATS = ("fp16", "int8", "int4", "nf4-delta")
_CONTROLS = 3  # noise has no end, so that each takes longer than a prompt
DEEP_FORMATS = ("fp16", "int8-channel", "int4-channel")


@dataclass(frozen=True, eq=False)
class _Made:
    """Pictures of one split and format, and what was read of their messages."""

    split: str
    form: TensorFormat
    sessions: list[Session]
    seen: list[TappedPicture]
    shown: Pixels = field(repr=False)

    def setting(self, uncoded: Pixels) -> PictureSetting:
        first = self.sessions[0]
        sizes = Sizes(tuple(map(len, first.up)), tuple(map(len, first.down)))
        cost = likeness(self.shown, uncoded)
        return PictureSetting(self.split, self.form.label, sizes, cost)


def audit_pictures(
    model: str,
    *,
    captions: Sequence[str] | None = None,
    own_captions: Sequence[str] | None = None,
    encoders: PromptEncoders | None = None,
    steps: int = 8,
    guidance: float = 5.0,
    after: Sequence[int] | None = None,
    pairs: Sequence[int] = (8, 64),
    whole_formats: Sequence[str] = WHOLE_FORMATS,
    deep_formats: Sequence[str] = DEEP_FORMATS,
    limit: int | None = None,
    rounds: int = ROUNDS,
    samples: int = 5,
    progress: Progress | None = None,
) -> PicturesAudit:
    """Make pictures, read their messages, and try to see prompts and pictures.

    Args:
        model: A local folder, a Hugging Face id, or ``demo-image``.
        captions: Of the pictures to attack, one each; eight usual ones where None.
        own_captions: Of the pictures that whoever attacks makes himself to learn from; none of
            ``captions``. The usual ones that are not attacked where None.
        encoders: A bundle's text encoders, to encode prompts as its device does; the pipeline's own
            in PyTorch where None, which is what a bundle of fp32 weights computes.
        steps: Of a picture.
        guidance: Scale of classifier-free guidance of the pictures to attack. With the split
            ``deep`` it does not cross, and whoever attacks takes it to be 5.
        after: After how many steps pictures are looked for; half of them and all where None.
        pairs: How many pictures of his own he fits the linear map on.
        whole_formats: Labels of the formats of the split ``whole``; one at least.
        deep_formats: Those of ``deep``; not looked at where the denoiser has no such split.
        limit: See :func:`audit.pictures.prompts.find_prompts`; for large vocabularies.
        rounds: Of the search through the first block.
        samples: Of how many pictures what was seen is kept.
        progress: Told what is being done; not closed.

    Raises:
        UsageError: a setting makes no sense.
        CheckpointError: the pipeline cannot be read or is not one that is audited.
    """
    began = time.perf_counter()
    told = progress or QuietProgress()
    whole, deep = _formats(whole_formats, deep=False), _formats(deep_formats, deep=True)
    plan, own = _plans(
        model,
        captions=captions,
        own_captions=own_captions,
        steps=steps,
        guidance=guidance,
        pairs=pairs,
    )
    when = tuple(dict.fromkeys((max(1, steps // 2), steps) if after is None else after))
    if not whole or not when or not all(1 <= count <= steps for count in when):
        raise UsageError(f"pictures are looked for in a format, after 1 to {steps} steps")
    told.stage("opening the public model", 1)
    public = open_public_model(model)
    told.advance()
    splits = 1 if public.denoiser.deep is None else 2
    told.stage("making pictures", 1 + len(pairs) + len(whole) + (splits - 1) * len(deep))
    encode = None if encoders is None else encoders.encode
    exact = whole_sessions(public, ask(public, plan, EXACT, encoder=encode), EXACT)
    uncoded = public.show(_ends(exact))
    told.advance()
    learned: list[Own] = []
    for count in sorted(pairs):
        learned.append(make_own(public, own, count, known=learned[-1:]))
        told.advance()
    asked = ask(public, plan, TensorFormat(Base.FP16), encoder=encode)
    made: list[_Made] = []
    for split, forms in (("whole", whole), ("deep", deep))[:splits]:
        for form in forms:
            make = whole_sessions if split == "whole" else deep_sessions
            sessions = make(public, asked, form)
            seen = [read_messages(one.up, one.down, public.geometry)[0] for one in sessions]
            made.append(_Made(split, form, sessions, seen, public.show(_ends(sessions))))
            told.advance()
    told.stage("looking at pictures", len(made) * len(when))
    likely = learned[-1] if learned else None
    attacks = baselines(public, likely, made[0].shown, samples=samples)
    for one in made:
        for step in when:
            seen, shown = one.seen, one.shown
            if one.split == "whole":
                attacks += attack_whole(public, seen, shown, step, samples=samples)
            else:
                attacks += attack_deep(
                    public, seen, shown, step, learned, samples=samples, rounds=rounds
                )
            told.advance()
    contexts = [picture.context for picture in made[0].seen]
    found = attack_prompts(public, contexts, plan.prompts, limit=limit, progress=told)
    noise = _noise(contexts[:_CONTROLS])
    few = plan.prompts[:_CONTROLS]
    control = attack_prompts(public, noise, few, limit=limit, progress=told)
    return PicturesAudit(
        model=public.id,
        captions=plan.prompts,
        steps=steps,
        prompts=found,
        control=control,
        settings=tuple(one.setting(uncoded) for one in made),
        attacks=tuple(attacks),
        samples=_samples(attacks, made[0].shown[:samples]),
        seconds=time.perf_counter() - began,
    )


def _formats(labels: Sequence[str], *, deep: bool) -> list[TensorFormat]:
    found = []
    for label in labels:
        form = TensorFormat.from_label(label)
        if form is None or (deep and form.delta):
            raise UsageError(f"the split {'deep' if deep else 'whole'!r} has no format {label!r}")
        found.append(form)
    return found


def _plans(
    model: str,
    *,
    captions: Sequence[str] | None,
    own_captions: Sequence[str] | None,
    steps: int,
    guidance: float,
    pairs: Sequence[int],
) -> tuple[Plan, Plan]:
    """The pictures to attack, and those that whoever attacks makes himself.

    The latter have no seeds yet: those are chosen when it is known how many pictures there are.
    """
    usual, others = usual_captions(model)
    attacked = tuple(usual if captions is None else captions)
    known = [*usual, *others] if captions is not None else others
    own = tuple(own_captions or (one for one in known if one not in attacked))
    if not attacked or not own:
        raise UsageError("there have to be captions to attack, and others to learn from")
    if both := set(attacked) & set(own):
        raise UsageError(f"these captions are to be attacked and learned from: {sorted(both)}")
    if not 1 <= steps <= MAX_STEPS:
        raise UsageError(f"steps must be from 1 to {MAX_STEPS}, not {steps}")
    if any(count < 1 for count in pairs):
        raise UsageError("pairs to learn from must be 1 at least")
    return Plan(attacked, (0,), steps, guidance), Plan(own, (), steps, ASSUMED_GUIDANCE)


def _ends(sessions: Sequence[Session]) -> Floats:
    """The latents that devices end with, float32 (n, C, h, w)."""
    return np.concatenate([one.latents for one in sessions])


def _noise(contexts: Sequence[Floats]) -> list[Floats]:
    """Noise of the mean and spread of each, of the same shape."""
    random = np.random.default_rng(0)
    return [random.normal(one.mean(), one.std(), one.shape).astype(np.float32) for one in contexts]


def _samples(attacks: Sequence[PictureAttack], shown: Pixels) -> Samples:
    """Of each way the first format's pictures after the most steps, with the most pairs."""

    def of(split: str, name: str) -> Pixels | None:
        ways = [one for one in attacks if (one.split, one.name) == (split, name)]
        best = max(
            (one for one in ways if one.form == ways[0].form),
            key=lambda one: (one.step, one.pairs),
            default=None,
        )
        return None if best is None else best.pictures

    tapped = of("whole", DECODER)
    return Samples(
        shown=shown,
        tapped=shown[:0] if tapped is None else tapped,
        deep_linear=of("deep", LINEAR),
        deep_search=of("deep", SEARCH),
    )
