"""What an audit of a text-to-image pipeline tries."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PicturePlan"]


@dataclass(frozen=True, kw_only=True)
class PicturePlan:
    """What to try; both splits and several formats always are.

    Attributes:
        captions: Of the pictures that are attacked, one each; eight usual ones where None.
        steps: Of a picture. After half of them and after all it is looked for.
        own_pictures: How many pictures whoever attacks makes himself to learn from; the linear map
            is fitted on each of these amounts.
        candidates: How many tokens are tried at each place of a prompt; all where None, which is
            exact.
        search_rounds: Steps of Adam of the search through the first block.
    """

    captions: tuple[str, ...] | None = None
    steps: int = 8
    own_pictures: tuple[int, ...] = (8, 64)
    candidates: int | None = None
    search_rounds: int = 400
