"""Measure what split inference costs: speed, latency, traffic and memory, over several links.

Compares the whole model on the device (edge-only), the whole model in the cloud (cloud-only) and
splits of it, each sending only new positions or everything again for each token. Without arguments
it does so with the shipped demo model, all by itself on this machine, in a few minutes: device,
link and server are processes of their own, and the link between them is emulated.

Each finished measurement is stored at once. Ctrl-C ends the benchmark; the same command goes on
where it was. In --out there are then results.json, report.md and plots.

Examples:
  lambda-split bench
  lambda-split bench ./my-model --weights int4 --dtype bfloat16 --out my-model-bench
  lambda-split bench --link loopback --link "rtt=80ms,up=20Mbit,down=50Mbit"
  lambda-split bench --bundle ./bundle --url ws://127.0.0.1:8765 --token-file device.token
"""

from __future__ import annotations

import argparse
import importlib.util
import pathlib
import sys
from collections.abc import Callable
from typing import TypeVar, get_args

from bench.cases import LINKS, MODES, Mode, parse_link
from bench.request import Request
from bench.settings import Dtype, WireCodec
from lambda_split.arguments import non_negative, positive
from lambda_split.bundle import WeightFormat
from lambda_split.commands.processes import ended_by_signals
from lambda_split.errors import MissingExtra

__all__ = ["add_arguments", "run"]

_Item = TypeVar("_Item")
_NEEDED = ("torch", "transformers", "onnxscript", "psutil", "matplotlib", "tqdm")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="a local folder with safetensors, a Hugging Face id, or 'demo' (default: demo)",
    )
    server = parser.add_argument_group("a server that is there already, instead of MODEL")
    server.add_argument(
        "--bundle", metavar="DIR", help="what 'export' wrote; only its own splits are measured"
    )
    server.add_argument(
        "--url",
        help="the trunk service, ws://HOST:PORT (for wss:// open a tunnel: the emulated link is "
        "another host than the certificate is for)",
    )
    server.add_argument("--token-file", metavar="FILE", help="file with the bearer token")
    what = parser.add_argument_group("what is measured")
    what.add_argument(
        "--modes",
        type=_listed(_mode),
        metavar="LIST",
        help=f"of {', '.join(MODES)}, with commas (default: all; with --bundle the last two)",
    )
    what.add_argument(
        "--splits",
        type=_listed(non_negative),
        metavar="LIST",
        help="layers on each side of the trunk, with commas; fewer where the model has fewer "
        "(default: 1,4,8; with --bundle its own splits)",
    )
    what.add_argument(
        "--link",
        action="append",
        metavar="LINK",
        help="a link, as rtt=80ms,jitter=5ms,up=20Mbit,down=50Mbit, or one of "
        + ", ".join(f"{link.name} ({link.description or 'as fast as it goes'})" for link in LINKS)
        + "; repeatable (default: these three). Predictions need loopback among them",
    )
    what.add_argument(
        "--prompt-tokens", type=positive, default=32, metavar="N", help="(default: %(default)s)"
    )
    what.add_argument(
        "--max-new-tokens",
        type=positive,
        default=32,
        metavar="N",
        help="tokens of each generation, at least 2; none ends it early (default: %(default)s)",
    )
    what.add_argument(
        "--repetitions",
        type=positive,
        default=5,
        metavar="N",
        help="generations of each case, after a short one that warms up (default: %(default)s)",
    )
    what.add_argument(
        "--max-context",
        type=non_negative,
        metavar="N",
        help="up to how many positions the context grows in the table of its cost; 0 leaves it out "
        "(default: the model's, at most 4096)",
    )
    how = parser.add_argument_group("how it runs")
    how.add_argument(
        "--weights",
        choices=get_args(WeightFormat),
        help="format of what runs on the device (default: int4; with --bundle its own)",
    )
    how.add_argument(
        "--dtype",
        choices=get_args(Dtype),
        help="of what runs in the cloud; auto is float32 on CPUs (default: auto; with --url what "
        "the server has)",
    )
    how.add_argument(
        "--codec",
        choices=get_args(WireCodec),
        default="fp16",
        help="how hidden states cross the wire (default: %(default)s)",
    )
    how.add_argument(
        "--threads",
        type=positive,
        metavar="N",
        help="CPU threads of the device, and of a server of this command's (default: each one's "
        "own choice)",
    )
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=pathlib.Path("lambda-split-bench"),
        metavar="DIR",
        help="where results and report go (default: %(default)s)",
    )
    parser.add_argument(
        "--restart", action="store_true", help="forget what --out holds and begin anew"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        MissingExtra: something that it needs is not installed.
        UsageError: the arguments make no sense, or --out holds results of something else.
        LambdaSplitError: the model cannot be read or exported, or a process failed.
    """
    request = _request(args)
    from bench.running import run_benchmark

    try:
        with ended_by_signals():
            shown, path = run_benchmark(request)
    except KeyboardInterrupt:
        without = " without --restart" if request.restart else ""
        sys.stderr.write(
            f"\nwhat is finished is stored: the same command{without} goes on from there\n"
        )
        raise
    sys.stdout.write(f"{shown}\nreport: {path}\n")
    return 0


def _request(args: argparse.Namespace) -> Request:
    for module in _NEEDED:
        if importlib.util.find_spec(module) is None:
            raise MissingExtra(module, "bench")
    return Request(
        model=args.model,
        bundle=args.bundle,
        url=args.url,
        token_file=args.token_file,
        modes=args.modes,
        depths=args.splits,
        links=tuple(dict.fromkeys(map(parse_link, args.link))) if args.link else LINKS,
        prompt_tokens=args.prompt_tokens,
        max_new_tokens=args.max_new_tokens,
        repetitions=args.repetitions,
        max_context=args.max_context,
        weights=args.weights,
        dtype=args.dtype,
        codec=args.codec,
        threads=args.threads,
        out=args.out,
        restart=args.restart,
    )


def _listed(item: Callable[[str], _Item]) -> Callable[[str], tuple[_Item, ...]]:
    """Several items with commas between them, for argparse."""

    def parse(text: str) -> tuple[_Item, ...]:
        return tuple(dict.fromkeys(item(part.strip()) for part in text.split(",")))

    return parse


def _mode(text: str) -> Mode:
    for mode in MODES:
        if text == mode:
            return mode
    raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(MODES)}")
