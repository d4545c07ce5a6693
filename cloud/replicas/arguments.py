"""The options of ``lambda-split serve --replicas ray``, and what they run."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from lambda_split.arguments import positive
from lambda_split.errors import UsageError

if TYPE_CHECKING:
    from cloud.connection import Limits
    from cloud.replicas.cluster import Scaling
    from cloud.replicas.metrics import GatewayMetrics
    from cloud.replicas.replica import ReplicaSettings
    from cloud.settings import ServeSettings
    from cloud.status import ServerStatus
    from cloud.tls import ServerTls
    from cloud.tokens import TokenStore

__all__ = ["add_arguments", "run", "scaling_of", "settings_of"]

_logger = logging.getLogger(__name__)
_LOOK_S = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    replicas = parser.add_argument_group("replicas on a Ray cluster (extra 'ray')")
    replicas.add_argument(
        "--replicas",
        choices=("ray",),
        help="run replicas of the trunk on a Ray cluster and be a gateway in front of them; "
        "--max-sessions, --max-positions and --kv-memory then hold for each replica",
    )
    replicas.add_argument(
        "--devices",
        metavar="LIST",
        help="spread a trunk that is larger than one GPU over several of its machine, such as "
        "cuda:0,cuda:1, or 'auto' for all; also without --replicas",
    )
    replicas.add_argument(
        "--min-replicas", type=positive, default=1, metavar="N", help="at least (%(default)s)"
    )
    replicas.add_argument(
        "--max-replicas", type=positive, metavar="N", help="at most (default: --min-replicas)"
    )
    replicas.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="a running cluster, HOST:PORT, or 'auto' for this machine's (default: start one on "
        "this machine that ends with this process)",
    )
    replicas.add_argument(
        "--gpus-per-replica",
        type=_share,
        metavar="X",
        help="may be a part of one (default: 1 on a GPU, 0 with --device cpu)",
    )
    replicas.add_argument(
        "--cpus-per-replica",
        type=_share,
        default=1.0,
        metavar="X",
        help="CPUs that Ray sets aside for a replica; may be a part of one (%(default)s)",
    )
    replicas.add_argument(
        "--upscale-delay",
        type=_share,
        default=10.0,
        metavar="S",
        help="start replicas after more have been wanted for so many seconds (%(default)s)",
    )
    replicas.add_argument(
        "--downscale-delay",
        type=_share,
        default=600.0,
        metavar="S",
        help="drain replicas after fewer have been wanted for so many seconds (%(default)s)",
    )
    replicas.add_argument(
        "--replicas-name",
        default="lambda-split",
        metavar="NAME",
        help="of the application on the cluster; other models need other names (%(default)s)",
    )
    replicas.add_argument(
        "--gateway-only",
        action="store_true",
        help="be one more gateway for replicas that another process runs at --ray-address",
    )


def settings_of(args: argparse.Namespace, serve: ServeSettings) -> ReplicaSettings:
    """What each replica serves.

    Raises:
        UsageError: no model was named.
    """
    from cloud.replicas.replica import ReplicaSettings

    if serve.model.name is None:
        raise UsageError("give the MODEL to serve: a folder, a Hugging Face id, or 'demo'")
    return ReplicaSettings(
        model=serve.model.name,
        revision=serve.model.revision,
        lora=tuple(serve.model.lora),
        head_layers=serve.model.head_layers,
        tail_layers=serve.model.tail_layers,
        device=serve.model.device,
        devices=args.devices,
        dtype=serve.model.dtype,
        threads=serve.model.threads,
        max_sessions=serve.engine.max_sessions,
        max_positions=serve.engine.max_positions,
        kv_memory=serve.engine.kv_memory,
        log_level=serve.log.log_level,
    )


def scaling_of(args: argparse.Namespace, device: str, *, cluster_has_gpus: bool) -> Scaling:
    """How many replicas there are.

    Args:
        args: The command's arguments.
        device: Of ``--device``.
        cluster_has_gpus: What ``--device auto`` goes by; this machine may have none.

    Raises:
        UsageError: more at least than at most.
    """
    from cloud.replicas.cluster import Scaling

    highest = args.max_replicas or args.min_replicas
    if highest < args.min_replicas:
        raise UsageError(f"--min-replicas {args.min_replicas} is above --max-replicas {highest}")
    on_gpu = cluster_has_gpus if device == "auto" else device != "cpu"
    return Scaling(
        min_replicas=args.min_replicas,
        max_replicas=highest,
        gpus=float(on_gpu) if args.gpus_per_replica is None else args.gpus_per_replica,
        cpus=args.cpus_per_replica,
        upscale_delay_s=args.upscale_delay,
        downscale_delay_s=args.downscale_delay,
    )


def run(
    args: argparse.Namespace,
    serve: ServeSettings,
    listener: socket.socket,
    *,
    limits: Limits,
    tokens: TokenStore | None,
    tls: ServerTls | None,
    until_stopped: Callable[[], contextlib.AbstractAsyncContextManager[asyncio.Future[None]]],
    announce: Callable[[str], None],
    status: ServerStatus | None = None,
    metrics: GatewayMetrics | None = None,
) -> None:
    """Run the replicas, unless others do, and a gateway, until told to stop.

    Args:
        args: The command's arguments.
        serve: What they and other sources say of a server.
        listener: Where devices connect.
        limits: See :func:`~cloud.replicas.gateway.serve_gateway`.
        tokens: As ``limits``.
        tls: As ``limits``.
        until_stopped: Makes a future that is done when the command should end.
        announce: Told the URL when a device can connect.
        status: As ``limits``.
        metrics: As ``limits``.

    Raises:
        UsageError: the options contradict one another.
        MissingExtra: Ray is not installed.
        ClusterUnavailable: no cluster, or no replica on it.
        ReplicasMissing: there are none to join.
    """
    if args.gateway_only and args.ray_address is None:
        raise UsageError("--gateway-only needs the --ray-address of the cluster to join")
    scaling_of(
        args, serve.model.device, cluster_has_gpus=False
    )  # what is wrong is said before anything is started
    from cloud.replicas.cluster import ClusterSettings, connected, deployed, has_gpus, joined
    from cloud.replicas.metrics import GatewayMetrics

    with contextlib.ExitStack() as stack:
        stack.enter_context(connected(ClusterSettings(address=args.ray_address)))
        from cloud.replicas.gateway import serve_gateway
        from cloud.replicas.places import ServePlaces

        if args.gateway_only:
            handle = joined(name=args.replicas_name)
        else:
            scaling = scaling_of(args, serve.model.device, cluster_has_gpus=has_gpus())
            handle = stack.enter_context(
                deployed(settings_of(args, serve), scaling, name=args.replicas_name)
            )
        counters = metrics or GatewayMetrics()
        gateway = serve_gateway(
            ServePlaces(handle),
            listener,
            limits=limits,
            tokens=tokens,
            tls=tls,
            status=status,
            metrics=counters,
        )
        asyncio.run(_serve(gateway, args.replicas_name, counters, until_stopped, announce))


async def _serve(
    gateway: contextlib.AbstractAsyncContextManager[str],
    name: str,
    metrics: GatewayMetrics,
    until_stopped: Callable[[], contextlib.AbstractAsyncContextManager[asyncio.Future[None]]],
    announce: Callable[[str], None],
) -> None:
    async with until_stopped() as stop, gateway as url:
        watching = asyncio.ensure_future(_watch_replicas(name, metrics))
        try:
            announce(url)
            await stop
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def _watch_replicas(name: str, metrics: GatewayMetrics) -> None:
    """Say how many replicas serve, for as long as the cluster answers."""
    from cloud.replicas.cluster import running_replicas

    before = -1
    while True:
        try:
            count = await asyncio.to_thread(running_replicas, name=name)
        except Exception as error:  # noqa: BLE001 - whatever Ray raises while its head is away
            _logger.warning("the cluster does not say how many replicas serve: %s", error)
            count = 0
        metrics.replicas(count)
        if count != before:
            _logger.info("%d replicas serve", count)
            before = count
        await asyncio.sleep(_LOOK_S)


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of at least 0")
    return value
