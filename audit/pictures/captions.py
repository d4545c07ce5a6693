"""Captions for audits where none are given: some to attack, and others to learn from."""

from __future__ import annotations

import msgspec

from export.images.encoders import sample_prompts
from lambda_split.errors import CheckpointInvalid
from lambda_split.partition.sources import DEMO_IMAGE, open_pipeline_files

__all__ = ["usual_captions"]

_ATTACKED = 8
_OWN = (
    "a bowl of green apples beside a window",
    "an oil painting of a ship in a storm, dark clouds",
    "a brown dog running on a beach, sunny day",
    "an empty country road in autumn, warm colours",
    "portrait of a young woman with red hair, soft light",
    "a yellow square above a blue circle on a black background",
    "a small wooden house in the snow at night",
    "a cup of coffee and an open book, seen from above",
)


class _Shipped(msgspec.Struct):
    prompt: str


def usual_captions(model: str) -> tuple[list[str], list[str]]:
    """Captions to attack, and captions to learn from: the shipped model's own, or usual ones.

    Raises:
        CheckpointInvalid: the shipped model's list is malformed.
    """
    if model != DEMO_IMAGE:
        return [prompt for prompt in sample_prompts() if prompt][:_ATTACKED], list(_OWN)
    path = open_pipeline_files(model, None).get("prompts.json")
    try:
        shipped = msgspec.json.decode(path.read_bytes(), type=list[_Shipped])
    except msgspec.DecodeError as error:
        raise CheckpointInvalid(str(path), str(error)) from error
    every = [one.prompt for one in shipped]
    attacked = every[0::2][:_ATTACKED]
    return attacked, [one for one in every if one not in attacked]
