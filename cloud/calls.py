"""Calls from one thread that run in another."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["Call"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A function that another thread is to run, and who waits for what it gives.

    Attributes:
        function: What to run.
        future: Gets its result, or its error.
    """

    function: Callable[[], T]
    future: Future[T] = field(default_factory=Future)

    def run(self) -> None:
        """Run it, unless nobody waits for it any more; raises nothing."""
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            self.future.set_result(self.function())
        except Exception as error:  # noqa: BLE001 - handed to the caller
            self.future.set_exception(error)
