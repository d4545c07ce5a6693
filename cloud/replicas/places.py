"""Asking Ray Serve for a place."""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import TYPE_CHECKING

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from cloud.replicas.replica import Place, TrunkReplica
from lambda_split.errors import CapacityRefused

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

__all__ = ["ServePlaces"]

_logger = logging.getLogger(__name__)
_RETRY_AFTER_S = 5  # a replica that died is replaced about so fast, its model's loading apart
_PAUSE_S = 0.1


class ServePlaces:
    """Places on the replicas of a Serve application, as its router ranks them.

    Args:
        handle: Of the application.
        patience_s: So long a session waits for an answer, for example while the only replica is
            replaced.
    """

    def __init__(self, handle: DeploymentHandle[TrunkReplica], *, patience_s: float = 5.0) -> None:
        self._handle = handle
        self._patience_s = patience_s
        self._gateway = secrets.token_hex(8)
        self._asked = 0

    async def place(self, avoid: tuple[str, ...]) -> Place:
        """See :meth:`~cloud.replicas.gateway.Places.place`."""
        try:
            async with asyncio.timeout(self._patience_s):
                return await self._ask(avoid)
        except TimeoutError as error:
            raise CapacityRefused("no replica is running", _RETRY_AFTER_S) from error

    async def _ask(self, avoid: tuple[str, ...]) -> Place:
        while True:
            self._asked += 1
            response = self._handle.place.remote(
                gateway=self._gateway, number=self._asked, avoid=avoid
            )
            try:
                place: Place = await response
            except (RayError, RayServeException) as error:
                # The replica died with the question; the router will not ask it again.
                _logger.info("a replica did not answer: %s", type(error).__name__)
                await asyncio.sleep(_PAUSE_S)
            except asyncio.CancelledError:
                response.cancel()
                raise
            else:
                return place
