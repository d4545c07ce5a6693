"""What ``lambda-split serve --replicas ray`` runs: replicas, unless others do, and a gateway."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from cloud.assembly import connections, limits_of, model_name

if TYPE_CHECKING:
    from prometheus_client import Metric
    from ray.serve.handle import DeploymentHandle

    from cloud.replicas.cluster import Scaling
    from cloud.replicas.metrics import GatewayMetrics
    from cloud.replicas.replica import TrunkReplica
    from cloud.settings import ServeSettings
    from cloud.status import ServerStatus
    from cloud.tls import ServerTls
    from cloud.tokens import TokenStore

__all__ = ["gateway_connections", "run", "scaling_of"]

_logger = logging.getLogger(__name__)
_LOOK_S = 2.0


def scaling_of(settings: ServeSettings, *, cluster_has_gpus: bool) -> Scaling:
    """How many replicas there are, and what each takes.

    Args:
        settings: Of the command.
        cluster_has_gpus: What a device of ``auto`` goes by; this machine may have none.
    """
    from cloud.replicas.cluster import Scaling

    replicas, device = settings.replicas, settings.model.device
    on_gpu = cluster_has_gpus if device == "auto" else device != "cpu"
    gpus = replicas.gpus_per_replica
    return Scaling(
        min_replicas=replicas.min_replicas,
        max_replicas=replicas.highest,
        gpus=float(on_gpu) if gpus is None else gpus,
        cpus=replicas.cpus_per_replica,
        upscale_delay_s=replicas.upscale_delay,
        downscale_delay_s=replicas.downscale_delay,
    )


def gateway_connections(settings: ServeSettings) -> int:
    """The most sessions' connections of a gateway.

    Where another process runs the replicas and nobody said how many there may be, their own bounds
    hold: the gateway counts only those that a replica has taken.
    """
    replicas = settings.replicas
    if settings.limits.max_connections is not None:
        return settings.limits.max_connections
    if replicas.gateway_only and replicas.max_replicas is None:
        return sys.maxsize
    return connections(settings.engine.max_sessions * replicas.highest)


def run(
    settings: ServeSettings,
    listener: socket.socket,
    *,
    tokens: TokenStore | None,
    tls: ServerTls | None,
    until_stopped: Callable[[], contextlib.AbstractAsyncContextManager[asyncio.Future[None]]],
    announce: Callable[[str], None],
    status: ServerStatus,
    metrics: GatewayMetrics,
) -> None:
    """Run the replicas, unless others do, and a gateway, until told to stop.

    Args:
        settings: Of the command.
        listener: Where devices connect.
        tokens: See :func:`~cloud.replicas.gateway.serve_gateway`.
        tls: As ``tokens``.
        until_stopped: Makes a future that is done when the command should end.
        announce: Told the URL when a device can connect.
        status: As ``tokens``; not ready while no replica serves.
        metrics: As ``tokens``.

    Raises:
        UsageError: no model was named.
        MissingExtra: Ray is not installed.
        ClusterUnavailable: no cluster, or no replica on it.
        ReplicasMissing: there are none to join.
    """
    replicas = settings.replicas
    if not replicas.gateway_only:
        model_name(settings.model)  # what is wrong is said before anything is started
    from cloud.replicas.cluster import ClusterSettings, connected, deployed, has_gpus, joined

    with contextlib.ExitStack() as stack:
        stack.enter_context(connected(ClusterSettings(address=replicas.ray_address)))
        from cloud.replicas.gateway import serve_gateway
        from cloud.replicas.places import ServePlaces

        if replicas.gateway_only:
            handle = joined(name=replicas.replicas_name)
        else:
            scaling = scaling_of(settings, cluster_has_gpus=has_gpus())
            handle = stack.enter_context(deployed(settings, scaling, name=replicas.replicas_name))
        gateway = serve_gateway(
            ServePlaces(handle),
            listener,
            limits=limits_of(settings.limits, max_connections=gateway_connections(settings)),
            tokens=tokens,
            tls=tls,
            status=status,
            metrics=metrics,
        )
        watch = _Watch(replicas.replicas_name, handle, metrics, status)
        asyncio.run(_serve(gateway, watch, until_stopped, announce))


async def _serve(
    gateway: contextlib.AbstractAsyncContextManager[str],
    watch: _Watch,
    until_stopped: Callable[[], contextlib.AbstractAsyncContextManager[asyncio.Future[None]]],
    announce: Callable[[str], None],
) -> None:
    await watch.look()
    async with until_stopped() as stop, gateway as url:
        watching = asyncio.ensure_future(watch.run())
        try:
            announce(url)
            await stop
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


class _Watch:
    """Looks at the replicas from time to time, for metrics and ``/readyz``."""

    def __init__(
        self,
        name: str,
        handle: DeploymentHandle[TrunkReplica],
        metrics: GatewayMetrics,
        status: ServerStatus,
    ) -> None:
        self._name = name
        self._handle = handle
        self._metrics = metrics
        self._status = status
        self._count = -1

    async def run(self) -> None:
        """Look for as long as it is not canceled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Look once."""
        from cloud.replicas.cluster import running_replicas

        try:
            count = await asyncio.to_thread(running_replicas, name=self._name)
        except Exception as error:  # noqa: BLE001 - whatever Ray raises while its head is away
            # Nobody knows: replicas that serve go on without the head, so readiness stays.
            _logger.warning("the cluster does not say how many replicas serve: %s", error)
            self._metrics.replicas(0)
            return
        self._metrics.replicas(count)
        self._status.obstacle = "" if count else "no replica serves"
        if count != self._count:
            _logger.info("%d replicas serve", count)
            self._count = count
        self._metrics.replicas_told(await self._ask() if count else ())

    async def _ask(self) -> list[tuple[str, list[Metric]]]:
        """What the replicas that answer count."""
        try:
            answers = await self._handle.broadcast("metrics").results_async(
                timeout_s=_LOOK_S, return_exceptions=True
            )
        except Exception as error:  # noqa: BLE001 - as above, or one is too slow
            _logger.info("the replicas do not tell their metrics: %s", error)
            return []
        return [each for each in answers if not isinstance(each, BaseException)]
