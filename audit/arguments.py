"""The arguments of ``lambda-split audit``, and the plans that they stand for.

What only one kind of model has is None or False where it was not given, so that it can be told from
what was: then it is refused if nothing uses it.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Sequence
from typing import TypeVar, get_args

from audit.defending.noise import Defence, Kind
from audit.picture_plan import PicturePlan
from audit.text_plan import TextPlan, default_splits
from lambda_split.arguments import positive, split_pair
from lambda_split.errors import UsageError
from lambda_split.split import Split
from lambda_split.wire.frames import Codec

__all__ = [
    "PICTURE_OPTIONS",
    "TEXT_OPTIONS",
    "add_picture_arguments",
    "add_text_arguments",
    "defence",
    "picture_plan",
    "refuse_unused",
    "text_plan",
]

TEXT_OPTIONS = (
    "text", "bundle", "split", "codec", "defence", "seeds", "texts", "prompt_tokens",
    "reply_tokens", "known", "inverter_steps", "beams", "train_tail", "private_ends",
    "training_steps",
)  # fmt: skip
PICTURE_OPTIONS = ("captions", "steps", "own_pictures", "candidates", "search_rounds")
_MOST_STRENGTH = 1e6
_TEXT = TextPlan(splits=())
_PICTURES = PicturePlan()
_Value = TypeVar("_Value")


def add_text_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what an audit of a language model takes."""
    group = parser.add_argument_group("language models")
    group.add_argument(
        "--text",
        type=pathlib.Path,
        metavar="FILE",
        help='what is attacked: a .txt, cut at blank lines, or a .jsonl with a "text" or '
        '"messages" a line (default: texts that come with the shipped model)',
    )
    group.add_argument(
        "--bundle",
        metavar="DIR",
        help="run the head and tail of this bundle, as its device does, with the weights that it "
        "has (default: MODEL's own modules, as fp32 weights compute)",
    )
    group.add_argument(
        "--split",
        action="append",
        type=split_pair,
        metavar="H,T",
        help="layers of head and tail (repeatable; default: the bundle's, or 1,1 and then deeper "
        "ones). Defences and learned attacks are tried on the first",
    )
    group.add_argument(
        "--codec", choices=[codec.label for codec in Codec], help=f"default {_TEXT.codec.label}"
    )
    group.add_argument(
        "--defence",
        action="append",
        type=defence,
        metavar="KIND[:STRENGTH]",
        help="what is done to the upload: permutation; gaussian:S or d_chi:S, S being the noise's "
        "length as a share of the hidden state's; int:BITS, rounding to 1 to 8 bits a value "
        "(repeatable; default: permutation and five strengths of gaussian; 'none' for none)",
    )
    _count(group, "--seeds", "runs of each defence", 1)
    _count(group, "--texts", "prompts to attack; half as many where there is noise", _TEXT.prompts)
    _count(group, "--prompt-tokens", "the most tokens of a prompt", _TEXT.prompt_tokens)
    _count(group, "--reply-tokens", "tokens of a reply", _TEXT.reply_tokens)
    _counts(
        group, "--known", "tokens of known text that learned attacks train on",
        _TEXT.known_positions,
    )  # fmt: skip
    _count(
        group, "--inverter-steps", "optimizer steps of these; more find more", _TEXT.inverter_steps
    )
    _count(group, "--beams", "prefixes that the search keeps where there is noise", _TEXT.beams)
    group.add_argument(
        "--train-tail",
        action="store_true",
        help="beside each noise, also try a tail that is trained to live with it",
    )
    group.add_argument(
        "--private-ends", type=strength, action="append", metavar="S",
        help="also try a head and a tail trained to look unlike the public ones, S being the weight"
        " of hiding (repeatable; 1 hides from who does not know the method)",
    )  # fmt: skip
    _count(
        group, "--training-steps", "optimizer steps of such tails and ends", _TEXT.training_steps
    )


def add_picture_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what an audit of a text-to-image pipeline takes."""
    group = parser.add_argument_group("text-to-image pipelines")
    group.add_argument(
        "--captions",
        type=pathlib.Path,
        metavar="FILE",
        help="prompts of the pictures that are attacked, one a line (default: eight usual ones)",
    )
    _count(group, "--steps", "steps of a picture", _PICTURES.steps)
    _counts(
        group, "--own-pictures", "pictures that whoever attacks makes himself, to learn from",
        _PICTURES.own_pictures,
    )  # fmt: skip
    group.add_argument(
        "--candidates",
        type=positive,
        metavar="N",
        help="tokens that are tried at each place of a prompt (default: all, which takes long "
        "with 49,408 of them)",
    )
    _count(
        group, "--search-rounds", "rounds of the search for what the first block was given",
        _PICTURES.search_rounds,
    )  # fmt: skip


def refuse_unused(args: argparse.Namespace, *, text: bool, pictures: bool) -> None:
    """Refuse what was given and nothing would use.

    Raises:
        UsageError: there is such an option.
    """
    for used, options, kind in (
        (text, TEXT_OPTIONS, "language models"),
        (pictures, PICTURE_OPTIONS, "text-to-image pipelines"),
    ):
        given = [
            f"--{name.replace('_', '-')}"
            for name in options
            if getattr(args, name) is not None and getattr(args, name) is not False
        ]
        if given and not used:
            raise UsageError(f"{', '.join(given)}: only for {kind}, and {args.model} is none")


def text_plan(
    args: argparse.Namespace, layer_count: int, choices: Sequence[Split] | None = None
) -> TextPlan:
    """What to try with a language model of so many layers; ``choices`` are a bundle's splits."""
    codec = Codec.from_label(args.codec or _TEXT.codec.label)
    texts = _or(args.texts, _TEXT.prompts)
    return TextPlan(
        splits=tuple(args.split or choices or default_splits(layer_count)),
        codec=_TEXT.codec if codec is None else codec,
        defences=tuple(one for one in _or(args.defence, _TEXT.defences) if one.kind != "none"),
        prompts=texts,
        defended_prompts=max(1, texts // 2),
        prompt_tokens=_or(args.prompt_tokens, _TEXT.prompt_tokens),
        reply_tokens=_or(args.reply_tokens, _TEXT.reply_tokens),
        known_positions=tuple(sorted(_or(args.known, _TEXT.known_positions))),
        inverter_steps=_or(args.inverter_steps, _TEXT.inverter_steps),
        beams=_or(args.beams, _TEXT.beams),
        seeds=tuple(range(_or(args.seeds, 1))),
        train_tail=args.train_tail,
        private_ends=tuple(args.private_ends or ()),
        training_steps=_or(args.training_steps, _TEXT.training_steps),
    )


def picture_plan(args: argparse.Namespace) -> PicturePlan:
    """What to try with a pipeline.

    Raises:
        UsageError: the file of captions cannot be read, is no text, or holds none or too many.
    """
    from audit.pictures.captions import read_captions  # not before there are pictures: it is slow

    return PicturePlan(
        captions=None if args.captions is None else tuple(read_captions(args.captions)),
        steps=_or(args.steps, _PICTURES.steps),
        own_pictures=tuple(sorted(_or(args.own_pictures, _PICTURES.own_pictures))),
        candidates=args.candidates,
        search_rounds=_or(args.search_rounds, _PICTURES.search_rounds),
    )


def defence(text: str) -> Defence:
    """An argparse type: a kind, with a strength where it is noise."""
    kind, _, amount = text.partition(":")
    kinds: dict[str, Kind] = {known: known for known in get_args(Kind)}
    if kind not in kinds:
        raise argparse.ArgumentTypeError(f"unknown defence {kind!r}: one of {', '.join(kinds)}")
    graded = kind in {"gaussian", "d_chi", "int"}
    if graded != bool(amount):
        wanted = "needs a strength, as in gaussian:0.5" if graded else "has no strength"
        raise argparse.ArgumentTypeError(f"{kind} {wanted}")
    value = strength(amount) if graded else 0.0
    if kind == "int" and value not in range(1, 9):
        raise argparse.ArgumentTypeError("int has 1 to 8 bits")
    return Defence(kinds[kind], value)


def strength(text: str) -> float:
    """An argparse type: how strong a defence is."""
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from error
    if not 0 < value < _MOST_STRENGTH:
        raise argparse.ArgumentTypeError("a strength is more than 0")
    return value


def _count(group: argparse._ArgumentGroup, name: str, said: str, default: int) -> None:
    group.add_argument(name, type=positive, metavar="N", help=f"{said} (default {default})")


def _counts(group: argparse._ArgumentGroup, name: str, said: str, default: Sequence[int]) -> None:
    said = f"{said} (repeatable; default: {', '.join(map(str, default))})"
    group.add_argument(name, type=positive, action="append", metavar="N", help=said)


def _or(given: _Value | None, default: _Value) -> _Value:
    return default if given is None else given
