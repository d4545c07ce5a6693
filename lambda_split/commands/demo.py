"""The whole path on the shipped models, in one go, on this machine: a chat, then a picture.

Serves the demo models' trunks in processes of their own, exports what the device runs, and uses it:
head and tail, or text encoders, solver and decoder, run here under onnxruntime without torch, and
only hidden states, or predicted noise, cross the socket between.

The picture is written to --out, and shown where the terminal has the colours for it. With --ui both
models wait on a web page instead, until Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import pathlib
import sys
import tempfile

from lambda_split.arguments import check_png_name, non_negative, positive
from lambda_split.commands.processes import address_of, ended_by_signals, export, serving
from lambda_split.errors import MissingExtra, OutputNotWritable, UsageError

__all__ = ["add_arguments", "run"]

_QUESTIONS = ("Tell me a story about a fox and a lantern.", "What did the fox find?")
_PICTURE = "a red circle on the left and a blue square on the right, on a white background"
_STEPS = 20
_SEED = 1
_PAGE_PORT = 7860
_PAGE_HOST = "127.0.0.1"
_NEEDED = ("torch", "transformers", "diffusers", "onnxscript")
# Formats of convolutions end with int8.
_PICTURE_WEIGHTS = {"int4": "int8"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--only", choices=("text", "picture"), help="one of the two (default: both)"
    )
    parser.add_argument(
        "--prompt", action="append", metavar="TEXT", help="a chat turn of your own (repeatable)"
    )
    parser.add_argument(
        "--picture", default=_PICTURE, metavar="TEXT", help="what to show (default: %(default)s)"
    )
    parser.add_argument(
        "--out",
        default="lambda-split-demo.png",
        metavar="FILE",
        type=pathlib.Path,
        help="where the picture goes (default: %(default)s)",
    )
    parser.add_argument(
        "--weights",
        default="int4",
        choices=("fp32", "fp16", "int8", "int4"),
        help="format of what the device runs (default: int4, of pictures then int8)",
    )
    parser.add_argument(
        "--max-new-tokens", type=positive, default=200, metavar="N", help="default 200"
    )
    parser.add_argument(
        "--ui",
        nargs="?",
        const=_PAGE_PORT,
        type=non_negative,
        metavar="PORT",
        help=f"serve a web page with both, on this port (default {_PAGE_PORT}; 0: any free one)",
    )
    parser.add_argument(
        "--keep", metavar="DIR", help="keep the bundles in this new folder, as text/ and image/"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        MissingExtra: exporting or serving is not installed.
        UsageError: --keep names something that exists, or the picture's name does not end with
            .png.
        OutputNotWritable: there is no folder for the picture, or none can be made for the bundles;
            told before anything is done.
        ProcessFailed: export or server failed.
    """
    for module in _NEEDED:
        if importlib.util.find_spec(module) is None:
            raise MissingExtra(module, "export")
    if args.ui is not None and importlib.util.find_spec("gradio") is None:
        raise MissingExtra("gradio", "ui")
    if args.keep is not None and pathlib.Path(args.keep).exists():
        raise UsageError(f"{args.keep} exists: --keep wants a new folder")
    check_png_name(args.out)
    if not args.out.parent.is_dir():
        raise OutputNotWritable(str(args.out), "there is no such folder")
    with contextlib.ExitStack() as stack:
        stack.enter_context(ended_by_signals())
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if args.keep is not None:
            folder = pathlib.Path(args.keep)
            try:
                folder.mkdir(parents=True)
            except OSError as error:
                raise OutputNotWritable(args.keep, error.strerror or str(error)) from error
        if args.ui is not None:
            _show_page(folder, args)
            return 0
        if args.only != "picture":
            _show_text(folder / "text", args)
        if args.only != "text":
            _show_picture(folder / "image", args)
    return 0


def _show_text(bundle: pathlib.Path, args: argparse.Namespace) -> None:
    _say("text 1/3: serving the trunk of the demo model in a process of its own")
    with serving("demo") as server:
        _say(f"text 2/3: exporting head and tail as ONNX, {args.weights} weights")
        export("demo", str(bundle), args.weights)
        _say("text 3/3: chatting: head and tail here, the trunk there")
        _chat(bundle, address_of(server), args)


def _chat(bundle: pathlib.Path, url: str, args: argparse.Namespace) -> None:
    # The one place where shared code runs the device side: a demo shows all of it.
    from edge_runtime import GenerationStats, Message, TextGenerator
    from edge_runtime.terminal.visible import visible_on

    messages: list[Message] = []
    stats: list[GenerationStats] = []
    with TextGenerator.open(bundle, url) as generator:
        for question in args.prompt or _QUESTIONS:
            sys.stdout.write(f"\n> {question}\n")
            messages.append(Message("user", question))
            stream = generator.stream(messages, max_new_tokens=args.max_new_tokens)
            for piece in stream:
                sys.stdout.write(visible_on(sys.stdout, piece))
                sys.stdout.flush()
            sys.stdout.write("\n")
            messages.append(Message("assistant", stream.result.text))
            stats.append(stream.result.stats)
    for number, turn in enumerate(stats, 1):
        sys.stdout.write(f"\nturn {number}: {turn.summary()}\n")
    sys.stdout.write("\n")
    sys.stdout.flush()


def _show_picture(bundle: pathlib.Path, args: argparse.Namespace) -> None:
    weights = _PICTURE_WEIGHTS.get(args.weights, args.weights)
    _say("picture 1/3: serving the denoiser of the demo image model")
    with serving("demo-image") as server:
        _say(f"picture 2/3: exporting text encoders and decoder as ONNX, {weights} weights")
        export("demo-image", str(bundle), weights)
        _say("picture 3/3: painting: prompt, solver and decoder here, the denoiser there")
        _paint(bundle, address_of(server), args)


def _paint(bundle: pathlib.Path, url: str, args: argparse.Namespace) -> None:
    from edge_runtime import ImageGenerator, PictureSpec, write_png
    from edge_runtime.pictures.terminal import as_text, columns_on
    from edge_runtime.terminal.colours import shows_colours

    spec = PictureSpec(steps=_STEPS, seed=_SEED)
    with ImageGenerator.open(bundle, url) as painter:
        result = painter.generate(args.picture, spec=spec)
    write_png(args.out, result.images[0], {"Prompt": args.picture})
    sys.stdout.write(f"\n> {args.picture}\n")
    if shows_colours(sys.stdout):
        sys.stdout.write(as_text(result.images[0], columns_on(sys.stdout)))
    sys.stdout.write(f"{args.out}\n\npicture: {result.stats.summary()}\n")
    sys.stdout.flush()


def _show_page(folder: pathlib.Path, args: argparse.Namespace) -> None:
    """Serve a page with the models until it is ended."""
    from edge_runtime.api.serving import listen
    from edge_runtime.commands import ui

    listen(_PAGE_HOST, args.ui).close()  # a port that is taken is told before all the work
    models = {"text": "demo", "picture": "demo-image"}
    with contextlib.ExitStack() as stack:
        _say("1/3: serving the trunks, each in a process of its own")
        wanted = [one for one in models if args.only in {None, one}]
        servers = {one: stack.enter_context(serving(models[one])) for one in wanted}
        words = ["--host", _PAGE_HOST, "--port", str(args.ui)]
        for one, server in servers.items():
            weights = (
                args.weights if one == "text" else _PICTURE_WEIGHTS.get(args.weights, args.weights)
            )
            _say(f"2/3: exporting what this device runs of {models[one]}, {weights} weights")
            export(models[one], str(folder / one), weights)
            words += ["--bundle", str(folder / one), "--url", address_of(server)]
        _say("3/3: the page, for a browser on this machine; Ctrl-C ends it")
        parser = argparse.ArgumentParser()
        ui.add_arguments(parser)
        ui.run(parser.parse_args(words))


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
