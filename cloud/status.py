"""Whether a server is alive, and whether it takes newcomers: what its health pages say.

``/healthz`` is for supervisors: anything but 200 means that only a restart helps. ``/readyz`` is
for load balancers: 503 as soon as the server is told to stop, while open sessions still go on, and
at a gateway while no replica serves. Neither needs a token, and neither tells more than that.
"""

from __future__ import annotations

import asyncio
import http
from collections.abc import Callable

__all__ = ["ServerStatus", "status_page"]


class ServerStatus:
    """The state of one server, shared by all that tell of it. Used in the event loop.

    Attributes:
        leaving: Set when the server has been told to stop.
        obstacle: Why it takes no newcomers just now although it is alive; empty where it does.
    """

    def __init__(self) -> None:
        self.leaving = asyncio.Event()
        self.obstacle = ""
        self._engine_alive: Callable[[], bool] | None = None

    def started(self, engine_alive: Callable[[], bool]) -> None:
        """The server takes connections from now on.

        Args:
            engine_alive: Whether the engine's thread runs.
        """
        self._engine_alive = engine_alive

    @property
    def alive(self) -> bool:
        """Whether it can serve, or will be able to."""
        return self._engine_alive is None or self._engine_alive()

    @property
    def ready(self) -> bool:
        """Whether it takes newcomers."""
        started = self._engine_alive is not None
        return started and self.alive and not self.leaving.is_set() and not self.obstacle


def status_page(path: str, status: ServerStatus) -> tuple[http.HTTPStatus, str] | None:
    """The page at a path, or None where there is no health page.

    Args:
        path: As requested; what follows a question mark is ignored.
        status: What it tells.

    Returns:
        HTTP status and text.
    """
    page = path.partition("?")[0]
    if page == "/healthz":
        if status.alive:
            return http.HTTPStatus.OK, "alive\n"
        return http.HTTPStatus.SERVICE_UNAVAILABLE, "the engine has died\n"
    if page == "/readyz":
        if status.ready:
            return http.HTTPStatus.OK, "ready\n"
        reason = "draining" if status.leaving.is_set() else status.obstacle or "not ready"
        return http.HTTPStatus.SERVICE_UNAVAILABLE, f"{reason}\n"
    return None
