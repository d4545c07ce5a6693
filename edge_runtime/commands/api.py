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
import logging
import sys

from edge_runtime.commands.sources import (
    add_bundle_arguments,
    add_listening_arguments,
    add_pool_arguments,
    add_source_arguments,
    pool_limits,
    read_sources,
)
from lambda_split.arguments import read_token_file

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_bundle_arguments(parser)
    server = parser.add_argument_group("server")
    add_listening_arguments(server, port=8000, without="an API key")
    server.add_argument(
        "--api-key-file",
        metavar="FILE",
        help="file with the key that requests must carry (default: none is asked for)",
    )
    server.add_argument(
        "--cors-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="let this web page use it, such as http://localhost:3000 (repeatable)",
    )
    add_pool_arguments(server)
    add_source_arguments(parser, give_up_after_s=60)
    parser.add_argument(
        "--log-level", default="warning", choices=("debug", "info", "warning", "error")
    )


def run(args: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        UsageError: not as many addresses as bundles, a host or origin that no request has, or
            others can connect without a key.
        AddressUnavailable: nothing can listen there.
        BundleError: a bundle is missing, altered or malformed.
    """
    # Here, so that --help needs no extra.
    from edge_runtime.api.app import make_app
    from edge_runtime.api.guard import Access
    from edge_runtime.api.names import allowed_host, page_origin
    from edge_runtime.api.serving import check_exposure, listen, serve_app

    logging.basicConfig(level=args.log_level.upper(), stream=sys.stderr)
    key = None
    if args.api_key_file is not None:
        key = read_token_file(args.api_key_file, "--api-key-file")
    hosts = tuple(map(allowed_host, args.allowed_host))
    origins = tuple(map(page_origin, args.cors_origin))
    with listen(args.host, args.port) as listener:
        check_exposure(listener, args.host, has_key=key is not None, insecure=args.insecure)
        app = make_app(read_sources(args), pool_limits(args), Access(hosts, origins, key))
        serve_app(app, listener, path="/v1")
    return 0
