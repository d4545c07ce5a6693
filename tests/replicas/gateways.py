"""Gateways and devices for tests."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cloud.connection import Limits
from cloud.listener import bind
from cloud.replicas.gateway import Places, serve_gateway
from cloud.replicas.metrics import GatewayMetrics
from cloud.replicas.places import ServePlaces
from cloud.replicas.replica import _one_token
from cloud.tokens import TokenStore
from edge_runtime import RuntimeSettings, TextGenerator
from edge_runtime.retry import RetryPolicy
from lambda_split.bundle import Bundle

RETRY = RetryPolicy(max_delay_s=1.0, give_up_after_s=180.0)
LIMITS = Limits(handshake_s=30, goodbye_s=5.0, max_connections=64)


@dataclass(frozen=True)
class RunningGateway:
    url: str
    metrics: GatewayMetrics
    call: Callable[[Callable[[], object]], object]  # in its event loop

    def counted(self, name: str, **labels: str) -> float:
        return self.metrics._registry.get_sample_value(f"lambda_split_{name}", labels) or 0.0

    def moved(self) -> float:
        return sum(
            self.counted("gateway_sessions_moved_total", reason=each)
            for each in ("lost", "drained")
        )


@contextlib.contextmanager
def gateway(
    handle: object, *, token: str | None = None, limits: Limits = LIMITS
) -> Iterator[RunningGateway]:
    """A gateway in a thread of its own, for replicas on a Ray cluster."""
    with gateway_for(ServePlaces(handle, patience_s=60.0), token=token, limits=limits) as running:
        yield running


@contextlib.contextmanager
def gateway_for(
    places: Places,
    *,
    token: str | None = None,
    tokens: TokenStore | None = None,
    limits: Limits = LIMITS,
) -> Iterator[RunningGateway]:
    """The same for any places; ``token`` is short for a store with that one."""
    metrics = GatewayMetrics()
    ready: list[str] = []
    started = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        listener = bind("127.0.0.1", 0)
        store = tokens if token is None else _one_token(token)
        async with serve_gateway(
            places, listener, tokens=store, limits=limits, metrics=metrics
        ) as url:
            ready.append(url)
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert started.wait(60)
        yield RunningGateway(ready[0], metrics, loop.call_soon_threadsafe)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def device(bundle: Bundle, url: str, **settings) -> TextGenerator:
    runtime = RuntimeSettings(threads=1)
    return TextGenerator.open(bundle, url, runtime=runtime, retry=RETRY, **settings)


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.2)
