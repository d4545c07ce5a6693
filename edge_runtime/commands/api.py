"""Serve OpenAI's API on this device: head and tail here, the trunk at --url.

Programs that know OpenAI's API get --host and --port as their base URL. Prompts and answers stay on
this device; only hidden states cross the wire. Routes: /v1/chat/completions and /v1/completions
with a language model, /v1/images/generations with a text-to-image one, /v1/models, /health, and
/openapi.json, which describes them.

Each request has a session of its own on the trunk; a chat's next turn takes the one that still
holds it. --bundle and --url may be given twice, for a language model and one that makes pictures.

Web pages may not use it (--cors-origin allows one), and it answers to loopback's names only
(--allowed-host adds one).

Try:
  lambda-split api --bundle ./bundle --url ws://127.0.0.1:8765
  curl http://127.0.0.1:8000/v1/models
"""

from __future__ import annotations

import argparse
import functools
import logging
import pathlib
import sys
from typing import TYPE_CHECKING

from edge_runtime.commands.arguments import add_link_arguments
from edge_runtime.endpoint import Endpoint
from edge_runtime.generator import DEFAULT_MAX_POSITIONS, TextGenerator
from edge_runtime.graphs import RuntimeSettings
from edge_runtime.model import TextModel
from edge_runtime.pictures.generator import ImageGenerator
from edge_runtime.retry import RetryPolicy
from lambda_split.arguments import non_negative, positive, read_token_file, split_pair
from lambda_split.bundle_files import read_raw_manifest
from lambda_split.errors import UsageError
from lambda_split.image_bundle import IMAGE_KIND, load_image_bundle

if TYPE_CHECKING:
    from edge_runtime.sessions.served import PictureBundle, TextBundle

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--bundle", required=True, action="append", metavar="DIR", help="what 'export' wrote"
    )
    parser.add_argument(
        "--url",
        required=True,
        action="append",
        help="the bundle's trunk service, ws://HOST:PORT or wss://HOST:PORT",
    )
    server = parser.add_argument_group("server")
    server.add_argument(
        "--host", default="127.0.0.1", help="where to listen (default: this machine only)"
    )
    server.add_argument(
        "--port",
        type=non_negative,
        default=8000,
        metavar="N",
        help="default 8000; 0: any that is free",
    )
    server.add_argument(
        "--api-key-file",
        metavar="FILE",
        help="file with the key that requests must carry (default: none is asked for)",
    )
    server.add_argument(
        "--insecure", action="store_true", help="serve other machines without an API key"
    )
    server.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="answer to this host name, too (repeatable)",
    )
    server.add_argument(
        "--cors-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="let this web page use it, such as http://localhost:3000 (repeatable)",
    )
    server.add_argument(
        "--max-sessions", type=positive, default=4, metavar="N", help="requests at once (default 4)"
    )
    server.add_argument(
        "--max-waiting",
        type=non_negative,
        default=32,
        metavar="N",
        help="more requests that may wait; others get status 429 (default 32)",
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
    link = add_link_arguments(parser)
    link.add_argument(
        "--give-up-after",
        type=positive,
        default=60,
        metavar="SECONDS",
        help="fail a request when its trunk has been away for so long (default 60)",
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
    parser.add_argument(
        "--log-level", default="warning", choices=("debug", "info", "warning", "error")
    )


def run(args: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        UsageError: not as many addresses as bundles, or others can connect without a key.
        AddressUnavailable: nothing can listen there.
        BundleError: a bundle is missing, altered or malformed.
    """
    # Here, so that --help needs no extra.
    from edge_runtime.api.app import make_app
    from edge_runtime.api.guard import Access
    from edge_runtime.api.serving import check_exposure, listen, serve_app
    from edge_runtime.sessions.pool import PoolLimits

    if len(args.bundle) != len(args.url):
        raise UsageError("give an --url for each --bundle, in the same order")
    logging.basicConfig(level=args.log_level.upper(), stream=sys.stderr)
    key = None
    if args.api_key_file is not None:
        key = read_token_file(args.api_key_file, "--api-key-file")
    with listen(args.host, args.port) as listener:
        check_exposure(listener, args.host, has_key=key is not None, insecure=args.insecure)
        access = Access(tuple(args.allowed_host), tuple(args.cors_origin), key)
        limits = PoolLimits(args.max_sessions, args.max_waiting, args.wait, args.idle)
        sources = [_source(args, *pair) for pair in zip(args.bundle, args.url, strict=True)]
        serve_app(make_app(sources, limits, access), listener)
    return 0


def _source(args: argparse.Namespace, folder: str, url: str) -> TextBundle | PictureBundle:
    """A bundle, and how sessions on its trunk are opened."""
    from edge_runtime.sessions.served import PictureBundle, TextBundle

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
