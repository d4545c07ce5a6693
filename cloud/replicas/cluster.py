"""The Ray cluster: joined or started, and the application of replicas on it."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import pathlib
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloud.replicas.replica import TrunkReplica
from cloud.settings import NetworkSettings, ServeSettings
from lambda_split.errors import ClusterUnavailable, MissingExtra, ReplicasMissing

if TYPE_CHECKING:
    from ray.serve import Application
    from ray.serve.handle import DeploymentHandle

__all__ = [
    "APPLICATION",
    "ClusterSettings",
    "Scaling",
    "connected",
    "deployed",
    "has_gpus",
    "joined",
    "keep_local",
    "running_replicas",
]

APPLICATION = "lambda-split"
_DEPLOYMENT = "trunk"
_OBJECT_STORE_BYTES = 80 * 2**20  # nothing of ours goes through it; Ray's least is a little less
_ROUTING_STATS_S = 1.0
_STARTS_TRIED = 3  # a model that cannot be loaded is not there the next time either
_KNOCK_S = 5.0
_GRACE_S = 30.0  # of a replica's drain, beyond the time for which sessions may go on


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """How many replicas there are, and what each takes of its node.

    Attributes:
        min_replicas: At least, 1 or more.
        max_replicas: At most.
        gpus: GPUs of a replica; a part of one where several replicas share it.
        cpus: CPUs of a replica.
        upscale_delay_s: For so long more replicas must be wanted before they are started.
        downscale_delay_s: For so long fewer must be wanted before some are drained.
        interval_s: Replicas say so often how much they are used.
        look_back_s: Use is averaged over this time.
    """

    min_replicas: int = 1
    max_replicas: int = 1
    gpus: float = 0.0
    cpus: float = 1.0
    upscale_delay_s: float = 10.0
    downscale_delay_s: float = 600.0
    interval_s: float = 5.0
    look_back_s: float = 15.0


@dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """Which cluster.

    Attributes:
        address: Of a running one: ``HOST:PORT``, or ``auto`` for the one of this machine. None
            starts one on this machine that ends with this process and is reached from it only.
        cpus: Of a cluster that is started; as many as the machine has where None.
        folder: For the files of a cluster that is started; a temporary one where None. Its path
            must be short: Ray makes sockets in it.
    """

    address: str | None = None
    cpus: int | None = None
    folder: pathlib.Path | None = None


@contextlib.contextmanager
def connected(settings: ClusterSettings) -> Iterator[None]:
    """Be part of a Ray cluster inside a ``with`` block.

    Raises:
        MissingExtra: Ray is not installed.
        ClusterUnavailable: there is no cluster, or it cannot be started.
    """
    with contextlib.ExitStack() as stack:
        # Read when Ray is imported, and inherited by its processes.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options: dict[str, Any] = {"address": settings.address}
        if settings.address is None:
            options = _local(settings, stack)
        else:
            _knock(settings.address)
        try:
            import ray
            from ray import serve
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "ray":
                raise
            raise MissingExtra("ray", extra="ray") from error
        try:
            # Replicas' output stays in Ray's logs: stdout is for one line of ours.
            ray.init(
                **options, namespace=APPLICATION, log_to_driver=False, logging_level=logging.WARNING
            )
            stack.callback(ray.shutdown)
            # Devices come through our gateways: no HTTP proxy.
            serve.start(proxy_location="Disabled", logging_config={"log_level": "WARNING"})
            if settings.address is None:
                stack.callback(serve.shutdown)
        except (OSError, RuntimeError, ValueError) as error:  # what Ray raises, and its own kinds
            raise ClusterUnavailable(
                f"a cluster at {settings.address or 'this machine'}", str(error)
            ) from error
        yield


def _knock(address: str) -> None:
    """Fail at once where nobody listens: Ray would try for minutes.

    Raises:
        ClusterUnavailable: nobody does.
    """
    host, separator, port = address.rpartition(":")
    if not separator or "/" in host:  # 'auto', or a scheme of Ray's
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _KNOCK_S):
            pass
    except (OSError, ValueError, OverflowError) as error:
        raise ClusterUnavailable(f"a cluster at {address}", str(error)) from error


def keep_local() -> None:
    """Make a cluster that this process starts private: Ray reads this when it is imported."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's name for this: with 0 all of its own ports are on the loopback address.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    # Serve's replicas listen on all addresses all the same, so nobody gets in without a token. One
    # of our own, since Ray would put one into the home directory.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _local(settings: ClusterSettings, stack: contextlib.ExitStack) -> dict[str, Any]:
    """Options for a cluster that only this machine can reach, and no longer than we run."""
    keep_local()
    folder = settings.folder
    if folder is None:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="ls-ray-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return {
        "address": "local",
        "num_cpus": settings.cpus,
        "include_dashboard": False,
        "object_store_memory": _OBJECT_STORE_BYTES,
        "_temp_dir": str(folder),
    }


@contextlib.contextmanager
def deployed(
    settings: ServeSettings, scaling: Scaling, *, name: str = APPLICATION
) -> Iterator[DeploymentHandle[TrunkReplica]]:
    """Run replicas inside a ``with`` block, in which the cluster is :func:`connected`.

    An application of that name that runs already is updated: replicas are replaced one by one and
    their sessions move.

    Yields:
        The handle through which gateways ask for a place.

    Raises:
        ClusterUnavailable: no replica started; Ray's logs say why.
    """
    from ray import serve
    from ray.serve.exceptions import RayServeException

    try:
        try:
            handle = serve.run(_application(settings, scaling), name=name, route_prefix=None)
        except (RuntimeError, RayServeException) as error:
            raise ClusterUnavailable("the replicas", _cause(name) or str(error)) from error
        yield handle
    finally:
        serve.delete(name)


def _cause(name: str) -> str:
    """The last line of what Serve says of replicas that did not start: the error itself."""
    from ray import serve

    application = serve.status().applications.get(name)
    if application is None or _DEPLOYMENT not in application.deployments:
        return ""
    lines = application.deployments[_DEPLOYMENT].message.strip().splitlines()
    return lines[-1] if lines else ""


def joined(*, name: str = APPLICATION) -> DeploymentHandle[TrunkReplica]:
    """The handle of replicas that another process has deployed.

    Raises:
        ReplicasMissing: there are none of that name.
    """
    from ray import serve
    from ray.serve.exceptions import RayServeException

    try:
        return serve.get_app_handle(name)
    except RayServeException as error:
        raise ReplicasMissing(name) from error


def running_replicas(*, name: str = APPLICATION) -> int:
    """Replicas that serve now; asks the cluster, so not for an event loop."""
    from ray import serve

    application = serve.status().applications.get(name)
    if application is None:
        return 0
    states = application.deployments[_DEPLOYMENT].replica_states
    return sum(count for state, count in states.items() if state == "RUNNING")


def has_gpus() -> bool:
    """Whether any node of the cluster has a GPU."""
    import ray

    return bool(ray.cluster_resources().get("GPU"))


def _application(settings: ServeSettings, scaling: Scaling) -> Application:
    from ray import serve
    from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, RequestRouterConfig

    routing: dict[str, Any] = {
        "request_router_class": "cloud.replicas.placing:FreeKVRouter",
        "request_routing_stats_period_s": _ROUTING_STATS_S,
        "request_routing_stats_timeout_s": 5.0,
    }
    deploy = serve.deployment(
        name=_DEPLOYMENT,
        ray_actor_options={"num_cpus": scaling.cpus, "num_gpus": scaling.gpus},
        autoscaling_config=AutoscalingConfig(
            min_replicas=scaling.min_replicas,
            max_replicas=scaling.max_replicas,
            upscale_delay_s=scaling.upscale_delay_s,
            downscale_delay_s=scaling.downscale_delay_s,
            metrics_interval_s=scaling.interval_s,
            look_back_period_s=scaling.look_back_s,
            policy=AutoscalingPolicy(policy_function="cloud.replicas.scaling:replicas_wanted"),
        ),
        request_router_config=RequestRouterConfig(**routing),
        max_ongoing_requests=100,  # questions for a place, not sessions
        max_constructor_retry_count=_STARTS_TRIED,
        health_check_period_s=2.0,
        health_check_timeout_s=10.0,
        graceful_shutdown_wait_loop_s=0.2,
        graceful_shutdown_timeout_s=_GRACE_S + settings.limits.drain_seconds,
    )
    # Where gateways find their keys and tokens is nobody else's business.
    told = dataclasses.replace(settings, network=NetworkSettings())
    return deploy(TrunkReplica).bind(told)
