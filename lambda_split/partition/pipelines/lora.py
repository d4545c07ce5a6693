"""LoRA adapters of text-to-image pipelines, merged into a part's weights when it is loaded.

A file holds updates of the UNet, of text encoders, or both, in one of several spellings, all of
which diffusers knows; peft fuses the updates: ``W ← W + s·B·A``, see Hu et al., "LoRA",
arXiv 2106.09685. A server merges the UNet's part, export the text encoders'.
"""

from __future__ import annotations

import hashlib
import importlib.util
import pathlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from lambda_split.errors import AdapterError, CheckpointError, MissingExtra
from lambda_split.partition.sources import open_files
from lambda_split.partition.tensors import open_safetensors

__all__ = ["PipelineLora", "merge_lora", "open_lora"]

_WEIGHTS = "pytorch_lora_weights.safetensors"
_HASH_CHUNK_BYTES = 1 << 20
_ADAPTER = "merged"


@dataclass(frozen=True)
class PipelineLora:
    """An adapter's file.

    Attributes:
        name: Its Hub id, or the name of its folder or file.
        digest: Of its bytes, for the fingerprint.
        path: Where it lies.
    """

    name: str
    digest: str
    path: pathlib.Path


def open_lora(adapter: str) -> PipelineLora:
    """Find an adapter and check that it can be read and merged.

    Args:
        adapter: A folder or Hub id with a ``pytorch_lora_weights.safetensors``, or a safetensors
            file.

    Raises:
        AdapterError: it has no such file, or a malformed one.
        CheckpointNotFound: there is no such folder, and the Hub has or gives no such adapter.
        MissingExtra: peft is not installed.
    """
    if importlib.util.find_spec("peft") is None:
        raise MissingExtra("peft", "export")
    local = pathlib.Path(adapter).expanduser()
    if local.suffix == ".safetensors" and local.is_file():
        name, path = local.name, local
    else:
        files = open_files(adapter, None, _WEIGHTS)
        found = files.find(_WEIGHTS)
        if found is None:
            raise AdapterError(files.id, f"it lacks {_WEIGHTS}")
        name, path = files.id, found
    try:
        with open_safetensors(path) as reader:
            empty = not list(reader.keys())
    except CheckpointError as error:
        raise AdapterError(name, str(error)) from error
    if empty:
        raise AdapterError(name, "it has no tensors")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
    return PipelineLora(name, digest.hexdigest()[:32], path)


def merge_lora(lora: PipelineLora, part: str, module: nn.Module, *, family: str) -> None:
    """Merge what an adapter has for one part; a part that it does not change stays as it is.

    Args:
        lora: The adapter.
        part: ``unet``, ``text_encoder`` or ``text_encoder_2``.
        module: The part, loaded.
        family: The pipeline's.

    Raises:
        AdapterError: it is malformed, of another kind, or made for another model.
    """
    from diffusers.loaders import lora_base, lora_pipeline
    from diffusers.utils import peft_utils

    # Any: diffusers types these in part.
    mixins: Any = lora_pipeline
    xl, plain = mixins.StableDiffusionXLLoraLoaderMixin, mixins.StableDiffusionLoraLoaderMixin
    mixin = xl if family == "stable-diffusion-xl" else plain
    fuse: Any = lora_base.fuse_text_encoder_lora
    unwrap: Any = peft_utils.recurse_remove_peft_layers
    with _adapter_errors(lora.name):
        state, alphas, metadata = mixin.lora_state_dict(
            str(lora.path.parent),
            weight_name=lora.path.name,
            use_safetensors=True,  # never a pickle
            local_files_only=True,
            unet_config=module.config if part == "unet" else None,
            return_lora_metadata=True,
        )
        state = {_renamed(name, module): tensor for name, tensor in state.items()}
        if not any(name.startswith(("unet.", "text_encoder")) for name in state):
            raise AdapterError(lora.name, "it changes neither a UNet nor a text encoder")
        if not any(name.startswith(f"{part}.") for name in state):
            return
        chosen = {"network_alphas": alphas, "metadata": metadata, "adapter_name": _ADAPTER}
        if part == "unet":
            unet: Any = module
            mixin.load_lora_into_unet(state, unet=unet, **chosen)
            unet.fuse_lora()
            unet.unload_lora()
        else:
            mixin.load_lora_into_text_encoder(state, text_encoder=module, prefix=part, **chosen)
            fuse(module)
            unwrap(module)
            encoder: Any = module
            encoder._hf_peft_config_loaded = False  # noqa: SLF001 - the library leaves it set
    module.eval().requires_grad_(requires_grad=False)


def _renamed(name: str, module: nn.Module) -> str:
    # Adapters name a level of the text encoder that its class has no more.
    part, dot, rest = name.partition(".")
    flat = part.startswith("text_encoder") and not hasattr(module, "text_model")
    return f"{part}{dot}{rest.removeprefix('text_model.')}" if flat else name


@contextmanager
def _adapter_errors(name: str) -> Iterator[None]:
    try:
        yield
    except AdapterError:
        raise
    except Exception as error:
        raise AdapterError(name, str(error) or type(error).__name__) from error
