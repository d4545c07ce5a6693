"""Which shard holds which tensor, and reading tensors one at a time.

The names used everywhere are those of the whole causal language model. Checkpoints of the bare
decoder lack its prefix; they are looked up without it.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from lambda_split.errors import CheckpointInvalid, TensorMissing, UnsafeWeights
from lambda_split.partition.families import Family
from lambda_split.partition.files import ModelFiles, read_json_object

__all__ = [
    "Location",
    "Shards",
    "index_shards",
    "open_safetensors",
    "read_weight_map",
    "whole_model_name",
]

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_MAX_INDEX_BYTES = 64 * 1024 * 1024  # the largest published ones have about ten megabytes


@dataclass(frozen=True)
class Location:
    """Where a tensor lies: the shard's file name, and the tensor's name in it."""

    shard: str
    stored: str


@dataclass(frozen=True)
class Shards:
    """The tensors of a checkpoint and where they are.

    Attributes:
        files: Where shards come from; a shard is looked for (or downloaded) when first read.
        locations: Each tensor's place, by its name in the whole model.
    """

    files: ModelFiles
    locations: dict[str, Location] = field(repr=False)

    @property
    def tensor_names(self) -> tuple[str, ...]:
        """All of them, sorted."""
        return tuple(sorted(self.locations))

    def shards_of(self, names: Iterable[str]) -> set[str]:
        """The shards that hold these tensors; names that the checkpoint lacks are passed over."""
        return {self.locations[name].shard for name in names if name in self.locations}

    def read(
        self, names: Iterable[str], *, part: str = "caller"
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Each named tensor, as stored, shard by shard.

        A tensor may be backed by the mapped file; copy what is to be kept.

        Args:
            names: Names in the whole model.
            part: Who wants them, for the error.

        Raises:
            TensorMissing: the checkpoint has no such tensor.
            CheckpointInvalid: a shard is missing or malformed, or contradicts the index.
            CheckpointNotFound: a shard cannot be fetched from the Hub.
        """
        for name, reader, stored in self._each(names, part):
            yield name, reader.get_tensor(stored)

    def shapes(self, names: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """The named tensors' shapes, from their shards' headers; order and errors as ``read``."""
        return {
            name: tuple(reader.get_slice(stored).get_shape())
            for name, reader, stored in self._each(names, "caller")
        }

    def _each(self, names: Iterable[str], part: str) -> Iterator[tuple[str, Any, str]]:
        # Each name with an open reader of its shard and the tensor's name in it.
        wanted = list(dict.fromkeys(names))
        missing = tuple(name for name in wanted if name not in self.locations)
        if missing:
            raise TensorMissing(part, missing)
        by_shard: dict[str, list[str]] = {}
        for name in wanted:
            by_shard.setdefault(self.locations[name].shard, []).append(name)
        for shard, held in by_shard.items():
            path = self.files.get(shard)
            with open_safetensors(path) as reader:
                stored = set(reader.keys())
                for name in held:
                    place = self.locations[name].stored
                    if place not in stored:
                        reason = f"it lacks {place}, which the index says it holds"
                        raise CheckpointInvalid(str(path), reason)
                    yield name, reader, place


def open_safetensors(path: pathlib.Path) -> Any:  # noqa: ANN401 - safetensors ships no types
    """Open a safetensors file; its reader checks the header's length, syntax and offsets.

    Raises:
        CheckpointInvalid: it is malformed or unreadable.
    """
    try:
        return safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        raise CheckpointInvalid(str(path), str(error)) from error


def whole_model_name(family: Family, name: str) -> str:
    """A tensor's name in the whole model; names from the bare decoder get its prefix."""
    inside = name.startswith((f"{family.base}.", f"{family.lm_head}."))
    return name if inside else f"{family.base}.{name}"


def _check_shard_name(name: object) -> str:
    # Shards lie beside their index; a separator or a drive would lead elsewhere.
    if (
        not isinstance(name, str)
        or not name.endswith(".safetensors")
        or pathlib.PurePosixPath(name).name != name
        or pathlib.PureWindowsPath(name).name != name
        or "\0" in name
    ):
        raise CheckpointInvalid(_INDEX, f"{name!r} cannot be the name of a shard")
    return name


def read_weight_map(path: pathlib.Path) -> dict[str, str]:
    """Which shard, a file beside the index, holds each tensor.

    Raises:
        CheckpointInvalid: the index is malformed, or names a shard that lies elsewhere.
    """
    entries = read_json_object(path, max_bytes=_MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(entries, dict) or not entries:
        raise CheckpointInvalid(str(path), "it has no weight_map")
    return {str(name): _check_shard_name(shard) for name, shard in entries.items()}


def index_shards(files: ModelFiles, family: Family) -> Shards:
    """Find out which tensors a checkpoint has, from its index or its only file's header.

    Raises:
        UnsafeWeights: it has pickled weights only.
        CheckpointInvalid: it has no weights, or its index or header is malformed.
    """
    single = files.find(_SINGLE)
    if single is not None:
        with open_safetensors(single) as reader:
            stored = dict.fromkeys(list(reader.keys()), _SINGLE)
    elif (index := files.find(_INDEX)) is not None:
        stored = read_weight_map(index)
    elif any(files.has(name) for name in _PICKLED):
        raise UnsafeWeights(files.id)
    else:
        raise CheckpointInvalid(_SINGLE, f"{files.id} has no weights")
    locations = {
        whole_model_name(family, name): Location(shard, name) for name, shard in stored.items()
    }
    return Shards(files, locations)
