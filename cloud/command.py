"""Serve a model's trunk: the layers between the head and the tail that devices run themselves.

Only those layers are read and kept in memory. A device connects with a bundle that was exported
from the same checkpoint; text, token ids and logits stay with it, hidden states come here.

When ready, one line on stdout says where to connect: listening on ws://HOST:PORT. Logs go to
stderr. Ctrl-C or SIGTERM ends it cleanly: devices are told, and replay on whichever server they
find next.

Every option can stand in a TOML file and in the environment as well: --print-config shows how.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import logging
import os
import pathlib
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from cloud.assembly import connections, limits_of, load, pacing_of, waiting_of
from cloud.configuration import add_options, configure
from cloud.listener import bind, check_exposure, is_loopback
from cloud.reloading import reload_all
from cloud.tls import ServerTls
from cloud.tokens import TokenStore
from lambda_split.ending import end_with_stdin
from lambda_split.errors import UsageError

if TYPE_CHECKING:
    from cloud.conversation import ModelKind
    from cloud.metrics import Metrics
    from cloud.settings import ServeSettings
    from cloud.status import ServerStatus

__all__ = ["add_arguments", "run"]

_logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_options(parser)
    parser.add_argument(
        "--end-with-stdin",
        action="store_true",
        help="end as with SIGTERM once stdin ends: for programs that start a server through a pipe "
        "and must not leave it behind, even when they are killed",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command until it is told to stop.

    Raises:
        UsageError: the arguments make no sense.
        AddressUnavailable: it cannot listen there.
        CheckpointError: the model cannot be served.
        InternalError: the engine broke while serving.
    """
    configuration = configure(args)
    if args.print_config:
        sys.stdout.write(configuration.as_toml())
        return 0
    if args.end_with_stdin:
        end_with_stdin()
    from cloud.logs import log_to_stderr
    from cloud.metrics import Metrics
    from cloud.replicas.metrics import GatewayMetrics

    settings = configuration.settings
    gateway = None if settings.replicas.replicas is None else GatewayMetrics()
    metrics = gateway or Metrics()
    log, network = settings.log, settings.network
    with contextlib.ExitStack() as stack:
        stack.enter_context(
            log_to_stderr(log.log_level, log.log_format, on_lost=metrics.log_line_lost)
        )
        hangups = stack.enter_context(_hangups_noted())
        tokens = None if network.token_file is None else TokenStore(network.token_file)
        tls = _tls(network.tls_cert, network.tls_key)
        reload = functools.partial(reload_all, tls, tokens)
        listener = stack.enter_context(contextlib.closing(bind(network.host, network.port)))
        check_exposure(
            network.host,
            loopback=is_loopback(listener),
            has_tls=tls is not None,
            has_tokens=tokens is not None,
            insecure=network.insecure,
        )
        metrics_listener = None
        if settings.metrics.metrics_port is not None:
            address = settings.metrics.metrics_host, settings.metrics.metrics_port
            metrics_listener = stack.enter_context(contextlib.closing(bind(*address)))
        # Before torch is loaded: OpenMP workers that spin for long while they wait would starve
        # whatever shares the machine, above all a device side on the same cores. Those that never
        # spin have to be woken for every operation of a step. So they spin for microseconds.
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
        if gateway is not None:
            from cloud.replicas import running
            from cloud.status import ServerStatus

            status = ServerStatus()
            running.run(
                settings,
                listener,
                tokens=tokens,
                tls=tls,
                until_stopped=functools.partial(
                    _stopping, metrics_listener, gateway, status, reload, hangups
                ),
                announce=_announce,
                status=status,
                metrics=gateway,
            )
            return 0
        model = load(settings.model, settings.engine, settings.limits)
        serving = _serve(
            model,
            listener,
            metrics_listener,
            settings=settings,
            tokens=tokens,
            tls=tls,
            metrics=metrics,
            reload=reload,
            hangups=hangups,
        )
        asyncio.run(serving)
    return 0


def _tls(cert: pathlib.Path | None, key: pathlib.Path | None) -> ServerTls | None:
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise UsageError("give both --tls-cert and --tls-key, or neither")
    return ServerTls(cert, key)


async def _serve(
    model: ModelKind,
    listener: socket.socket,
    metrics_listener: socket.socket | None,
    *,
    settings: ServeSettings,
    tokens: TokenStore | None,
    tls: ServerTls | None,
    metrics: Metrics,
    reload: Callable[[], object],
    hangups: Sequence[int],
) -> None:
    from cloud.server import serve
    from cloud.status import ServerStatus

    status = ServerStatus()
    max_connections = settings.limits.max_connections or connections(settings.engine.max_sessions)
    async with (
        _stopping(metrics_listener, metrics, status, reload, hangups) as stop,
        serve(
            model,
            listener,
            limits=limits_of(settings.limits, max_connections=max_connections),
            pacing=pacing_of(settings.engine),
            waiting=waiting_of(settings),
            tokens=tokens,
            tls=tls,
            metrics=metrics,
            on_fault=lambda fault: None if stop.done() else stop.set_exception(fault),
            status=status,
        ) as url,
    ):
        _announce(url)
        await stop


def _announce(url: str) -> None:
    sys.stdout.write(f"listening on {url}\n")
    sys.stdout.flush()


@contextlib.asynccontextmanager
async def _stopping(
    metrics_listener: socket.socket | None,
    metrics: Metrics,
    status: ServerStatus,
    reload: Callable[[], object],
    hangups: Sequence[int],
) -> AsyncIterator[asyncio.Future[None]]:
    """A future that is done when SIGINT or SIGTERM has come; metrics are served meanwhile."""
    from cloud.metrics_listener import serve_metrics

    stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(_signals(stop, reload, hangups))
        if metrics_listener is not None:
            port = await stack.enter_async_context(serve_metrics(metrics_listener, metrics, status))
            _logger.info("metrics on port %d", port)
        yield stop


@contextlib.contextmanager
def _hangups_noted() -> Iterator[Sequence[int]]:
    """The SIGHUPs that come before there is a loop to reload in: each would end the process."""
    came: list[int] = []
    if not hasattr(signal, "SIGHUP"):
        yield came
        return
    before = signal.signal(signal.SIGHUP, lambda number, _: came.append(number))
    try:
        yield came
    finally:
        signal.signal(signal.SIGHUP, before)


@contextlib.contextmanager
def _signals(
    stop: asyncio.Future[None], reload: Callable[[], object], hangups: Sequence[int]
) -> Iterator[None]:
    """Let SIGINT and SIGTERM set ``stop``, SIGHUP reload; a second of the former ends at once.

    A SIGHUP that came earlier counts now.
    """
    loop = asyncio.get_running_loop()

    def end(number: int) -> None:
        if stop.done():
            # Not by an exception: Python would wait for the engine's thread, in whatever it is.
            os._exit(128 + number)
        _logger.info("stopping on %s", signal.Signals(number).name)
        stop.set_result(None)

    handlers: dict[signal.Signals, Callable[[], object]] = {
        signal.SIGINT: functools.partial(end, signal.SIGINT),
        signal.SIGTERM: functools.partial(end, signal.SIGTERM),
    }
    if hasattr(signal, "SIGHUP"):
        handlers[signal.SIGHUP] = reload
    try:
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
    except NotImplementedError:  # Windows' event loop: Ctrl-C raises KeyboardInterrupt there
        yield
        return
    if hangups:
        reload()
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)
