"""What crossed a link, on a machine of any speed."""

from __future__ import annotations

__all__ = ["crossed"]

# Each side of a WebSocket sends a ping every 20 s, and answers the other's: a header of 2 bytes, a
# mask of 4 from the device, and 4 bytes.
_PING_UP, _PING_DOWN = 2 + 4 + 4, 2 + 4
_MOST_PINGS = 4  # within one generation: far less than a position takes


def crossed(found: tuple[int, int], *, up: int, down: int) -> bool:
    """Whether so many bytes crossed each way, and perhaps some pings.

    Args:
        found: Bytes up and down.
        up: Those of the messages.
        down: The same, back.
    """
    more_up, more_down = found[0] - up, found[1] - down
    return more_up in range(0, _MOST_PINGS * _PING_UP + 1, _PING_UP) and more_down in range(
        0, _MOST_PINGS * _PING_DOWN + 1, _PING_DOWN
    )
