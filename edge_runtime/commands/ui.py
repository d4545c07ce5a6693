"""Serve a web page on this device: a chat and pictures, and what leaves the device for them.

Head and tail run here, the trunk at --url. What you write and what is answered stays on this
device; beside it the page shows what crosses instead: hidden states, as a heat map, with bytes,
milliseconds in each part, and where the model is cut.

The page loads nothing from other hosts and works without the internet; the browser is told to
refuse what other hosts offer. It answers on this machine only: for a phone in the same network
give --host, --allowed-host and --password-file.

--bundle and --url may be given twice, for a language model and one that makes pictures.

Try:
  lambda-split ui --bundle ./bundle --url ws://127.0.0.1:8765
"""

from __future__ import annotations

import argparse
import logging
import os
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
    add_listening_arguments(server, port=7860, without="a password")
    server.add_argument(
        "--password-file",
        metavar="FILE",
        help="file with the password that the browser asks for (default: none is asked for)",
    )
    add_pool_arguments(server)
    add_source_arguments(parser, give_up_after_s=300)
    parser.add_argument(
        "--log-level", default="warning", choices=("debug", "info", "warning", "error")
    )


def run(args: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        UsageError: not as many addresses as bundles, two bundles of a kind, a host that no request
            has, or others can connect without a password.
        AddressUnavailable: nothing can listen there.
        BundleError: a bundle is missing, altered or malformed.
    """
    # Gradio reports its use to its makers unless this is set before it is imported; what it is
    # built on asks as well.
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1")
    # Here, so that --help needs no extra.
    from edge_runtime.api.names import allowed_host
    from edge_runtime.api.serving import check_exposure, listen, serve_app
    from edge_runtime.ui.app import make_page_app

    logging.basicConfig(level=args.log_level.upper(), stream=sys.stderr)
    password = None
    if args.password_file is not None:
        password = read_token_file(args.password_file, "--password-file")
    hosts = tuple(map(allowed_host, args.allowed_host))
    with listen(args.host, args.port) as listener:
        check_exposure(
            listener,
            args.host,
            has_key=password is not None,
            insecure=args.insecure,
            option="--password-file",
        )
        page = make_page_app(
            read_sources(args),
            pool_limits(args),
            codec=args.codec,
            hosts=hosts,
            password=password,
        )
        serve_app(page.app, listener, path="/", on_end=page.end)
    return 0
