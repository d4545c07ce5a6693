"""Serve a model's trunk: the layers between the head and the tail that devices run themselves.

Only those layers are read and kept in memory. A device connects with a bundle that was exported
from the same checkpoint; text, token ids and logits stay with it, hidden states come here.

When ready, one line on stdout says where to connect: listening on ws://HOST:PORT. Logs go to
stderr. Ctrl-C or SIGTERM ends it cleanly: devices are told, and replay on whichever server they
find next.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import pathlib
import signal
import socket
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cloud.listener import bind, check_exposure, is_loopback
from cloud.tls import ServerTls
from cloud.tokens import TokenStore
from lambda_split.arguments import non_negative, positive
from lambda_split.errors import UsageError
from lambda_split.split import Split

if TYPE_CHECKING:
    from cloud.connection import Limits
    from cloud.engine import Engine
    from lambda_split.errors import InternalError
    from lambda_split.wire.handshake import ServerOffer

__all__ = ["add_arguments", "run"]

_logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help="a folder, a Hugging Face id, or 'demo'")
    model = parser.add_argument_group("model")
    model.add_argument(
        "--head-layers",
        type=non_negative,
        default=1,
        metavar="H",
        help="first layers that are left to the devices (default 1). Devices whose head has H "
        "layers or more and whose tail has T or more are served: they use a part of the trunk",
    )
    model.add_argument(
        "--tail-layers",
        type=non_negative,
        default=1,
        metavar="T",
        help="last layers that are left to the devices (default 1)",
    )
    model.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="PATH",
        help="merge this adapter (repeatable, in order); export must have had the same ones",
    )
    model.add_argument("--revision", help="branch, tag or commit of a Hugging Face id")
    model.add_argument(
        "--device", default="auto", help="auto, cpu, cuda or cuda:N (default auto: a GPU if any)"
    )
    model.add_argument(
        "--dtype",
        default="auto",
        choices=("auto", "float32", "float16", "bfloat16"),
        help="of weights and computation (default auto: float32 on CPUs, bfloat16 on GPUs)",
    )
    model.add_argument(
        "--threads", type=positive, metavar="N", help="CPU threads (default: torch decides)"
    )
    server = parser.add_argument_group("server")
    server.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    server.add_argument(
        "--port", type=_port, default=8765, help="port to listen on, 0 for a free one (%(default)s)"
    )
    server.add_argument(
        "--token-file",
        type=pathlib.Path,
        metavar="FILE",
        help="devices must present a token of which this file has the hash; 'lambda-split token' "
        "makes both",
    )
    server.add_argument(
        "--tls-cert",
        type=pathlib.Path,
        metavar="FILE",
        help="serve wss:// with this certificate chain (PEM)",
    )
    server.add_argument(
        "--tls-key", type=pathlib.Path, metavar="FILE", help="the certificate's private key (PEM)"
    )
    server.add_argument(
        "--insecure",
        action="store_true",
        help="listen beyond this machine without TLS or without tokens: whoever reaches the port "
        "can use it, and whoever is on the way can listen. Right behind a proxy that does both",
    )
    server.add_argument(
        "--max-sessions", type=positive, default=16, metavar="N", help="at a time (%(default)s)"
    )
    server.add_argument(
        "--max-positions",
        type=positive,
        metavar="N",
        help="of one session, prompt and reply together (default: as many as the model has)",
    )
    server.add_argument(
        "--kv-memory",
        type=positive,
        metavar="GB",
        help="memory for the keys and values of all sessions, each counted with all positions that "
        "its device asks for (default: unlimited)",
    )
    server.add_argument(
        "--log-level",
        default="info",
        choices=("debug", "info", "warning", "error"),
        help="how much to say on stderr (%(default)s); hidden states and tokens never appear",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command until it is told to stop.

    Raises:
        UsageError: the arguments make no sense.
        AddressUnavailable: it cannot listen there.
        CheckpointError: the model cannot be served.
        InternalError: the engine broke while serving.
    """
    _log_to_stderr(args.log_level)
    tokens = None if args.token_file is None else TokenStore(args.token_file)
    tls = _tls(args.tls_cert, args.tls_key)
    with contextlib.closing(bind(args.host, args.port)) as listener:
        check_exposure(
            args.host,
            loopback=is_loopback(listener),
            has_tls=tls is not None,
            has_tokens=tokens is not None,
            insecure=args.insecure,
        )
        # Before torch is loaded: OpenMP workers that spin while they wait would starve whatever
        # shares the machine, above all a device side on the same cores.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        engine, offer = _load(args)
        asyncio.run(_serve(engine, offer, listener, _limits(args), tokens=tokens, tls=tls))
    return 0


def _tls(cert: pathlib.Path | None, key: pathlib.Path | None) -> ServerTls | None:
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise UsageError("give both --tls-cert and --tls-key, or neither")
    return ServerTls(cert, key)


def _load(args: argparse.Namespace) -> tuple[Engine, ServerOffer]:
    import torch

    from cloud.loading import TrunkSettings, choose_device, choose_dtype, load_service
    from lambda_split.partition import open_checkpoint

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    device = choose_device(args.device)
    settings = TrunkSettings(
        split=Split(args.head_layers, args.tail_layers),
        device=device,
        dtype=choose_dtype(args.dtype, device),
        max_sessions=args.max_sessions,
        max_positions=args.max_positions,
        kv_memory=None if args.kv_memory is None else args.kv_memory * 10**9,
    )
    checkpoint = open_checkpoint(args.model, revision=args.revision, lora=args.lora)
    return load_service(checkpoint, settings)


def _limits(args: argparse.Namespace) -> Limits:
    from cloud.connection import Limits

    # Beyond those that have a session: some that are shaking hands, are refused or are closing.
    return Limits(max_connections=2 * args.max_sessions + 16)


async def _serve(
    engine: Engine,
    offer: ServerOffer,
    listener: socket.socket,
    limits: Limits,
    *,
    tokens: TokenStore | None,
    tls: ServerTls | None,
) -> None:
    from cloud.server import serve

    stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fail(fault: InternalError) -> None:
        if not stop.done():
            stop.set_exception(fault)

    with _signals(stop):
        async with serve(
            engine, offer, listener, limits=limits, tokens=tokens, tls=tls, on_fault=fail
        ) as url:
            sys.stdout.write(f"listening on {url}\n")
            sys.stdout.flush()
            await stop


@contextlib.contextmanager
def _signals(stop: asyncio.Future[None]) -> Iterator[None]:
    """Let SIGINT and SIGTERM set ``stop``; a second one ends the process at once."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)

    def handle(number: int) -> None:
        if stop.done():
            # Not by an exception: Python would wait for the engine's thread, in whatever it is.
            os._exit(128 + number)
        _logger.info("stopping on %s", signal.Signals(number).name)
        stop.set_result(None)

    try:
        for each in signals:
            loop.add_signal_handler(each, handle, each)
    except NotImplementedError:  # Windows' event loop: Ctrl-C raises KeyboardInterrupt there
        yield
        return
    try:
        yield
    finally:
        for each in signals:
            loop.remove_signal_handler(each)


def _log_to_stderr(level: str) -> None:
    logging.basicConfig(
        level=level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{value} is not between 0 and 65535")
    return value
