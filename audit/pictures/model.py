"""What whoever opens the public model has: text encoders, denoiser, VAE, solver, in PyTorch.

These are the same modules that a server loads and that export traces for the device, so what is
computed here is what a device and a server compute, up to rounding and the bundle's weight format.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from cloud.pictures.denoiser import Denoiser
from edge_runtime.pictures.prompts import EncodedPrompts
from export.images.tokenizer import ClipTokenizer, read_clip_tokenizer
from lambda_split.diffusion.scheduler_config import (
    SchedulerConfig,
    for_stable_diffusion,
    parse_scheduler_config,
    with_known_solver,
)
from lambda_split.errors import UnsupportedFamily
from lambda_split.partition.pipelines import (
    load_text_encoder,
    load_unet,
    load_vae,
    open_pipeline,
    vae_scale_factor,
)
from lambda_split.wire.pictures.layout import DenoiserGeometry

__all__ = ["PublicEncoder", "PublicModel", "open_public_model"]

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
_CHUNK = 20  # pictures that are encoded or decoded at a time
_TIME_IDS = 6


@dataclass(frozen=True, eq=False)
class PublicEncoder:
    """One text encoder.

    Attributes:
        module: transformers' ``CLIPTextModel``, or the one ``WithProjection``.
        tokenizer: Its tokenizer.
        width: Of its hidden states.
        layers: How many of its layers what crosses has been through.
        normed: Whether it has also been through the last norm.
    """

    module: nn.Module = field(repr=False)
    tokenizer: ClipTokenizer = field(repr=False)
    width: int
    layers: int
    normed: bool

    @property
    def text(self) -> Any:  # noqa: ANN401  # the library's attributes are untyped
        """The transformer itself, without a projection."""
        return getattr(self.module, "text_model", self.module)

    @torch.inference_mode()
    def encode(self, prompts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Hidden states (n, tokens, width), and the pooled output where there is a projection."""
        ids = torch.tensor([self.tokenizer.encode(prompt) for prompt in prompts])
        found: Any = self.module(ids, output_hidden_states=True)
        hidden = found.last_hidden_state if self.normed else found.hidden_states[self.layers]
        return hidden, getattr(found, "text_embeds", None)

    def hidden(
        self, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """What crosses, for tokens at any positions that see what a mask lets them see.

        The library's own forward numbers positions and masks by itself and has a longest length, so
        its modules are called one by one.

        Args:
            ids: int64 (n, L).
            positions: int64 (L,).
            mask: bool (L, L), True where a row's token sees a column's.

        Returns:
            (n, L, width).
        """
        text = self.text
        states = text.embeddings.token_embedding(ids)
        states = states + text.embeddings.position_embedding(positions)
        for layer in text.encoder.layers[: self.layers]:
            states = layer(states, mask[None, None])  # (L, L) -> (1, 1, L, L)
        result: torch.Tensor = text.final_layer_norm(states) if self.normed else states
        return result


@dataclass(frozen=True, eq=False)
class PublicModel:
    """A pipeline's parts, in float32 on the CPU.

    Attributes:
        id: Of the pipeline.
        family: ``stable-diffusion`` or ``stable-diffusion-xl``.
        encoders: The text encoders, in the order in which their outputs are joined.
        denoiser: The trunk's denoiser.
        vae: diffusers' VAE, its decoder only.
        scheduler: The model's own settings.
        geometry: What the denoiser takes, as the handshake knows it.
        shape: (C, h, w) of the latents of the model's own size.
        scale_factor: Pixels a latent, each way.
        zeros: Without a negative prompt its encoding is all zeros, and is not sent.
    """

    id: str
    family: str
    encoders: tuple[PublicEncoder, ...] = field(repr=False)
    denoiser: Denoiser = field(repr=False)
    vae: nn.Module = field(repr=False)
    scheduler: SchedulerConfig = field(repr=False)
    geometry: DenoiserGeometry
    shape: tuple[int, int, int]
    scale_factor: int
    zeros: bool

    def encode(self, prompts: Sequence[str]) -> EncodedPrompts:
        """What the denoiser is told of n prompts, before it crosses the wire."""
        contexts: list[Floats] = []
        pooled: list[Floats] = []
        for first in range(0, len(prompts), _CHUNK):
            found = [each.encode(prompts[first : first + _CHUNK]) for each in self.encoders]
            # encoders × (n, tokens, width) -> (n, tokens, sum of widths)
            contexts.append(torch.cat([hidden for hidden, _ in found], dim=2).numpy())
            pooled += [one.numpy() for _, one in found if one is not None]
        takes = self.geometry.pooled_width > 0
        return EncodedPrompts(np.concatenate(contexts), np.concatenate(pooled) if takes else None)

    @torch.inference_mode()
    def decode(self, latents: Floats) -> Floats:
        """Make pixels.

        Args:
            latents: float32 (n, C, h, w), as the solver leaves them.

        Returns:
            float32 (n, height, width, 3), from 0 to 255 and not rounded, so that a loss too small
            to be seen still has a size.
        """
        vae: Any = self.vae
        pictures = []
        for first in range(0, len(latents), _CHUNK):
            part = torch.from_numpy(latents[first : first + _CHUNK])
            decoded = vae.decode(part / vae.config.scaling_factor, return_dict=False)[0]
            # (n, 3, height, width) -> (n, height, width, 3)
            pixels = ((decoded / 2 + 0.5).clamp(0, 1) * 255).permute(0, 2, 3, 1)
            pictures.append(np.asarray(pixels.numpy(), np.float32))
        return np.concatenate(pictures)

    def show(self, latents: Floats) -> Pixels:
        """The pictures as a device shows them: uint8 (n, height, width, 3)."""
        return np.rint(self.decode(latents)).astype(np.uint8)


def open_public_model(model: str) -> PublicModel:
    """Open a pipeline.

    Args:
        model: A local folder, a Hugging Face id, or ``demo-image`` for the shipped one.

    Raises:
        CheckpointError: it cannot be read.
        UnsupportedFamily: it cannot be cut, or was distilled with guidance, which is not audited.
    """
    pipeline = open_pipeline(model)
    facts = pipeline.facts
    if facts.guidance_embedding is not None:
        raise UnsupportedFamily(
            pipeline.family,
            ("stable-diffusion", "stable-diffusion-xl"),
            "it was distilled with guidance, which is not audited yet",
            "audit the model that it was distilled from",
        )
    xl = pipeline.family == "stable-diffusion-xl"
    encoders = []
    for name in pipeline.text_encoders:
        component = pipeline.text_encoder(name)
        # Bounded when the component was read.
        number = {key: int(str(component.config[key])) for key in _NUMBERS}
        tokenizer = read_clip_tokenizer(
            pipeline.files,
            name.replace("text_encoder", "tokenizer"),
            positions=number["max_position_embeddings"],
            vocabulary=number["vocab_size"],
        )
        layers = number["num_hidden_layers"]
        module = load_text_encoder(pipeline, name)
        width = number["hidden_size"]
        encoders.append(PublicEncoder(module, tokenizer, width, layers - xl, normed=not xl))
    denoiser = Denoiser(load_unet(pipeline), device=torch.device("cpu"), dtype=torch.float32)
    scheduler = with_known_solver(
        parse_scheduler_config(pipeline.files.get(_SCHEDULER).read_bytes())
    )
    return PublicModel(
        id=pipeline.id,
        family=pipeline.family,
        encoders=tuple(encoders),
        denoiser=denoiser,
        vae=load_vae(pipeline),
        scheduler=scheduler if xl else for_stable_diffusion(scheduler),
        geometry=DenoiserGeometry(
            channels=facts.latent_channels,
            context_width=facts.conditioning_width,
            pooled_width=facts.pooled_width or 0,
            time_ids=_TIME_IDS if facts.time_ids else 0,
            deep=denoiser.deep,
        ),
        shape=(facts.latent_channels, facts.height, facts.width),
        scale_factor=vae_scale_factor(pipeline.vae()),
        zeros=pipeline.index.force_zeros_for_empty_prompt,
    )


_NUMBERS = ("max_position_embeddings", "vocab_size", "num_hidden_layers", "hidden_size")
_SCHEDULER = "scheduler/scheduler_config.json"
