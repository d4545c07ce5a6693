"""A text-to-image pipeline that can be cut: its denoiser's measures and its identity.

Opening reads ``model_index.json``, the UNet's config, and the names of its tensors (from an index,
a header, or, on the Hub, a header's bytes). A server then reads the UNet's weights and nothing
else; export reads text encoders, tokenizers, scheduler and VAE, and not the UNet's weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch

from lambda_split.errors import CheckpointNotFound, UsageError
from lambda_split.partition.files import ModelFiles
from lambda_split.partition.fingerprint import choose_witnesses, fingerprint
from lambda_split.partition.pipelines.components import (
    Component,
    PipelineIndex,
    read_component,
    read_index,
)
from lambda_split.partition.pipelines.configs import (
    UNetFacts,
    check_text_encoder,
    unet_facts,
    vae_scale_factor,
)
from lambda_split.partition.pipelines.lora import PipelineLora, open_lora
from lambda_split.partition.pipelines.weights import find_shards, shards_here, tensor_names
from lambda_split.partition.sources import MODEL_INDEX, open_files, open_pipeline_files

__all__ = ["Pipeline", "open_pipeline"]

_TINY_VAES = {
    "stable-diffusion": "madebyollin/taesd",
    "stable-diffusion-xl": "madebyollin/taesdxl",
}
_TINY_VAE_FOLDER = "vae_tiny"
_WITNESS_NUMBERS = 2048


@dataclass(frozen=True, eq=False)
class Pipeline:
    """An opened pipeline.

    Attributes:
        id: Hub id, or the name of the local folder.
        revision: The Hub commit, where there is one.
        index: What ``model_index.json`` says.
        facts: What the UNet takes and gives.
        unet: The UNet's place and config.
        tensor_names: All tensors of the UNet, sorted.
        fingerprint: 32 hexadecimal characters, of the UNet's config, its tensors' names and the
            adapters; the same whatever the scheduler, and in half precision.
        lora: Names of the merged adapters, in order.
        files: Where its files come from.
        adapters: What is merged into parts when they are loaded, in order.
    """

    id: str
    revision: str | None
    index: PipelineIndex = field(repr=False)
    facts: UNetFacts
    unet: Component = field(repr=False)
    tensor_names: tuple[str, ...] = field(repr=False)
    fingerprint: str
    lora: tuple[str, ...]
    files: ModelFiles = field(repr=False)
    adapters: tuple[PipelineLora, ...] = field(repr=False)

    @property
    def family(self) -> str:
        """``stable-diffusion`` or ``stable-diffusion-xl``."""
        return self.index.family

    @property
    def text_encoders(self) -> tuple[str, ...]:
        """Names of the text encoders, in the order in which their outputs are joined."""
        return self.index.text_encoders

    def text_encoder(self, name: str) -> Component:
        """A text encoder's place and config.

        Raises:
            CheckpointInvalid: its config is missing or malformed.
        """
        component = read_component(self.files, name, self.index.classes[name], name)
        check_text_encoder(component)
        return component

    def vae(self, choice: str = "full") -> Component:
        """A VAE's place and config.

        Args:
            choice: ``full`` for the pipeline's own. ``tiny`` for a light one: its own if it is
                tiny, else its folder ``vae_tiny``, else the one published for its family. Anything
                else is the folder or Hub id of a VAE for the same latents.

        Raises:
            CheckpointNotFound: there is none.
            CheckpointInvalid: its config is missing or malformed.
            UnsupportedFamily: it is of a class that is not known.
            UsageError: it is for other latents.
        """
        component = self._find_vae(choice)
        vae_scale_factor(component)
        channels = component.config.get("latent_channels", 4)
        if channels != self.facts.latent_channels:
            reason = f"the VAE is for latents of {channels} channels, not"
            raise UsageError(f"{reason} {self.facts.latent_channels}")
        return component

    def _find_vae(self, choice: str) -> Component:
        own = self.index.classes["vae"]
        if choice == "full" or (choice == "tiny" and own == "AutoencoderTiny"):
            return read_component(self.files, "vae", own, "vae")
        if choice == "tiny" and self.files.find(f"{_TINY_VAE_FOLDER}/config.json") is not None:
            return read_component(self.files, "vae", "AutoencoderTiny", _TINY_VAE_FOLDER)
        model = _TINY_VAES[self.family] if choice == "tiny" else choice
        return _other_vae(open_files(model, None, "config.json"))

    def witnesses(self) -> dict[str, str]:
        """Some of the UNet's tensors, if they are on this machine, with their digests.

        A few kilobytes are read; nothing is fetched. Two fine-tunes of one UNet have the same
        fingerprint, and differ in these.

        Raises:
            CheckpointInvalid: a shard is malformed.
        """
        shards = shards_here(self.unet)
        chosen = choose_witnesses(shards.shapes(shards.tensor_names))
        return {name: _digest(tensor) for name, tensor in shards.read(chosen)}

    def witness_digests(self, names: Iterable[str]) -> dict[str, str]:
        """Digests of these tensors of the UNet: of its shape, and the first numbers as float16.

        Weights in half precision have the same ones. Adapters are not in them.

        Raises:
            TensorMissing: the UNet has no such tensor.
            CheckpointInvalid: a shard is missing or malformed.
        """
        here = shards_here(self.unet)
        wanted = list(names)
        known = all(name in here.locations for name in wanted)
        shards = here if known else find_shards(self.unet, half=True)
        return {name: _digest(tensor) for name, tensor in shards.read(wanted, part="unet")}


def _digest(tensor: torch.Tensor) -> str:
    first = tensor.reshape(-1)[:_WITNESS_NUMBERS].to(torch.float16).numpy().tobytes()
    return hashlib.sha256(f"{list(tensor.shape)}\n".encode() + first).hexdigest()[:32]


def _other_vae(files: ModelFiles) -> Component:
    component = read_component(files, "vae", "", "")
    name = component.config.get("_class_name")
    if name not in ("AutoencoderKL", "AutoencoderTiny"):
        raise UsageError(f"{files.id} is not a VAE (AutoencoderKL or AutoencoderTiny)")
    return Component("vae", str(name), files, "", component.config)


def open_pipeline(model: str, revision: str | None = None, lora: Sequence[str] = ()) -> Pipeline:
    """Open a pipeline for cutting.

    Args:
        model: A local folder, a Hugging Face id, or ``demo-image`` for the shipped one.
        revision: Branch, tag or commit, for a Hub id.
        lora: Folders or Hub ids of LoRA adapters to merge, or their files, in order.

    Raises:
        CheckpointNotFound: there is no such folder, and the Hub has or gives no such model.
        CheckpointInvalid: a config, index or header is malformed.
        UnsafeWeights: the UNet has pickled weights only.
        UnsupportedFamily: the pipeline, or its UNet, cannot be cut.
        AdapterError: an adapter cannot be read.
        MissingExtra: there are adapters, and peft is not installed.
    """
    files = open_pipeline_files(model, revision)
    if files.find(MODEL_INDEX) is None:
        raise CheckpointNotFound(model, f"the folder has no {MODEL_INDEX}")
    index = read_index(files)
    unet = read_component(files, "unet", index.classes["unet"], "unet")
    facts = unet_facts(unet)
    names = tensor_names(unet)
    adapters = tuple(open_lora(adapter) for adapter in lora)
    return Pipeline(
        id=files.id,
        revision=files.revision,
        index=index,
        facts=facts,
        unet=unet,
        tensor_names=names,
        fingerprint=fingerprint(dict(unet.config), names, [one.digest for one in adapters]),
        lora=tuple(one.name for one in adapters),
        files=files,
        adapters=adapters,
    )
