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
import stat
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cloud.listener import bind, is_loopback
from lambda_split.errors import UsageError
from lambda_split.split import Split

if TYPE_CHECKING:
    from cloud.engine import Engine
    from lambda_split.wire.handshake import ServerOffer

__all__ = ["add_arguments", "run"]

_logger = logging.getLogger(__name__)
_MAX_TOKEN_BYTES = 4096


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help="a folder, a Hugging Face id, or 'demo'")
    model = parser.add_argument_group("model")
    model.add_argument(
        "--head-layers",
        type=_whole,
        default=1,
        metavar="H",
        help="first layers that are left to the devices (default 1). Devices whose head has H "
        "layers or more and whose tail has T or more are served: they use a part of the trunk",
    )
    model.add_argument(
        "--tail-layers",
        type=_whole,
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
        "--threads", type=_count, metavar="N", help="CPU threads (default: torch decides)"
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
        help="devices must present the token in this file. It crosses the wire as it is: beyond "
        "this machine put a proxy with TLS in front",
    )
    server.add_argument(
        "--insecure",
        action="store_true",
        help="listen beyond this machine without a token: whoever reaches the port can use it",
    )
    server.add_argument(
        "--max-sessions", type=_count, default=16, metavar="N", help="at a time (%(default)s)"
    )
    server.add_argument(
        "--max-positions",
        type=_count,
        metavar="N",
        help="of one session, prompt and reply together (default: as many as the model has)",
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
    """
    _log_to_stderr(args.log_level)
    token = None if args.token_file is None else read_token(args.token_file)
    with contextlib.closing(bind(args.host, args.port)) as listener:
        if token is None and not args.insecure and not is_loopback(listener):
            raise UsageError(
                f"--host {args.host} can be reached from other machines: give a --token-file, or "
                "say --insecure to let everyone in"
            )
        # Before torch is loaded: OpenMP workers that spin while they wait would starve whatever
        # shares the machine, above all a device side on the same cores.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        engine, offer = _load(args)
        asyncio.run(_serve(engine, offer, listener, token))
    return 0


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
    )
    checkpoint = open_checkpoint(args.model, revision=args.revision, lora=args.lora)
    return load_service(checkpoint, settings)


async def _serve(
    engine: Engine, offer: ServerOffer, listener: socket.socket, token: str | None
) -> None:
    from cloud.server import serve

    stop = asyncio.Event()
    with _signals(stop):
        async with serve(engine, offer, listener, token=token) as url:
            sys.stdout.write(f"listening on {url}\n")
            sys.stdout.flush()
            await stop.wait()


@contextlib.contextmanager
def _signals(stop: asyncio.Event) -> Iterator[None]:
    """Let SIGINT and SIGTERM set ``stop``; a second one ends the process the hard way."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)

    def handle(number: int) -> None:
        _logger.info("stopping on %s", signal.Signals(number).name)
        stop.set()
        for each in signals:
            loop.remove_signal_handler(each)

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


def read_token(path: pathlib.Path) -> str:
    """Read a bearer token: the file's only line.

    Raises:
        UsageError: it cannot be read, or holds nothing that fits into a header.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_TOKEN_BYTES + 1)
            others = os.fstat(file.fileno()).st_mode & (stat.S_IRGRP | stat.S_IROTH)
    except OSError as error:
        raise UsageError(f"--token-file {path}: {error.strerror}") from error
    if others and os.name == "posix":
        _logger.warning("%s can be read by other users of this machine", path)
    token = data.strip()
    if not token or len(data) > _MAX_TOKEN_BYTES or not all(0x21 <= b <= 0x7E for b in token):
        raise UsageError(
            f"--token-file {path}: it must hold one token of printable ASCII without spaces, at "
            f"most {_MAX_TOKEN_BYTES} bytes"
        )
    return token.decode("ascii")


def _log_to_stderr(level: str) -> None:
    logging.basicConfig(
        level=level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )


def _whole(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is below 0")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is below 1")
    return value


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{value} is not between 0 and 65535")
    return value
