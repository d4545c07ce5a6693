"""LoRA adapters in peft's file format, merged into tensors while these are read.

``W ← W + s·B·A`` with ``s = alpha / r`` (or ``alpha / √r`` for rank-stabilized ones), see Hu et
al., "LoRA", arXiv 2106.09685, and Kalajdzievski, arXiv 2312.03732. What peft can do beyond that
(DoRA, trained biases, initializations that change the base weights …) is refused, never ignored.
"""

from __future__ import annotations

import hashlib
import json
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from lambda_split.errors import AdapterError, CheckpointInvalid
from lambda_split.partition.families import Family
from lambda_split.partition.files import ModelFiles, read_json_object
from lambda_split.partition.tensors import open_safetensors, whole_model_name

__all__ = ["ADAPTER_CONFIG", "Adapter", "open_adapter"]

ADAPTER_CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
_MAX_CONFIG_BYTES = 4 * 1024 * 1024
_HASH_CHUNK_BYTES = 1 << 20
_PREFIX = "base_model.model."
# Suffix of a tensor's name in the file -> which matrix of the update it is.
_MATRICES = {
    ".lora_A.weight": "A",
    ".lora_B.weight": "B",
    ".lora_embedding_A": "A",
    ".lora_embedding_B": "B",
}
# Settings that change the arithmetic, and the only values for which it is the one above.
_PLAIN: dict[str, tuple[object, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "use_dora": (False, None),
    "lora_bias": (False, None),
    "use_qalora": (False, None),
    "use_bdlora": (None, False),
    "arrow_config": (None,),
    "alora_invocation_tokens": (None,),
    "trainable_token_indices": (None,),
    "layer_replication": (None,),
    "target_parameters": (None, []),
    "init_lora_weights": (True, False, None, "gaussian", "orthogonal", "eva"),
}


@dataclass(frozen=True)
class _Update:
    """Names, in the adapter's file, of the tensors that change one tensor of the model."""

    down: str | None = None  # A: (r, in); of an embedding (r, vocabulary)
    up: str | None = None  # B: (out, r); of an embedding (width, r)
    whole: str | None = None  # a tensor that first takes the place of the model's
    rank: float = 0
    scaling: float = 0.0
    embedding: bool = False


@dataclass(frozen=True)
class Adapter:
    """One adapter whose settings were checked.

    Attributes:
        name: Its Hub id, or the name of its folder.
        digest: Of its settings and weights, for the fingerprint.
    """

    name: str
    digest: str
    _path: pathlib.Path
    _transposed_prefix: str | None
    _updates: Mapping[str, _Update] = field(repr=False)

    @property
    def targets(self) -> frozenset[str]:
        """Names of the tensors it changes, in the whole model."""
        return frozenset(self._updates)

    def merge(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor with this adapter's update, in float32; itself if it has none.

        Raises:
            AdapterError: the update has another shape.
        """
        update = self._updates.get(name)
        if update is None:
            return tensor
        with open_safetensors(self._path) as reader:
            if update.whole is not None:
                replaced: torch.Tensor = reader.get_tensor(update.whole)
                self._check_shape(name, replaced.shape, tensor)
                tensor = replaced
            if update.down is None:
                return tensor
            down: torch.Tensor = reader.get_tensor(update.down).float()
            up: torch.Tensor = reader.get_tensor(update.up).float()
        if down.ndim != 2 or up.ndim != 2 or not down.shape[0] == up.shape[1] == update.rank:
            raise AdapterError(self.name, f"the matrices for {name} do not fit each other")
        transposed = update.embedding or (
            self._transposed_prefix is not None and name.startswith(self._transposed_prefix)
        )
        # Checked before they are multiplied: the product of two small matrices can be huge.
        shape = (up.shape[0], down.shape[1])  # (out, in)
        self._check_shape(name, shape[::-1] if transposed else shape, tensor)
        change = (up @ down) * update.scaling
        return (change.T if transposed else change).add_(tensor)

    def _check_shape(self, name: str, found: Sequence[int], expected: torch.Tensor) -> None:
        if tuple(found) != tuple(expected.shape):
            reason = f"its update of {name} is {list(found)}, not {list(expected.shape)}"
            raise AdapterError(self.name, reason)


def _positive(name: str, settings: Mapping[str, object], key: str) -> float:
    value = settings.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise AdapterError(name, f"{key} is {value!r}, not a positive number")
    return value


def _pattern(name: str, settings: Mapping[str, object], key: str) -> dict[str, object]:
    value = settings.get(key) or {}
    if not isinstance(value, dict):
        raise AdapterError(name, f"{key} is not an object")
    return value


def _for_module(
    name: str, settings: Mapping[str, object], module: str, key: str, pattern_key: str
) -> float:
    # As peft does: the first pattern that matches the end of the module's path wins.
    patterns = _pattern(name, settings, pattern_key)
    for pattern in patterns:
        try:
            matched = re.match(rf"(.*\.)?({pattern})$", module)
        except re.error as error:
            raise AdapterError(name, f"{pattern_key} has an invalid pattern: {error}") from error
        if matched:
            return _positive(name, patterns, pattern)
    return _positive(name, settings, key)


def _collect(
    name: str, settings: Mapping[str, object], stored: list[str], family: Family
) -> dict[str, _Update]:
    matrices: dict[str, dict[str, str]] = {}
    wholes: dict[str, str] = {}
    embeddings: set[str] = set()
    for key in stored:
        if not key.startswith(_PREFIX):
            raise AdapterError(name, f"{key} is not a name that peft writes")
        suffix = next((s for s in _MATRICES if key.endswith(s)), None)
        path = key.removeprefix(_PREFIX)
        if suffix is None:
            if ".lora_" in path or not path.endswith((".weight", ".bias")):
                raise AdapterError(name, f"it holds {key}, which is more than a LoRA update")
            # peft stores what was trained in full, and the base of an adapted embedding.
            wholes[whole_model_name(family, path.replace(".base_layer.", "."))] = key
            continue
        module = path.removesuffix(suffix)
        matrices.setdefault(module, {})[_MATRICES[suffix]] = key
        if suffix.startswith(".lora_embedding"):
            embeddings.add(module)
    updates = {target: _Update(whole=key) for target, key in wholes.items()}
    for module, pair in matrices.items():
        if pair.keys() != {"A", "B"}:
            raise AdapterError(name, f"{module} has only one of its two matrices")
        rank = _for_module(name, settings, module, "r", "rank_pattern")
        alpha = _for_module(name, settings, module, "lora_alpha", "alpha_pattern")
        scaling = alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)
        target = whole_model_name(family, f"{module}.weight")
        updates[target] = _Update(
            down=pair["A"],
            up=pair["B"],
            whole=wholes.get(target),
            rank=rank,
            scaling=scaling,
            embedding=module in embeddings,
        )
    return updates


def _digest(settings: Mapping[str, object], path: pathlib.Path) -> str:
    kept = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora")
    # Not sorted: of several patterns that match, the first one counts.
    digest = hashlib.sha256(json.dumps([settings.get(key) for key in kept]).encode())
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()[:32]


def open_adapter(files: ModelFiles, family: Family, model_tensors: frozenset[str]) -> Adapter:
    """Read an adapter's settings and header, and check that it can be merged into the model.

    Args:
        files: The adapter's files.
        family: The model's family.
        model_tensors: Names of the model's tensors.

    Raises:
        AdapterError: it is malformed, of another kind than LoRA, or made for another model.
    """
    config_path, weights = files.find(ADAPTER_CONFIG), files.find(_WEIGHTS)
    if config_path is None or weights is None:
        raise AdapterError(files.id, f"it lacks {ADAPTER_CONFIG} or {_WEIGHTS}")
    try:
        settings = read_json_object(config_path, max_bytes=_MAX_CONFIG_BYTES)
        with open_safetensors(weights) as reader:
            stored = sorted(reader.keys())
    except CheckpointInvalid as error:
        raise AdapterError(files.id, error.reason) from error
    for key, plain in _PLAIN.items():
        if settings.get(key) not in plain:
            raise AdapterError(files.id, f"{key} = {settings.get(key)!r} is not supported")
    updates = _collect(files.id, settings, stored, family)
    unknown = updates.keys() - model_tensors
    if unknown or not updates:
        example = f" (for example {min(unknown)})" if unknown else ""
        raise AdapterError(files.id, f"it was made for another model{example}")
    prefix = f"{family.base}.{family.layers}." if family.transposed_layers else None
    return Adapter(files.id, _digest(settings, weights), weights, prefix, updates)
