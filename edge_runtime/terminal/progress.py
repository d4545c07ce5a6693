"""How far long work is, with its rate and the time that remains; on terminals only."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

__all__ = ["Advance", "progress_bar"]


class Advance(Protocol):
    """Told how far work is."""

    def __call__(self, done: int, total: int) -> None:
        """So much of it is done."""
        ...


@contextmanager
def progress_bar(
    what: str, unit: str, *, delay_s: float = 0.0, show: bool = True
) -> Iterator[Advance]:
    """A bar on stderr that disappears at the end; nothing where stderr is no terminal.

    Args:
        what: Stands before the bar.
        unit: What is counted.
        delay_s: Work that is done sooner shows none.
        show: False shows none at all.

    Yields:
        What to tell how far the work is. At its end the bar disappears.
    """
    if not show or not sys.stderr.isatty():
        yield _ignore
        return
    from tqdm import tqdm

    with tqdm(
        desc=what, unit=f" {unit}", file=sys.stderr, leave=False, delay=delay_s, dynamic_ncols=True
    ) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)
            if done >= total:
                bar.close()  # before the next line is written

        yield advance


def _ignore(done: int, total: int) -> None:
    del done, total
