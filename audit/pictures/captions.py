"""Captions for audits where none are given: some to attack, and others to learn from."""

from __future__ import annotations

import pathlib

import msgspec

from export.images.encoders import sample_prompts
from lambda_split.errors import CheckpointInvalid, UsageError
from lambda_split.partition.sources import DEMO_IMAGE, open_pipeline_files

__all__ = ["read_captions", "usual_captions"]

_ATTACKED = 8
_MAX_CAPTIONS = 1000
_MAX_FILE_BYTES = 1024 * 1024
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


def read_captions(path: pathlib.Path) -> list[str]:
    """Captions to attack, one a line of a UTF-8 file; empty lines and repetitions do not count.

    Raises:
        UsageError: it cannot be read, is no text, or holds none or too many.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"{path}: {reason}") from error
    if len(data) > _MAX_FILE_BYTES:
        raise UsageError(f"{path} is longer than {_MAX_FILE_BYTES >> 20} MiB: give a part of it")
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no UTF-8 text") from error
    captions = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not 1 <= len(captions) <= _MAX_CAPTIONS:
        raise UsageError(
            f"{path} holds {len(captions)} captions: there must be 1 to {_MAX_CAPTIONS}, one a line"
        )
    return captions
