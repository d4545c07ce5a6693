"""Attack what crosses the wire, and say what can be seen of prompts and replies.

Runs real attacks on the hidden states that a device would send and get back for MODEL, with the
splits, codec and defences that you name: a search of the vocabulary with the open weights, learned
inverters that know nothing but pairs of hidden states and text, the public tail, replay. Beside
what each recovers stands what the setting costs. Writes results.json, report.md, plots and
report.html, a page that says for each kind of adversary what they learn.

Without MODEL: the shipped demo models, text and pictures, in less than five minutes.

Try:
  lambda-split audit
  lambda-split audit ./my-llama --text my-texts.txt --split 1,1 --split 4,4
  lambda-split audit ./my-llama --text chats.jsonl --defence gaussian:0.5 --defence gaussian:1
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from typing import get_args

from audit.defending.noise import Defence, Kind
from audit.text_plan import TextPlan, default_splits
from lambda_split.arguments import positive
from lambda_split.errors import OutputNotWritable
from lambda_split.split import Split
from lambda_split.wire.frames import Codec

__all__ = ["add_arguments", "run"]

_MOST_STRENGTH = 1e6
_DEMO_TEXT = pathlib.Path(__file__).parents[1] / "lambda_split/demo_models/text/heldout.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    default = TextPlan(splits=())
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="a local folder or a Hugging Face id; 'demo' or 'demo-image' for one of the shipped "
        "ones (default: both)",
    )
    parser.add_argument(
        "--text",
        type=pathlib.Path,
        metavar="FILE",
        help='what is attacked: a .txt, cut at blank lines, or a .jsonl with a "text" or '
        '"messages" a line (default: text that the model writes itself)',
    )
    parser.add_argument(
        "--split",
        action="append",
        type=split,
        metavar="H,T",
        help="layers of head and tail (repeatable; default: 1,1, then deeper ones). Defences and "
        "learned attacks are tried on the first",
    )
    parser.add_argument(
        "--codec", default="fp16", choices=[codec.label for codec in Codec], help="default fp16"
    )
    parser.add_argument(
        "--defence",
        action="append",
        type=defence,
        metavar="KIND[:STRENGTH]",
        help="what is done to the upload: permutation; gaussian:S or d_chi:S, S being the noise's "
        "length as a share of the hidden state's; int:BITS, rounding to 1 to 8 bits a value "
        "(repeatable; default: permutation and five strengths of gaussian; 'none' for none)",
    )
    parser.add_argument(
        "--seeds", type=positive, default=1, metavar="N", help="runs of each defence (default 1)"
    )
    parser.add_argument(
        "--texts",
        type=positive,
        default=default.prompts,
        metavar="N",
        help="prompts to attack; half as many where there is noise (default %(default)s)",
    )
    parser.add_argument(
        "--prompt-tokens", type=positive, default=default.prompt_tokens, metavar="N",
        help="the most tokens of a prompt (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--reply-tokens", type=positive, default=default.reply_tokens, metavar="N",
        help="tokens of a reply (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--known", type=positive, action="append", metavar="N",
        help="tokens of known text that learned attacks train on (repeatable; default: "
        + ", ".join(map(str, default.known_positions)) + ")",
    )  # fmt: skip
    parser.add_argument(
        "--inverter-steps", type=positive, default=default.inverter_steps, metavar="N",
        help="how long they train (default %(default)s steps; more find more)",
    )  # fmt: skip
    parser.add_argument(
        "--beams", type=positive, default=default.beams, metavar="N",
        help="prefixes that the search keeps where there is noise (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--train-tail",
        action="store_true",
        help="beside each noise, also try a tail that is trained to live with it",
    )
    parser.add_argument(
        "--private-ends", type=strength, action="append", default=[], metavar="S",
        help="also try a head and a tail trained to look unlike the public ones, S being the weight"
        " of hiding (repeatable; 1 hides from who does not know the method)",
    )  # fmt: skip
    parser.add_argument(
        "--training-steps", type=positive, default=default.training_steps, metavar="N",
        help="optimizer steps of such tails and ends (default %(default)s)",
    )  # fmt: skip
    parser.add_argument("--threads", type=positive, metavar="N", help="default: all cores")
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=pathlib.Path("lambda-split-audit"),
        metavar="DIR",
        help="where the report goes (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        UsageError: an argument makes no sense, or the text is too short.
        CheckpointError: the model cannot be read.
        OutputNotWritable: the report cannot be written.
    """
    import torch

    from audit.report import as_html, as_markdown
    from audit.results import write_results
    from audit.text_audit import audit_text
    from lambda_split.partition import open_checkpoint

    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputNotWritable(str(args.out), error.strerror or str(error)) from error
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    checkpoint = open_checkpoint(args.model or "demo")
    plan = _plan(args, checkpoint.layer_count)
    audit = audit_text(checkpoint, args.text or _DEMO_TEXT, plan, progress=_Bar())
    write_results(args.out / "results.json", audit)
    (args.out / "report.md").write_text(as_markdown(audit), encoding="utf-8")
    (args.out / "report.html").write_text(as_html(audit), encoding="utf-8")
    sys.stdout.write(as_markdown(audit))
    sys.stdout.write(f"\nreport: {args.out / 'report.html'}\n")
    return 0


def split(text: str) -> Split:
    """An argparse type: ``H,T``."""
    try:
        head, tail = (int(number) for number in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not two whole numbers, as 1,1") from error
    if min(head, tail) < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not two whole numbers, as 1,1")
    return Split(head, tail)


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


def _plan(args: argparse.Namespace, layer_count: int) -> TextPlan:
    default = TextPlan(splits=())
    codec = Codec.from_label(args.codec)
    defences = default.defences if args.defence is None else tuple(args.defence)
    return TextPlan(
        splits=tuple(args.split or default_splits(layer_count)),
        codec=Codec.FP16 if codec is None else codec,
        defences=tuple(one for one in defences if one.kind != "none"),
        prompts=args.texts,
        defended_prompts=max(1, args.texts // 2),
        prompt_tokens=args.prompt_tokens,
        reply_tokens=args.reply_tokens,
        known_positions=tuple(sorted(args.known or default.known_positions)),
        inverter_steps=args.inverter_steps,
        beams=args.beams,
        seeds=tuple(range(args.seeds)),
        train_tail=args.train_tail,
        private_ends=tuple(args.private_ends),
        training_steps=args.training_steps,
    )


class _Bar:
    """Progress on stderr, with the remaining time."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._bar = tqdm(
            total=100,
            file=sys.stderr,
            bar_format="{desc}: {percentage:.0f} % |{bar}| {elapsed}, {remaining} left",
        )

    def __call__(self, name: str, share: float) -> None:
        self._bar.set_description_str(name)
        self._bar.update(100 * share - self._bar.n)
        if share >= 1:
            self._bar.close()
