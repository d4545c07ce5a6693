"""Arguments that ``generate`` and ``chat`` share, and what they mean to the library."""

from __future__ import annotations

import argparse
from dataclasses import replace

from edge_runtime.generator import TextGenerator
from edge_runtime.graphs import RuntimeSettings
from edge_runtime.sampling import SamplingSettings
from lambda_split.arguments import non_negative, positive, read_token_file, split_pair

__all__ = ["add_link_arguments", "add_session_arguments", "open_generator", "sampling_settings"]

_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")


def add_link_arguments(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Declare how hidden states cross, and what the trunk service is shown and trusted by.

    Returns:
        The group, for what else belongs to it.
    """
    link = parser.add_argument_group("link")
    link.add_argument(
        "--codec",
        default="fp16",
        choices=("fp16", "bf16", "fp32"),
        help="how hidden states cross the wire (default: fp16)",
    )
    link.add_argument("--token-file", metavar="FILE", help="file with the bearer token")
    link.add_argument(
        "--ca-file",
        metavar="FILE",
        help="trust the issuers in this file (PEM), too: for a server with a private certificate",
    )
    return link


def add_session_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare bundle, server and sampling arguments."""
    parser.add_argument("--bundle", required=True, metavar="DIR", help="what 'export' wrote")
    parser.add_argument(
        "--url", required=True, help="the trunk service, ws://HOST:PORT or wss://HOST:PORT"
    )
    add_link_arguments(parser)
    device = parser.add_argument_group("device")
    device.add_argument(
        "--split",
        type=split_pair,
        metavar="H,T",
        help="run this one of the bundle's splits: H head and T tail layers (default: of several "
        "one is drawn at random)",
    )
    device.add_argument(
        "--threads", type=positive, metavar="N", help="CPU threads for head and tail"
    )
    device.add_argument(
        "--max-positions",
        type=positive,
        metavar="N",
        help="tokens that prompt and answers may take together (default: at most 4096)",
    )
    sampling = parser.add_argument_group("sampling (the bundle's own settings where not given)")
    sampling.add_argument(
        "--max-new-tokens", type=positive, default=128, metavar="N", help="default 128"
    )
    sampling.add_argument("--temperature", type=float, metavar="T", help="0 is greedy")
    sampling.add_argument("--top-k", type=non_negative, metavar="K", help="0 is off")
    sampling.add_argument("--top-p", type=float, metavar="P", help="1 is off")
    sampling.add_argument("--min-p", type=float, metavar="P", help="0 is off")
    sampling.add_argument("--repetition-penalty", type=float, metavar="R", help="1 is off")
    sampling.add_argument(
        "--seed", type=non_negative, metavar="N", help="the same seed, the same text"
    )
    sampling.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="stop here (repeatable)"
    )


def open_generator(args: argparse.Namespace) -> TextGenerator:
    """Load the bundle and connect."""
    return TextGenerator.open(
        args.bundle,
        args.url,
        token=None if args.token_file is None else read_token_file(args.token_file),
        ca_file=args.ca_file,
        codec=args.codec,
        split=args.split,
        max_positions=args.max_positions,
        runtime=RuntimeSettings(threads=args.threads),
    )


def sampling_settings(args: argparse.Namespace, defaults: SamplingSettings) -> SamplingSettings:
    """The bundle's settings with what was given on the command line instead."""
    given = {name: getattr(args, name) for name in _SAMPLING}
    return replace(defaults, **{name: value for name, value in given.items() if value is not None})
