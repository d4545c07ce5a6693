"""A pipeline's modules: built empty, then filled from the files of that part alone.

The modules are the libraries' own. They are built on the meta device, so a part takes the memory
of its weights in the wanted dtype and no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from lambda_split.partition.materialize import building, fill
from lambda_split.partition.pipelines.components import Component
from lambda_split.partition.pipelines.lora import merge_lora
from lambda_split.partition.pipelines.pipeline import Pipeline
from lambda_split.partition.pipelines.weights import find_shards
from lambda_split.partition.tensors import Shards

__all__ = ["load_text_encoder", "load_text_encoders", "load_unet", "load_vae"]

_TEXT_ENCODERS: dict[str, Any] = {
    "CLIPTextModel": CLIPTextModel,
    "CLIPTextModelWithProjection": CLIPTextModelWithProjection,
}
_HALF = (torch.float16, torch.bfloat16)
# Names that attention layers had in older checkpoints, in VAEs published until today.
_OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def load_unet(
    pipeline: Pipeline,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    half: bool | None = None,
    on_tensor: Callable[[int], object] | None = None,
) -> nn.Module:
    """The denoiser, diffusers' ``UNet2DConditionModel``, adapters merged.

    No other part's files are read.

    Args:
        pipeline: The pipeline.
        dtype: Of its weights.
        device: Where they go.
        half: Read the weights stored in half precision, if there are any; by default if ``dtype``
            is of 16 bits.
        on_tensor: Called each time a tensor has been read, with how many there are.

    Raises:
        TensorMissing: the files lack some tensors.
        TensorMismatch: one has another shape than the config says, or is not floating-point.
        CheckpointInvalid: the library cannot build it, or a file is missing or malformed.
        UnsafeWeights: there are pickled weights only.
        AdapterError: an adapter was made for another model.
    """
    component = pipeline.unet
    with building(component.file("config.json")), torch.device("meta"):
        unet = _from_config(UNet2DConditionModel, component)
    stored_half = dtype in _HALF if half is None else half
    _fill(
        unet,
        component,
        {"": unet},
        dtype=dtype,
        device=device,
        half=stored_half,
        on_tensor=on_tensor,
    )
    _merge(pipeline, component.name, unet)
    return unet


def load_text_encoder(
    pipeline: Pipeline,
    name: str,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    half: bool = False,
) -> nn.Module:
    """One text encoder, transformers' ``CLIPTextModel`` or the one ``WithProjection``.

    Adapters are merged; no other part's files are read.

    Args:
        pipeline: The pipeline.
        name: One of ``pipeline.text_encoders``.
        dtype: Of its weights.
        device: Where they go.
        half: Read the weights stored in half precision, if there are any.

    Raises:
        CheckpointError: as :func:`load_unet`.
    """
    component = pipeline.text_encoder(name)
    with building(component.file("config.json")), torch.device("meta"):
        config = CLIPTextConfig.from_dict(dict(component.config))
        config._attn_implementation = "sdpa"  # noqa: SLF001 - how the library spells this setting
        encoder: nn.Module = _TEXT_ENCODERS[component.class_name](config)
    _fill(encoder, component, {"": encoder}, dtype=dtype, device=device, half=half)
    for module in encoder.modules():
        # Not stored: numbers its positions. What was made on the meta device has no values.
        if isinstance(getattr(module, "position_ids", None), torch.Tensor):
            count = config.max_position_embeddings
            module.position_ids = torch.arange(count, device=device)[None, :]  # (1, count)
    _merge(pipeline, name, encoder)
    return encoder


def load_text_encoders(
    pipeline: Pipeline,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> tuple[nn.Module, ...]:
    """All text encoders; see :func:`load_text_encoder`."""
    return tuple(
        load_text_encoder(pipeline, name, dtype=dtype, device=device, half=dtype in _HALF)
        for name in pipeline.text_encoders
    )


def load_vae(
    pipeline: Pipeline,
    choice: str = "full",
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    half: bool = False,
) -> nn.Module:
    """A VAE, diffusers' ``AutoencoderKL`` or ``AutoencoderTiny``, that can decode only.

    Its encoder is neither read nor there.

    Args:
        pipeline: The pipeline.
        choice: See :meth:`Pipeline.vae`.
        dtype: Of its weights.
        device: Where they go.
        half: Read the weights stored in half precision, if there are any.

    Raises:
        CheckpointError: as :func:`load_unet` and :meth:`Pipeline.vae`.
    """
    component = pipeline.vae(choice)
    tiny = component.class_name == "AutoencoderTiny"
    with building(component.file("config.json")), torch.device("meta"):
        vae: Any = _from_config(AutoencoderTiny if tiny else AutoencoderKL, component)
    vae.encoder = vae.quant_conv = None
    parts: dict[str, nn.Module] = {"decoder.": vae.decoder}
    if not tiny and vae.post_quant_conv is not None:
        parts["post_quant_conv."] = vae.post_quant_conv
    module: nn.Module = vae
    _fill(module, component, parts, dtype=dtype, device=device, half=half)
    return module


def _merge(pipeline: Pipeline, part: str, module: nn.Module) -> None:
    for adapter in pipeline.adapters:
        merge_lora(adapter, part, module, family=pipeline.family)


def _from_config(model_class: Any, component: Component) -> nn.Module:  # noqa: ANN401 - its bases are untyped
    module: nn.Module = model_class.from_config(dict(component.config))
    return module


def _fill(
    module: nn.Module,
    component: Component,
    parts: dict[str, nn.Module],
    *,
    dtype: torch.dtype,
    device: torch.device | str,
    half: bool,
    on_tensor: Callable[[int], object] | None = None,
) -> None:
    wanted = [f"{prefix}{name}" for prefix, part in parts.items() for name in part.state_dict()]
    stored = find_shards(component, half=half)
    # Named after the part, for errors: "unet.conv_in.weight".
    places = {
        f"{component.name}.{name}": stored.locations[place]
        for name, place in _stored_names(wanted, stored).items()
    }
    named = {f"{component.name}.{prefix}"[:-1]: part for prefix, part in parts.items()}
    shards = Shards(stored.files, places)
    source = shards if on_tensor is None else _ReportingShards(shards, on_tensor)
    fill(source, component.name, named, dtype=dtype, device=device)
    module.eval().requires_grad_(requires_grad=False)


@dataclass(frozen=True)
class _ReportingShards:
    """Shards that say when a tensor has been read, and of how many."""

    shards: Shards
    on_tensor: Callable[[int], object]

    @property
    def tensor_names(self) -> tuple[str, ...]:
        return self.shards.tensor_names

    def read(
        self, names: Iterable[str], *, part: str = "caller"
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """See :meth:`Shards.read`."""
        wanted = list(names)
        for name, tensor in self.shards.read(wanted, part=part):
            yield name, tensor
            del tensor  # before the next one is read
            self.on_tensor(len(wanted))


def _stored_names(wanted: Iterable[str], stored: Shards) -> dict[str, str]:
    """Under which name each wanted tensor is stored; those that are not are left out."""
    names: dict[str, str] = {}
    for name in wanted:
        # Text encoders saved before transformers 5 have one level more.
        candidates = [name, f"text_model.{name}"]
        for new, old in _OLD_ATTENTION.items():
            candidates.append(name.replace(f".{new}.", f".{old}."))
        found = next((one for one in candidates if one in stored.locations), None)
        if found is not None:
            names[name] = found
    return names
