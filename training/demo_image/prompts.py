"""Prompts: those that are shipped for tests, and those of the sample sheet."""

from __future__ import annotations

from typing import Final

_PROMPTS: Final = (
    "a red circle on the left and a blue square on the right, on a white background",
    "a large yellow star in the centre, on a blue background",
    "a green triangle above a purple ring, on a white background",
    "a white cross in the top left corner, on a black background",
    "an orange square at the bottom, on a grey background",
    (
        "a small red star in the top right corner and a large white circle in the bottom left"
        " corner, on a green background"
    ),
    "a black ring on the left and a red triangle on the right, on a yellow background",
    "a large purple circle below a small yellow cross, on a black background",
    "a blue star in the bottom right corner, on a white background",
    "a green square in the centre, on a yellow background",
    "a large orange ring in the centre, on a black background",
    "a purple triangle left of a green circle, on a grey background",
    "a white star at the top and a yellow square at the bottom, on a blue background",
    (
        "a red cross in the bottom left corner and a black circle in the top right corner,"
        " on a white background"
    ),
    "a small white ring on the right, on a green background",
    (
        "a blue triangle in the top left corner and an orange star in the bottom right corner,"
        " on a black background"
    ),
    "a large red square on the left, on a grey background",
    "a yellow circle right of a red ring, on a black background",
    "a large green cross at the top and a small blue circle at the bottom, on a white background",
    "a black triangle in the centre on white",
)

#: Prompts of the sample sheet, by their number from 0 on.
SHEET: Final = (0, 1, 2, 5, 7, 10, 12, 13, 15, 17)


def shipped_prompts() -> list[dict[str, str]]:
    """Twenty prompts: one thing and two, all shapes, colours, backgrounds and places."""
    return [
        {"id": f"prompt-{number:02d}", "prompt": prompt}
        for number, prompt in enumerate(_PROMPTS, start=1)
    ]
