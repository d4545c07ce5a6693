"""How a prompt is cut into pieces, so that head, link, trunk and tail work on it side by side."""

from __future__ import annotations

__all__ = ["piece_lengths"]

# A matrix product over fewer positions takes hardly less time than over this many: the weights have
# to be read either way.
_SHORTEST = 32
# While the first piece goes down the pipeline, and while the last one comes back, the slowest part
# has nothing to do. An eighth of the prompt keeps that short even where the prompt is.
_PARTS = 8


def piece_lengths(tokens: int, longest: int) -> list[int]:
    """The lengths of consecutive pieces of a prompt.

    The slowest part, be it the uplink or the trunk, should begin early, have work all the time, and
    leave little to do for the others when it is done. So the pieces grow from the front and shrink
    towards the end, by factors of two, so that the next piece is there in time when the parts are
    about equally fast; those between are even, so that there is no short one at the end that costs
    as much as a long one.

    Args:
        tokens: At least 1.
        longest: The most tokens of one piece, at least 1.

    Returns:
        Lengths from 1 to ``longest`` that add up to ``tokens``.
    """
    middle = min(longest, max(_SHORTEST, tokens // _PARTS))
    ramp = []
    length = _SHORTEST
    while length < middle:
        ramp.append(length)
        length *= 2
    # Both ramps together are shorter than 4 * middle, at most half of the prompt.
    rest = tokens - 2 * sum(ramp)
    count = max(-(-rest // longest), rest // middle)
    short, longer = divmod(rest, count)
    return [*ramp, *[short + 1] * longer, *[short] * (count - longer), *reversed(ramp)]
