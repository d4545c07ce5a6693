"""A replica: the ordinary trunk server, in a process that Ray Serve starts, checks and ends.

Ray carries the few bytes by which a gateway learns where the replica is. Hidden states go over the
replica's own WebSocket port; the gateways' token for it is made here and never leaves the cluster.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloud.assembly import connections, limits_of, load, pacing_of, waiting_of
from cloud.replicas.load import Load, measure
from cloud.replicas.metrics import own_families
from cloud.replicas.scaling import USED
from cloud.settings import ServeSettings

if TYPE_CHECKING:
    from prometheus_client import Metric

    from cloud.tokens import TokenStore
    from lambda_split.errors import InternalError

__all__ = ["Place", "TrunkReplica"]

_logger = logging.getLogger(__name__)
_GATEWAYS_KEPT = 64


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a gateway takes a session.

    Attributes:
        replica: The replica's id in Ray.
        url: Its WebSocket address in the cluster's network.
        token: The bearer token that it wants; never logged.
        max_message_bytes: The longest legal message.
    """

    replica: str
    url: str
    token: str
    max_message_bytes: int

    def __repr__(self) -> str:
        return f"Place(replica={self.replica!r}, url={self.url!r}, token=…)"


class TrunkReplica:
    """The deployment. Ray Serve makes it and calls everything in it.

    Args:
        settings: What to serve and how. Each replica reads the model on its own node; of
            ``network``, which is the gateways', nothing is used.
    """

    def __init__(self, settings: ServeSettings) -> None:
        from ray import serve
        from ray.util import get_node_ip_address

        from cloud.listener import bind
        from cloud.metrics import Metrics
        from cloud.server import serve as serve_trunk

        logging.basicConfig(
            level=settings.log.log_level.upper(),
            stream=sys.stderr,
            format="%(asctime)s %(levelname)s %(message)s",
        )
        self._replica = serve.get_replica_context().replica_id.unique_id
        self._model = load(settings.model, settings.engine, settings.limits)
        self._max_sessions = settings.engine.max_sessions
        self._limits = limits_of(settings.limits, max_connections=connections(self._max_sessions))
        self._metrics = Metrics()
        self._token = secrets.token_hex(32)
        self._seen: dict[str, int] = {}
        self._fault: InternalError | None = None
        self._server = _ServerThread(
            lambda: serve_trunk(
                self._model,
                bind(get_node_ip_address(), 0),
                limits=self._limits,
                pacing=pacing_of(settings.engine),
                waiting=waiting_of(settings),
                tokens=_one_token(self._token),
                metrics=self._metrics,
                on_fault=self._failed,
            )
        )
        self._url = self._server.start()
        _logger.info("replica %s listens on %s", self._replica, self._url)

    async def place(self, *, gateway: str, number: int, avoid: tuple[str, ...] = ()) -> Place:
        """Where a session goes that Serve's router has sent here.

        Args:
            gateway: Who asks.
            number: Of its questions.
            avoid: Looked at by :class:`~cloud.replicas.placing.FreeKVRouter`.
        """
        del avoid
        self._seen[gateway] = max(number, self._seen.pop(gateway, number))
        while len(self._seen) > _GATEWAYS_KEPT:  # those that have been silent longest are gone
            self._seen.pop(next(iter(self._seen)))
        return Place(
            replica=self._replica,
            url=self._url,
            token=self._token,
            max_message_bytes=self._model.longest_message,
        )

    async def metrics(self) -> tuple[str, list[Metric]]:
        """What is counted here and not at a gateway, and the replica's id."""
        return self._replica, own_families(self._metrics)

    def check_health(self) -> None:
        """Asked by Serve every few seconds; a replica that raises is replaced.

        Raises:
            InternalError: the engine broke.
        """
        if self._fault is not None:
            raise self._fault

    def record_routing_stats(self) -> dict[str, Any]:
        """Asked by Serve about every second, for the routers."""
        return self._measure().to_stats()

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Asked by Serve, for :func:`~cloud.replicas.scaling.replicas_wanted`."""
        return {USED: self._measure().used}

    def __del__(self) -> None:
        """Called by Serve when the replica has to go, and once more by Python.

        The server's own drain: devices get what is under way, then ``server-draining``, and come
        back through a gateway, which knows this replica no longer.
        """
        server = getattr(self, "_server", None)  # none where loading failed
        if server is not None:
            server.stop()

    def _measure(self) -> Load:
        return measure(
            self._model.engine,
            max_sessions=self._max_sessions,
            max_positions=self._model.max_positions,
            seen=self._seen,
        )

    def _failed(self, fault: InternalError) -> None:
        self._fault = fault


class _ServerThread:
    """The server and its event loop, apart from Serve's: neither can hold up the other."""

    def __init__(self, open_server: Callable[[], AbstractAsyncContextManager[str]]) -> None:
        self._open_server = open_server
        self._started: Future[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        # A daemon: where Ray ends the process without asking, nothing must hold it up.
        self._thread = threading.Thread(target=self._run, name="server", daemon=True)

    def start(self) -> str:
        """Begin to serve; returns the URL.

        Raises:
            AddressUnavailable: it cannot listen there.
        """
        self._thread.start()
        url, self._loop, self._stop = self._started.result()
        return url

    def stop(self) -> None:
        """Drain and end; a few seconds. Stopping twice is harmless."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if self._started.done():
                raise
            self._started.set_exception(error)

    async def _serve(self) -> None:
        stop = asyncio.Event()
        async with self._open_server() as url:
            self._started.set_result((url, asyncio.get_running_loop(), stop))
            await stop.wait()


def _one_token(token: str) -> TokenStore:
    """A store that knows the gateways' token, and no file."""
    from cloud.tokens import Grant, TokenStore, digest_of

    class OneToken(TokenStore):
        def __init__(self) -> None:
            self._grants = (Grant("gateway", digest_of(token)),)
            self._watchers = []

        def reload(self) -> None:
            """There is nothing to read."""

    return OneToken()
