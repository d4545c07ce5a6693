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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from cloud.options import MemoryShare
from cloud.replicas.load import Load, Loaded, measure
from cloud.replicas.scaling import USED

if TYPE_CHECKING:
    from cloud.connection import Limits
    from cloud.engine import Engine
    from cloud.tokens import TokenStore
    from lambda_split.errors import InternalError
    from lambda_split.wire.handshake import ServerOffer

    class _Engine(Engine, Loaded, Protocol):
        """What a replica needs of its engine."""


__all__ = ["Place", "ReplicaSettings", "TrunkReplica"]

_logger = logging.getLogger(__name__)
_GATEWAYS_KEPT = 64


@dataclass(frozen=True, kw_only=True)
class ReplicaSettings:
    """What a replica serves and how; read by each replica on its own node.

    Attributes:
        model: A folder that every node has, or a Hugging Face id.
        revision: Of the id.
        lora: Adapters to merge, folders that every node has.
        head_layers: First layers that are left to devices.
        tail_layers: Last layers that are left to devices.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        devices: Several to spread over, as ``--devices``; of those that Ray gives the replica.
        dtype: ``auto`` or a dtype's name.
        threads: CPU threads; torch decides where None.
        max_sessions: The most sessions of one replica.
        max_positions: The most positions of one session; the model's where None.
        kv_memory: Of one replica's keys and values: bytes, or a share of what is free; the usual
            share where None.
        log_level: Of the replica's log, which Ray keeps.
    """

    model: str
    revision: str | None = None
    lora: tuple[str, ...] = ()
    head_layers: int = 1
    tail_layers: int = 1
    device: str = "auto"
    devices: str | None = None
    dtype: str = "auto"
    threads: int | None = None
    max_sessions: int = 16
    max_positions: int | None = None
    kv_memory: int | MemoryShare | None = None
    log_level: str = "info"


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
        settings: What to serve.
    """

    def __init__(self, settings: ReplicaSettings) -> None:
        from ray import serve
        from ray.util import get_node_ip_address

        from cloud.connection import Limits

        logging.basicConfig(
            level=settings.log_level.upper(),
            stream=sys.stderr,
            format="%(asctime)s %(levelname)s %(message)s",
        )
        self._settings = settings
        self._replica = serve.get_replica_context().replica_id.unique_id
        self._engine, self._offer = _load(settings)
        self._limits = Limits(max_connections=2 * settings.max_sessions + 16)
        self._token = secrets.token_hex(32)
        self._seen: dict[str, int] = {}
        self._fault: InternalError | None = None
        self._server = _ServerThread(
            self._engine, self._offer, self._limits, self._token, self._failed
        )
        self._url = self._server.start(get_node_ip_address())
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
            max_message_bytes=self._limits.max_message_bytes(self._offer.hidden_size),
        )

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
            self._engine,
            max_sessions=self._settings.max_sessions,
            max_positions=self._offer.max_positions,
            seen=self._seen,
        )

    def _failed(self, fault: InternalError) -> None:
        self._fault = fault


class _ServerThread:
    """The server and its event loop, apart from Serve's: neither can hold up the other."""

    def __init__(
        self,
        engine: Engine,
        offer: ServerOffer,
        limits: Limits,
        token: str,
        failed: Callable[[InternalError], None],
    ) -> None:
        self._serve_arguments = engine, offer, limits, token, failed
        self._started: Future[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        # A daemon: where Ray ends the process without asking, nothing must hold it up.
        self._thread = threading.Thread(target=self._run, name="server", daemon=True)

    def start(self, host: str) -> str:
        """Begin to serve on a free port of that address; returns the URL.

        Raises:
            AddressUnavailable: it cannot listen there.
        """
        self._host = host
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
        from cloud.listener import bind
        from cloud.server import serve

        engine, offer, limits, token, failed = self._serve_arguments
        tokens = _one_token(token)
        stop = asyncio.Event()
        listener = bind(self._host, 0)
        async with serve(
            engine, offer, listener, limits=limits, tokens=tokens, on_fault=failed
        ) as url:
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


def _load(settings: ReplicaSettings) -> tuple[_Engine, ServerOffer]:
    import torch

    from cloud.loading import TrunkSettings, choose_devices, choose_dtype, load_service
    from lambda_split.partition import open_checkpoint
    from lambda_split.split import Split

    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    device, devices = choose_devices(settings.device, settings.devices)
    trunk_settings = TrunkSettings(
        split=Split(settings.head_layers, settings.tail_layers),
        device=device,
        devices=devices,
        dtype=choose_dtype(settings.dtype, device),
        max_sessions=settings.max_sessions,
        max_positions=settings.max_positions,
        kv_memory=settings.kv_memory,
    )
    checkpoint = open_checkpoint(
        settings.model, revision=settings.revision, lora=list(settings.lora)
    )
    return load_service(checkpoint, trunk_settings)
