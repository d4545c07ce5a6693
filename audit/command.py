"""Attack what crosses the wire, and say what can be seen of prompts, replies and pictures.

Runs real attacks on what a device would send and get back for MODEL. For a language model, with the
splits, codec and defences that you name: a search of the vocabulary with the open weights, learned
inverters that know nothing but pairs of hidden states and text, the public tail, replay. For a
text-to-image pipeline, with both splits and several formats: a search for the prompt through the
public text encoders, the picture with the public VAE, a learned map and a search. Beside what each
recovers stands what the setting costs. Writes results.json, report.md, plots and report.html, a
page that says for each kind of adversary what they learn.

Without MODEL: the shipped demo models, text and pictures, in less than five minutes. Ctrl-C ends an
audit of texts early, with a report of what was found.

Try:
  lambda-split audit
  lambda-split audit ./my-llama --text my-texts.txt --split 1,1 --split 4,4
  lambda-split audit ./my-llama --bundle ./bundle --text chats.jsonl
  lambda-split audit ./my-llama --text chats.jsonl --defence gaussian:0.5 --defence gaussian:1
  lambda-split audit demo-image --captions my-captions.txt --steps 25
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from audit.arguments import (
    add_picture_arguments,
    add_text_arguments,
    picture_plan,
    refuse_unused,
    text_plan,
)
from lambda_split.arguments import positive
from lambda_split.errors import OutputNotWritable, UsageError

if TYPE_CHECKING:  # the help needs no torch
    from audit.picture_plan import PicturePlan
    from audit.picture_results import PictureResults
    from audit.results import TextAudit

__all__ = ["add_arguments", "run"]

_ALL_PICTURES = "all attacks on pictures"
_DEMO_TEXT = pathlib.Path(__file__).parents[1] / "lambda_split/demo_models/text/heldout.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="a language model or a text-to-image pipeline: a local folder or a Hugging Face id; "
        "'demo' or 'demo-image' for one of the shipped ones (default: both)",
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="default: all cores")
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=pathlib.Path("lambda-split-audit"),
        metavar="DIR",
        help="where the report goes (default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a report in --out")
    add_text_arguments(parser)
    add_picture_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        UsageError: an argument makes no sense, --out holds a report, the text is too short, or
            the bundle was cut from another model.
        BundleError: the bundle is missing, altered or malformed.
        CheckpointError: the model cannot be read.
        OutputNotWritable: the report cannot be written.
    """
    import torch

    from audit.reporting.markdown import as_markdown
    from audit.reporting.writing import write_report
    from audit.results_file import AuditResults
    from lambda_split.partition.sources import DEMO_IMAGE, is_pipeline

    pipeline = args.model is not None and is_pipeline(args.model)
    with_text, with_pictures = not pipeline, pipeline or args.model is None
    refuse_unused(args, text=with_text, pictures=with_pictures)
    plan = picture_plan(args) if with_pictures else None  # what is wrong with it is told at once
    if os.path.lexists(args.out / "results.json") and not args.overwrite:
        raise UsageError(f"{args.out} holds a report already: name another --out, or --overwrite")
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    with _report_folder(args.out):
        text = _audit_text(args) if with_text else None
        stopped = text is not None and bool(text.left_out)
        if text is not None and stopped and plan is not None:
            text = msgspec.structs.replace(text, left_out=(*text.left_out, _ALL_PICTURES))
        if plan is None or stopped:
            results = AuditResults(text=text)
        else:
            if text is not None:  # it took minutes: it is there whatever becomes of the pictures
                write_report(args.out, AuditResults(text=text))
            pictures = _audit_pictures(args.model or DEMO_IMAGE, plan)
            results = AuditResults(text=text, pictures=pictures)
        try:
            page = write_report(args.out, results)
        except OutputNotWritable:  # the disk has filled up meanwhile: what took hours is not lost
            sys.stdout.write(as_markdown(results))
            raise
    sys.stdout.write(as_markdown(results))
    sys.stdout.write(f"\nreport: {page}\n")
    return 130 if stopped else 0


@contextlib.contextmanager
def _report_folder(folder: pathlib.Path) -> Iterator[None]:
    """Make a folder, before hours of work are for nothing; gone again where it stays empty.

    Raises:
        OutputNotWritable: it cannot be made, or nothing in it.
    """
    made = [one for one in (folder, *folder.parents) if not os.path.lexists(one)]
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass  # it can be written, too
        except OSError as error:
            raise OutputNotWritable(str(folder), error.strerror or str(error)) from error
        yield
    finally:
        with contextlib.suppress(OSError):  # it is not empty
            for one in made:
                one.rmdir()


def _audit_text(args: argparse.Namespace) -> TextAudit:
    from audit.device_ends import open_graphs
    from audit.text_audit import audit_text
    from lambda_split.bundle import load_bundle
    from lambda_split.partition import open_checkpoint

    checkpoint = open_checkpoint(args.model or "demo")
    bundle = None if args.bundle is None else load_bundle(args.bundle)
    choices = None if bundle is None else bundle.manifest.choices
    plan = text_plan(args, checkpoint.layer_count, choices)
    device = (
        None
        if bundle is None
        else open_graphs(bundle, checkpoint.fingerprint, plan.splits, args.threads)
    )
    return audit_text(checkpoint, args.text or _DEMO_TEXT, plan, device=device, progress=_Bar())


def _audit_pictures(model: str, plan: PicturePlan) -> PictureResults:
    from audit.picture_results import picture_results
    from audit.pictures import audit_pictures
    from export.progress import progress_on_stderr

    progress = progress_on_stderr()
    try:
        found = audit_pictures(
            model,
            captions=plan.captions,
            steps=plan.steps,
            pairs=plan.own_pictures,
            limit=plan.candidates,
            rounds=plan.search_rounds,
            progress=progress,
        )
    finally:
        progress.close()
    return picture_results(found)


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
