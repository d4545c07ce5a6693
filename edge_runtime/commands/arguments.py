"""Arguments that ``generate`` and ``chat`` share, and what they mean to the library."""

from __future__ import annotations

import argparse
import pathlib
from dataclasses import replace

from edge_runtime.generator import TextGenerator
from edge_runtime.graphs import RuntimeSettings
from edge_runtime.sampling import SamplingSettings
from lambda_split.errors import UsageError

__all__ = ["add_session_arguments", "open_generator", "sampling_settings"]

_MAX_TOKEN_FILE_BYTES = 4096
_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")


def add_session_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare bundle, server and sampling arguments."""
    parser.add_argument("--bundle", required=True, metavar="DIR", help="what 'export' wrote")
    parser.add_argument(
        "--url", required=True, help="the trunk service, ws://HOST:PORT or wss://HOST:PORT"
    )
    link = parser.add_argument_group("link")
    link.add_argument(
        "--codec",
        default="fp16",
        choices=("fp16", "bf16", "fp32"),
        help="how hidden states cross the wire (default: fp16)",
    )
    link.add_argument("--token-file", metavar="FILE", help="file with the bearer token")
    device = parser.add_argument_group("device")
    device.add_argument("--threads", type=int, metavar="N", help="CPU threads for head and tail")
    device.add_argument(
        "--max-positions",
        type=int,
        metavar="N",
        help="tokens that prompt and answers may take together (default: at most 4096)",
    )
    sampling = parser.add_argument_group("sampling (the bundle's own settings where not given)")
    sampling.add_argument(
        "--max-new-tokens", type=int, default=128, metavar="N", help="default 128"
    )
    sampling.add_argument("--temperature", type=float, metavar="T", help="0 is greedy")
    sampling.add_argument("--top-k", type=int, metavar="K", help="0 is off")
    sampling.add_argument("--top-p", type=float, metavar="P", help="1 is off")
    sampling.add_argument("--min-p", type=float, metavar="P", help="0 is off")
    sampling.add_argument("--repetition-penalty", type=float, metavar="R", help="1 is off")
    sampling.add_argument("--seed", type=int, metavar="N", help="the same seed, the same text")
    sampling.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="stop here (repeatable)"
    )


def open_generator(args: argparse.Namespace) -> TextGenerator:
    """Load the bundle and connect."""
    return TextGenerator.open(
        args.bundle,
        args.url,
        token=_read_token(args.token_file),
        codec=args.codec,
        max_positions=args.max_positions,
        runtime=RuntimeSettings(threads=args.threads),
    )


def sampling_settings(args: argparse.Namespace, defaults: SamplingSettings) -> SamplingSettings:
    """The bundle's settings with what was given on the command line instead."""
    given = {name: getattr(args, name) for name in _SAMPLING}
    return replace(defaults, **{name: value for name, value in given.items() if value is not None})


def _read_token(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        with pathlib.Path(path).open("rb") as file:
            raw = file.read(_MAX_TOKEN_FILE_BYTES + 1)
        token = raw.decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the token file {path}: {error}") from error
    if not token or len(raw) > _MAX_TOKEN_FILE_BYTES or not token.isprintable() or " " in token:
        raise UsageError(f"the token file {path} must hold one token and nothing else")
    return token
