"""What differs between model families: a short table of attribute names.

A part of a model is the library's own modules with the others absent, so all that has to be known
about a family is where its modules sit. A new Llama-like family is one line in ``_TABLE``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedConfig

from lambda_split.errors import CheckpointInvalid, UnsupportedFamily

__all__ = [
    "Family",
    "attention_function",
    "find_family",
    "layer_windows",
    "max_positions",
    "rope_settings",
    "supported_families",
]


@dataclass(frozen=True)
class Family:
    """Where the modules of a transformers causal language model sit.

    Attributes:
        name: transformers' ``model_type``.
        base: The decoder inside the causal language model; also the prefix of its tensors' names.
        embedding: Token embedding, inside ``base``.
        layers: List of decoder layers, inside ``base``.
        final_norm: Norm after the last layer, inside ``base``.
        lm_head: Linear layer to logits, beside ``base``.
        rotary: Rotary embedding shared by all layers, inside ``base``; None where the family has
            none, and then the layers are called without ``position_embeddings``.
        rotary_by_layer_type: Sliding layers rotate with frequencies of their own.
        position_embedding: Learned embedding of positions, inside ``base``, added by the head.
        windows: Which layers attend to a sliding window: none, every layer where the config has
            ``sliding_window``, or those that the config's ``layer_types`` says.
        scaled_embedding: The embedding module multiplies by a scale that it keeps in a buffer.
        capped_logits: The tail squashes logits with ``final_logit_softcapping``.
        transposed_layers: Linear weights of the layers are stored (in, out), not (out, in).
    """

    name: str
    base: str = "model"
    embedding: str = "embed_tokens"
    layers: str = "layers"
    final_norm: str = "norm"
    lm_head: str = "lm_head"
    rotary: str | None = "rotary_emb"
    position_embedding: str | None = None
    windows: Literal["none", "every-layer", "by-layer-type"] = "none"
    rotary_by_layer_type: bool = False
    scaled_embedding: bool = False
    capped_logits: bool = False
    transposed_layers: bool = False


_TABLE = (
    Family("llama"),
    Family("mistral", windows="every-layer"),
    Family("qwen2", windows="by-layer-type"),
    Family("qwen3", windows="by-layer-type"),
    Family("gemma", scaled_embedding=True),
    Family("gemma2", windows="by-layer-type", scaled_embedding=True, capped_logits=True),
    Family(
        "gemma3_text",
        rotary_by_layer_type=True,
        windows="by-layer-type",
        scaled_embedding=True,
        capped_logits=True,
    ),
    Family("phi3", windows="every-layer"),
    Family("olmo2"),
    Family("olmo3", rotary_by_layer_type=True, windows="by-layer-type"),
    Family("smollm3", windows="by-layer-type"),
    Family(
        "gpt2",
        base="transformer",
        embedding="wte",
        layers="h",
        final_norm="ln_f",
        rotary=None,
        position_embedding="wpe",
        transposed_layers=True,
    ),
)
_BY_NAME = {family.name: family for family in _TABLE}


def supported_families() -> tuple[str, ...]:
    """The ``model_type`` of each family that can be cut."""
    return tuple(_BY_NAME)


def find_family(model_type: str) -> Family:
    """The family with this ``model_type``.

    Raises:
        UnsupportedFamily: the table has no such family.
    """
    family = _BY_NAME.get(model_type)
    if family is None:
        raise UnsupportedFamily(model_type, supported_families())
    return family


def layer_windows(family: Family, config: PreTrainedConfig) -> tuple[int | None, ...]:
    """For each layer, how many positions it attends to (itself included); None for all.

    Raises:
        CheckpointInvalid: the config contradicts itself.
        UnsupportedFamily: a layer attends in a way that masks cannot express yet.
    """
    count: int = config.num_hidden_layers
    window = getattr(config, "sliding_window", None)
    # Families without windows have no such setting, so the library has not checked its type.
    if window is not None and (type(window) is not int or window < 1):
        raise CheckpointInvalid("config.json", f"sliding_window is {window!r}")
    if getattr(config, "use_bidirectional_attention", False):
        reason = "its attention looks ahead, so nothing of the past could be kept"
        raise UnsupportedFamily(family.name, supported_families(), reason)
    if family.windows == "none":
        return (None,) * count
    if family.windows == "every-layer":
        return (window,) * count
    kinds = tuple(config.layer_types)
    if len(kinds) != count:
        raise CheckpointInvalid("config.json", f"{len(kinds)} layer_types for {count} layers")
    unknown = set(kinds) - {"full_attention", "sliding_attention"}
    if unknown:
        raise UnsupportedFamily(
            family.name, supported_families(), f"layers of type {', '.join(sorted(unknown))}"
        )
    if "sliding_attention" in kinds and window is None:
        raise CheckpointInvalid("config.json", "sliding layers, but no sliding_window")
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)


def attention_function(config: PreTrainedConfig) -> str:
    """The attention function that computes what the config defines.

    Scaled-dot-product attention is the fastest that is everywhere, but it cannot cap scores.
    """
    return "sdpa" if getattr(config, "attn_logit_softcapping", None) is None else "eager"


def max_positions(config: PreTrainedConfig) -> int:
    """Positions for which the rotary frequencies are constant.

    ``longrope`` and ``dynamic`` rotary embeddings change all frequencies once a sequence outgrows
    the length that the model was first trained for. Keys that are cached already were rotated
    with the old ones, so a session that crossed that length would differ from one that started
    beyond it. Both are therefore used up to that length only, with the frequencies of short
    sequences; for ``dynamic`` it is ``max_position_embeddings`` itself.

    Raises:
        CheckpointInvalid: ``longrope`` without the length it was first trained for.
    """
    limit: int = config.max_position_embeddings
    for rope in rope_settings(config):
        if rope.get("rope_type") == "longrope":
            original = rope.get("original_max_position_embeddings")
            if type(original) is not int:
                reason = f"longrope's original_max_position_embeddings is {original!r}"
                raise CheckpointInvalid("config.json", reason)
            limit = min(limit, original)
    return limit


def rope_settings(config: PreTrainedConfig) -> tuple[dict[str, object], ...]:
    """The config's rotary settings: one set for all layers, or one for each type of layer."""
    parameters = getattr(config, "rope_parameters", None)
    if not isinstance(parameters, dict):
        return ()
    return tuple(rope for rope in (parameters, *parameters.values()) if isinstance(rope, dict))
