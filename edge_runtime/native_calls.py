"""Calls into onnxruntime, which no program ends in the midst of.

A daemon thread that comes back from C++ while the program ends is ended there and then by Python
(before 3.14), which C++ answers with ``terminate called without an active exception``: the program
aborts, whatever its exit status was to be. So at its end a program breaks off the runs that are
under way and waits for the calls; threads that would begin another one stand still instead.
"""

from __future__ import annotations

import atexit
import functools
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import onnxruntime

__all__ = ["call_native"]

Result = TypeVar("Result")

_LOOK_EVERY_S = 0.002
_LONG_S = 3600.0


class _Calls:
    """Those under way. Without a lock, which a fork could leave taken: each step is one operation.

    Attributes:
        ending: Whether the program ends.
    """

    def __init__(self) -> None:
        self.ending = False
        self._under_way: dict[threading.Thread, onnxruntime.RunOptions | None] = {}

    def call(self, function: Callable[[], Result], run: onnxruntime.RunOptions | None) -> Result:
        me = threading.current_thread()
        # Said before the program's end is looked for, and that waits for who has said it.
        self._under_way[me] = run
        try:
            if not (self.ending and me.daemon):
                return function()
        except Exception:
            if not (self.ending and me.daemon):  # otherwise nobody is left who wants to know
                raise
        finally:
            self._under_way.pop(me, None)
        while True:
            time.sleep(_LONG_S)  # until the process is gone

    def end(self) -> None:
        self.ending = True
        while others := [
            run
            for thread, run in list(self._under_way.items())
            if thread is not threading.current_thread() and thread.is_alive()
        ]:
            for run in others:
                if run is not None:
                    run.terminate = True
            time.sleep(_LOOK_EVERY_S)


@functools.cache
def _calls() -> _Calls:
    calls = _Calls()
    atexit.register(calls.end)
    return calls


def call_native(
    function: Callable[[], Result], run: onnxruntime.RunOptions | None = None
) -> Result:
    """Call a function that works in onnxruntime for a while.

    Args:
        function: Called in this thread.
        run: Options of the run that it is, by which that is broken off when the program ends.

    Raises:
        Exception: what the function raises.
    """
    return _calls().call(function, run)
