"""A checkpoint's ``config.json``, parsed and bounded before anything is built from it.

The library checks most types, but not what the numbers lead to: buffers of any size, embeddings
without rows, rotary embeddings wider than a head. Whatever is not a model is refused here.
"""

from __future__ import annotations

import copy
import math
import pathlib

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from lambda_split.errors import CheckpointInvalid, UnsupportedFamily
from lambda_split.partition.families import (
    Family,
    find_family,
    max_positions,
    rope_settings,
    supported_families,
)
from lambda_split.partition.files import read_json_object

__all__ = ["head_dim", "kv_heads", "parse_config"]

_MAX_BYTES = 8 * 1024 * 1024
# Far beyond every published model, and small enough that nothing built from them is large: the
# weights themselves are compared with the config before they take memory.
_LARGEST = {
    "num_hidden_layers": 4096,
    "hidden_size": 1 << 20,
    "intermediate_size": 1 << 24,
    "num_attention_heads": 1 << 16,
    "num_key_value_heads": 1 << 16,
    "head_dim": 1 << 16,
    "vocab_size": 1 << 28,
    "max_position_embeddings": 1 << 31,
}
# May be absent or null: the library derives them from the others.
_DERIVED = {"intermediate_size", "num_key_value_heads", "head_dim"}


def kv_heads(config: PreTrainedConfig) -> int:
    """Key-value heads of each layer."""
    heads: int = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return heads


def head_dim(config: PreTrainedConfig) -> int:
    """Width of one attention head."""
    dim: int = getattr(config, "head_dim", None) or (
        config.hidden_size // config.num_attention_heads
    )
    return dim


def parse_config(path: pathlib.Path) -> tuple[Family, PreTrainedConfig, dict[str, object]]:
    """Parse a ``config.json``.

    Returns:
        The family, the library's config, and the parsed JSON.

    Raises:
        CheckpointInvalid: it is malformed, contradicts itself, or has measures no model has.
        UnsupportedFamily: the family cannot be cut, or the weights are quantized.
    """
    raw = read_json_object(path, max_bytes=_MAX_BYTES)
    model_type = raw.get("model_type")
    if not isinstance(model_type, str):
        raise CheckpointInvalid(str(path), "it has no model_type")
    family = find_family(model_type)
    quantization = raw.get("quantization_config")
    if quantization is not None:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        reason = f"its weights are quantized ({method or 'unknown method'}): take the original"
        raise UnsupportedFamily(model_type, supported_families(), reason)
    for key in ("num_hidden_layers", "n_layer"):  # before the library makes lists of this length
        _check_measure(path, key, raw.get(key, 1), _LARGEST["num_hidden_layers"])
    try:
        # The mapping holds the library's own classes only: code named by auto_map never runs.
        config = CONFIG_MAPPING[model_type].from_dict(copy.deepcopy(raw))
    except (StrictDataclassError, TypeError, ValueError, LookupError, AttributeError) as error:
        raise CheckpointInvalid(str(path), str(error)) from error
    except ArithmeticError as error:  # a count of zero
        raise CheckpointInvalid(str(path), str(error)) from error
    _check_config(path, config)
    return family, config, raw


def _check_measure(path: pathlib.Path, name: str, value: object, largest: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= largest:
        raise CheckpointInvalid(str(path), f"{name} is {value!r}, not from 1 to {largest}")


def _check_config(path: pathlib.Path, config: PreTrainedConfig) -> None:
    for name, largest in _LARGEST.items():
        value = getattr(config, name, None)
        if value is not None or name not in _DERIVED:
            _check_measure(path, name, value, largest)
    if config.num_attention_heads % kv_heads(config):
        heads = f"{config.num_attention_heads} attention and {kv_heads(config)} key-value heads"
        raise CheckpointInvalid(str(path), f"{heads}: the one must divide the other")
    # Where there is no head_dim, it follows from these.
    _check_measure(path, "head_dim", head_dim(config), _LARGEST["head_dim"])
    rotated = [getattr(config, "partial_rotary_factor", None)]
    rotated += [rope.get("partial_rotary_factor") for rope in rope_settings(config)]
    for share in rotated:
        valid = isinstance(share, int | float) and math.isfinite(share) and 0 < share <= 1
        if share is not None and not valid:
            raise CheckpointInvalid(str(path), f"partial_rotary_factor is {share!r}")
    _check_measure(
        path, "max_positions", max_positions(config), _LARGEST["max_position_embeddings"]
    )
