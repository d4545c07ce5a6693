"""What the local servers, ``api`` and ``ui``, have in common: bundles, their trunks, sessions."""

from __future__ import annotations

import argparse
import functools
import pathlib

from edge_runtime.commands.arguments import add_link_arguments
from edge_runtime.endpoint import Endpoint
from edge_runtime.generator import DEFAULT_MAX_POSITIONS, TextGenerator
from edge_runtime.graphs import RuntimeSettings
from edge_runtime.model import TextModel
from edge_runtime.pictures.generator import ImageGenerator
from edge_runtime.retry import RetryPolicy
from edge_runtime.sessions.pool import PoolLimits
from edge_runtime.sessions.served import PictureBundle, TextBundle
from lambda_split.arguments import non_negative, positive, read_token_file, split_pair
from lambda_split.bundle_files import read_raw_manifest
from lambda_split.errors import UsageError
from lambda_split.image_bundle import IMAGE_KIND, load_image_bundle

__all__ = [
    "add_bundle_arguments",
    "add_listening_arguments",
    "add_pool_arguments",
    "add_source_arguments",
    "pool_limits",
    "read_sources",
]


def add_bundle_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is served, and from where."""
    parser.add_argument(
        "--bundle", required=True, action="append", metavar="DIR", help="what 'export' wrote"
    )
    parser.add_argument(
        "--url",
        required=True,
        action="append",
        help="the bundle's trunk service, ws://HOST:PORT or wss://HOST:PORT",
    )


def add_listening_arguments(server: argparse._ArgumentGroup, *, port: int, without: str) -> None:
    """Declare where the server listens, and for whom.

    Args:
        server: The group to add to.
        port: The usual one.
        without: What it may be told to go without, for the help.
    """
    server.add_argument(
        "--host", default="127.0.0.1", help="where to listen (default: this machine only)"
    )
    server.add_argument(
        "--port",
        type=non_negative,
        default=port,
        metavar="N",
        help="default %(default)s; 0: any that is free",
    )
    server.add_argument(
        "--insecure", action="store_true", help=f"serve other machines without {without}"
    )
    server.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="answer to this host name or address, too (repeatable)",
    )


def add_pool_arguments(server: argparse._ArgumentGroup) -> None:
    """Declare how many requests are worked on at once."""
    server.add_argument(
        "--max-sessions", type=positive, default=4, metavar="N", help="requests at once (default 4)"
    )
    server.add_argument(
        "--max-waiting",
        type=non_negative,
        default=32,
        metavar="N",
        help="more requests that may wait; others are refused, with status 429 (default 32)",
    )
    server.add_argument(
        "--wait", type=positive, default=60, metavar="SECONDS", help="... for so long (default 60)"
    )
    server.add_argument(
        "--idle",
        type=positive,
        default=300,
        metavar="SECONDS",
        help="close a session that was not used for so long (default 300)",
    )


def add_source_arguments(parser: argparse.ArgumentParser, *, give_up_after_s: int) -> None:
    """Declare how sessions are opened.

    Args:
        parser: What to add to.
        give_up_after_s: The usual time after which a trunk that is away is given up.
    """
    link = add_link_arguments(parser)
    link.add_argument(
        "--give-up-after",
        type=positive,
        default=give_up_after_s,
        metavar="SECONDS",
        help="fail a request when its trunk has been away for so long (default %(default)s)",
    )
    device = parser.add_argument_group("device")
    device.add_argument(
        "--split",
        type=split_pair,
        metavar="H,T",
        help="run this one of the bundle's splits (default: of several each session draws one)",
    )
    device.add_argument("--threads", type=positive, metavar="N", help="CPU threads")
    device.add_argument(
        "--max-positions",
        type=positive,
        metavar="N",
        help="tokens that prompt and answer may take together (default: at most 4096)",
    )


def pool_limits(args: argparse.Namespace) -> PoolLimits:
    """What :func:`add_pool_arguments` was given."""
    return PoolLimits(args.max_sessions, args.max_waiting, args.wait, args.idle)


def read_sources(args: argparse.Namespace) -> list[TextBundle | PictureBundle]:
    """Load what is served.

    Raises:
        UsageError: not as many addresses as bundles, or an option that makes no sense with one.
        BundleError: a bundle is missing, altered or malformed.
    """
    if len(args.bundle) != len(args.url):
        raise UsageError("give an --url for each --bundle, in the same order")
    sources = [_source(args, *pair) for pair in zip(args.bundle, args.url, strict=True)]
    if not any(isinstance(source, TextBundle) for source in sources):
        for option, value in (("--split", args.split), ("--max-positions", args.max_positions)):
            if value is not None:
                raise UsageError(f"{option} is for language models, and no --bundle is one")
    return sources


def _source(args: argparse.Namespace, folder: str, url: str) -> TextBundle | PictureBundle:
    """A bundle, and how sessions on its trunk are opened."""
    token = None if args.token_file is None else read_token_file(args.token_file)
    link = {
        "token": token,
        "ca_file": args.ca_file,
        "retry": RetryPolicy(give_up_after_s=args.give_up_after),
    }
    Endpoint(url, token, ca_file=args.ca_file)  # a wrong address is told now, not by each request
    runtime = RuntimeSettings(threads=args.threads)
    if read_raw_manifest(pathlib.Path(folder)).kind == IMAGE_KIND:
        pictures = load_image_bundle(folder)
        return PictureBundle(
            pictures,
            functools.partial(ImageGenerator.open, pictures, url, runtime=runtime, **link),
        )
    model = TextModel.load(folder, runtime=runtime)
    geometry = model.bundle.manifest.geometry
    for split in model.bundle.manifest.choices if args.split is None else (args.split,):
        model.graphs(split)  # so that no request has to wait for them, or meets a broken one
    positions = args.max_positions or min(geometry.max_positions, DEFAULT_MAX_POSITIONS)
    if positions > geometry.max_positions:
        most = geometry.max_positions
        raise UsageError(f"--max-positions must be between 1 and the model's {most}")
    return TextBundle(
        model,
        functools.partial(
            TextGenerator.open,
            model,
            url,
            codec=args.codec,
            split=args.split,
            max_positions=positions,
            **link,
        ),
        positions,
    )
