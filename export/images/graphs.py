"""From a text encoder or VAE decoder in PyTorch to an ONNX graph.

Inputs, outputs and their order are those that optimum's pipelines expect: the pooled embedding of
an encoder with a projection comes first, since they take the first output for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch import nn

from export.images.attention import attention_in_blocks
from export.tracing import OPSET, quiet_exporter, tidy

__all__ = [
    "EXAMPLE_BATCH",
    "EXAMPLE_HEIGHT",
    "EXAMPLE_WIDTH",
    "TracedImageGraph",
    "encoder_outputs",
    "trace_decoder",
    "trace_encoder",
    "trace_module",
]

# The exporter takes sizes 0 and 1 for constants, so the examples are larger, and all different.
EXAMPLE_BATCH = 2
EXAMPLE_HEIGHT, EXAMPLE_WIDTH = 6, 10


@dataclass(frozen=True)
class TracedImageGraph:
    """An ONNX graph and the names of its inputs and outputs by role."""

    model: ir.Model
    inputs: dict[str, str]
    outputs: dict[str, str]


class _EncoderGraph(nn.Module):
    def __init__(self, encoder: nn.Module, *, projects: bool, hidden: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.projects = projects
        self.hidden = hidden

    def forward(self, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        (input_ids,) = inputs
        found: Any = self.encoder(input_ids, output_hidden_states=self.hidden)
        ends = (
            (found.text_embeds, found.last_hidden_state)
            if self.projects
            else (found.last_hidden_state, found.pooler_output)
        )
        # The last one is the last layer's output before the final norm, which nobody uses.
        return (*ends, *found.hidden_states[:-1]) if self.hidden else ends


class _DecoderGraph(nn.Module):
    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        (latent_sample,) = inputs
        decode: Any = self.vae.decode
        picture: torch.Tensor = decode(latent_sample, return_dict=False)[0]
        return picture


def encoder_outputs(*, layers: int, projects: bool, hidden: bool) -> tuple[str, ...]:
    """Names of an encoder's outputs, in order.

    Args:
        layers: Of the encoder.
        projects: Whether it has a projection, whose output is the pooled embedding.
        hidden: Whether each layer's input is an output, too: penultimate hidden states are
            ``hidden_states.<layers - 1>``.
    """
    first, second = "last_hidden_state", "pooler_output"
    if projects:
        first, second = "text_embeds", "last_hidden_state"
    return (first, second, *(f"hidden_states.{number}" for number in range(layers * hidden)))


def trace_encoder(
    encoder: nn.Module, *, layers: int, projects: bool, hidden: bool, max_tokens: int
) -> ir.Model:
    """Trace a text encoder with dynamic batch and sequence.

    Args:
        encoder: The encoder, its weights in a format already.
        layers: See :func:`encoder_outputs`.
        projects: See :func:`encoder_outputs`.
        hidden: See :func:`encoder_outputs`.
        max_tokens: Its positions.
    """
    return trace_module(
        _EncoderGraph(encoder, projects=projects, hidden=hidden),
        {"input_ids": torch.ones(EXAMPLE_BATCH, max_tokens, dtype=torch.int64)},
        {"input_ids": {0: "batch", 1: "sequence"}},
        encoder_outputs(layers=layers, projects=projects, hidden=hidden),
    )


def trace_decoder(vae: nn.Module, channels: int) -> TracedImageGraph:
    """Trace a VAE's decoder with dynamic batch, height and width.

    Args:
        vae: The VAE.
        channels: Of its latents, which are scaled before they come here.
    """
    with attention_in_blocks():
        model = trace_module(
            _DecoderGraph(vae),
            {"latent_sample": torch.zeros(EXAMPLE_BATCH, channels, EXAMPLE_HEIGHT, EXAMPLE_WIDTH)},
            {"latent_sample": {0: "batch", 2: "height", 3: "width"}},
            ("sample",),
        )
    return TracedImageGraph(model, {"latents": "latent_sample"}, {"picture": "sample"})


def trace_module(
    module: nn.Module,
    examples: Mapping[str, torch.Tensor],
    axes: Mapping[str, dict[int, str]],
    outputs: tuple[str, ...],
) -> ir.Model:
    """Trace a module whose forward takes a list of tensors.

    Args:
        module: The module.
        examples: Its inputs by name, in order.
        axes: Of each input, the axes that may be of any size, and their names.
        outputs: Names of its outputs, in order.
    """
    with quiet_exporter():
        program = torch.onnx.export(
            module.eval(),
            (list(examples.values()),),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(examples),
            output_names=list(outputs),
            dynamic_shapes=([axes[name] for name in examples],),
            verbose=False,
        )
    if program is None:  # only where a file name was given
        raise RuntimeError("the exporter returned no program")
    tidy(program.model)
    return program.model
