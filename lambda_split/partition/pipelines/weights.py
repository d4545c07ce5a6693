"""Where the tensors of a pipeline's part are.

A part's weights are one safetensors file or several with an index, and there may be a second set
in half precision, which diffusers calls the variant ``fp16``: of the same tensors, at half the
download. Whoever computes in half precision takes that one, others the full one; each takes the
other where its own is missing.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

from huggingface_hub import HfApi, constants, try_to_load_from_cache
from huggingface_hub.errors import (  # type: ignore[attr-defined] # HTTPError is re-exported
    EntryNotFoundError,
    HTTPError,
    NotASafetensorsRepoError,
    SafetensorsParsingError,
)

from lambda_split.errors import CheckpointInvalid, CheckpointNotFound, UnsafeWeights
from lambda_split.partition.files import ModelFiles
from lambda_split.partition.hub import HubRepository
from lambda_split.partition.pipelines.components import Component
from lambda_split.partition.tensors import Location, Shards, open_safetensors, read_weight_map

__all__ = ["find_shards", "shards_here", "tensor_names"]

_DIFFUSERS_STEM = "diffusion_pytorch_model"
_TRANSFORMERS_STEMS = {"CLIPTextModel": "model", "CLIPTextModelWithProjection": "model"}


def _stem(component: Component) -> str:
    return _TRANSFORMERS_STEMS.get(component.class_name, _DIFFUSERS_STEM)


def _candidates(component: Component, *, half: bool) -> Iterator[tuple[str, str]]:
    # Each set of weights as its single file and its index, the wanted precision first.
    stem = component.file(_stem(component))
    full = (f"{stem}.safetensors", f"{stem}.safetensors.index.json")
    variant = (f"{stem}.fp16.safetensors", f"{stem}.safetensors.index.fp16.json")
    yield from (variant, full) if half else (full, variant)


def find_shards(component: Component, *, half: bool) -> Shards:
    """The part's tensors, by the names that they are stored under; their files are fetched.

    Args:
        component: The part.
        half: Prefer weights that are stored in half precision.

    Raises:
        UnsafeWeights: it has pickled weights only.
        CheckpointInvalid: it has no weights, or its index or header is malformed.
        CheckpointNotFound: they cannot be fetched from the Hub.
    """
    files = component.files
    for single, index in _candidates(component, half=half):
        path = files.find(single)
        if path is not None:
            return _single(files, single, path)
        path = files.find(index)
        if path is not None:
            weight_map = read_weight_map(path)
            places = {
                name: Location(component.file(shard), name) for name, shard in weight_map.items()
            }
            return Shards(files, places)
    raise _no_weights(component)


def shards_here(component: Component) -> Shards:
    """Those of the part's tensors whose files are on this machine already; fetches nothing."""
    files = component.files
    for single, index in _candidates(component, half=False):
        path = _path_here(files, single)
        if path is not None:
            return _single(files, single, path)
        path = _path_here(files, index)
        if path is not None:
            weight_map = read_weight_map(path)
            shards = {shard: component.file(shard) for shard in weight_map.values()}
            here = {shard for shard, name in shards.items() if _path_here(files, name)}
            places = {n: Location(shards[s], n) for n, s in weight_map.items() if s in here}
            if places:
                return Shards(files, places)
    return Shards(files, {})


def _single(files: ModelFiles, name: str, path: pathlib.Path) -> Shards:
    with open_safetensors(path) as reader:
        return Shards(files, {stored: Location(name, stored) for stored in list(reader.keys())})


def _path_here(files: ModelFiles, name: str) -> pathlib.Path | None:
    if not isinstance(files, HubRepository):
        return files.find(name)
    cached = try_to_load_from_cache(files.id, name, revision=files.revision)
    return pathlib.Path(cached) if isinstance(cached, str) else None


def tensor_names(component: Component) -> tuple[str, ...]:
    """Names of the part's tensors, sorted; of a file on the Hub only the header is fetched.

    Raises:
        UnsafeWeights: it has pickled weights only.
        CheckpointInvalid: it has no weights, or its index or header is malformed.
        CheckpointNotFound: they cannot be fetched from the Hub.
    """
    for single, index in _candidates(component, half=False):
        names = _header_names(component.files, single)
        if names is None and (path := component.files.find(index)) is not None:
            names = list(read_weight_map(path))
        if names is not None:
            return tuple(sorted(names))
    raise _no_weights(component)


def _no_weights(component: Component) -> UnsafeWeights | CheckpointInvalid:
    stem = component.file("pytorch_model" if _stem(component) == "model" else _DIFFUSERS_STEM)
    name = component.files.id
    if any(component.files.has(f"{stem}{ending}") for ending in (".bin", ".fp16.bin")):
        return UnsafeWeights(f"{name} ({component.name})")
    return CheckpointInvalid(
        f"{stem}.safetensors", f"{name} has no weights of its {component.name}"
    )


def _header_names(files: ModelFiles, name: str) -> list[str] | None:
    if not isinstance(files, HubRepository):
        path = files.find(name)
    else:
        cached = try_to_load_from_cache(files.id, name, revision=files.revision)
        if cached is None and not constants.HF_HUB_OFFLINE:
            return _remote_names(files, name)
        path = files.find(name)
    if path is None:
        return None
    with open_safetensors(path) as reader:
        return list(reader.keys())


def _remote_names(files: HubRepository, name: str) -> list[str] | None:
    try:
        found = HfApi().parse_safetensors_file_metadata(files.id, name, revision=files.revision)
    except EntryNotFoundError:
        return None
    except (SafetensorsParsingError, NotASafetensorsRepoError) as error:
        raise CheckpointInvalid(name, str(error)) from error
    except (HTTPError, OSError) as error:
        raise CheckpointNotFound(files.id, f"fetching {name} failed: {error}") from error
    return list(found.tensors)
