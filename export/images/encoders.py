"""One text encoder: load, compute the reference, pack, trace, write, verify."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from export.images.dynamic_int8 import replace_linear_layers
from export.images.graphs import trace_encoder
from export.images.tokenizer import ClipTokenizer, read_clip_tokenizer
from export.images.verification import compare_encoder, run_graph
from export.images.workplace import Workplace
from export.weights import replace_weights
from lambda_split.errors import CheckpointInvalid
from lambda_split.image_bundle import EncoderVerification, ImageGraph, TextEncoder
from lambda_split.partition.pipelines import Component, load_text_encoder

__all__ = ["ExportedEncoder", "export_encoder", "sample_prompts"]

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_PROMPTS = Path(__file__).with_name("prompts.txt")


@dataclass(frozen=True)
class ExportedEncoder:
    """What an encoder became.

    Attributes:
        entry: For the manifest.
        graph: For the manifest.
        verification: For the manifest.
        outputs: What PyTorch computes for each of :func:`sample_prompts`, by role.
    """

    entry: TextEncoder
    graph: ImageGraph
    verification: EncoderVerification
    outputs: dict[str, Floats] = field(repr=False)


def sample_prompts() -> list[str]:
    """What encoders are measured on: some prompts, and last the empty one."""
    return [*_PROMPTS.read_text(encoding="utf-8").splitlines(), ""]


def export_encoder(work: Workplace, name: str) -> ExportedEncoder:
    """Write one text encoder with its tokenizer; what was loaded is released on return.

    Args:
        work: The export.
        name: One of ``work.pipeline.text_encoders``.

    Raises:
        CheckpointError: it cannot be read, or does not fit the denoiser.
        VerificationFailed: the graph is too far from PyTorch.
        OutputNotWritable: it cannot be written.
    """
    component = work.pipeline.text_encoder(name)
    roles = _roles(work, component)
    tokenizer = read_clip_tokenizer(
        work.pipeline.files,
        name.replace("text_encoder", "tokenizer"),
        positions=_number(component, "max_position_embeddings"),
        vocabulary=_number(component, "vocab_size"),
    )
    token_ids = np.array([tokenizer.encode(prompt) for prompt in sample_prompts()], np.int64)
    file, expected = _write_graph(work, component, roles, token_ids)
    work.write_files(tokenizer.folder, tokenizer.contents)
    gc.collect()  # traced programs refer to themselves; what comes next needs their memory
    weights = work.settings.weights
    graph = ImageGraph(file=file, weights=weights, inputs={"token_ids": "input_ids"}, outputs=roles)
    work.progress.stage(f"verifying {name}", 1)
    found = run_graph(work.folder / file, graph, [row[None] for row in token_ids])
    verification = compare_encoder(name, expected, found, weights)
    work.progress.advance()
    return ExportedEncoder(_entry(name, component, tokenizer), graph, verification, expected)


def _number(component: Component, name: str) -> int:
    return int(str(component.config[name]))  # was checked when the component was read


def _entry(name: str, component: Component, tokenizer: ClipTokenizer) -> TextEncoder:
    return TextEncoder(
        graph=name,
        tokenizer=f"{tokenizer.folder}/tokenizer.json",
        max_tokens=tokenizer.max_tokens,
        pad_token=tokenizer.pad_token,
        pad_token_id=tokenizer.pad_token_id,
        width=_number(component, "hidden_size"),
    )


def _roles(work: Workplace, component: Component) -> dict[str, str]:
    """Which outputs the denoiser is told: of SDXL's encoders those of the layer before the last."""
    if work.pipeline.family == "stable-diffusion":
        return {"hidden": "last_hidden_state"}
    roles = {"hidden": f"hidden_states.{_number(component, 'num_hidden_layers') - 1}"}
    if _projects(component):
        width, wanted = component.config.get("projection_dim"), work.pipeline.facts.pooled_width
        if width != wanted:
            reason = f"projection_dim is {width}, the UNet takes {wanted}"
            raise CheckpointInvalid(component.file("config.json"), reason)
        roles["pooled"] = "text_embeds"
    return roles


def _projects(component: Component) -> bool:
    return component.class_name == "CLIPTextModelWithProjection"


def _write_graph(
    work: Workplace, component: Component, roles: dict[str, str], token_ids: Ints
) -> tuple[str, dict[str, Floats]]:
    name, weights, progress = component.name, work.settings.weights, work.progress
    progress.stage(f"loading {name}", 2)
    encoder = load_text_encoder(work.pipeline, name, half=weights != "fp32")
    progress.advance()
    expected = _reference(encoder, roles, token_ids)
    progress.advance()
    if weights == "int8":
        replace_linear_layers(encoder, progress)
    embedding: Any = encoder.get_input_embeddings
    replace_weights(encoder, weights, token_embedding=embedding(), progress=progress)
    progress.stage(f"tracing {name}", 1)
    model = trace_encoder(
        encoder,
        layers=_number(component, "num_hidden_layers"),
        projects=_projects(component),
        hidden=work.pipeline.family == "stable-diffusion-xl",
        max_tokens=token_ids.shape[1],
    )
    progress.advance()
    return work.write_graph(name, model, component), expected


@torch.inference_mode()
def _reference(encoder: nn.Module, roles: dict[str, str], token_ids: Ints) -> dict[str, Floats]:
    wanted: dict[str, list[Floats]] = {role: [] for role in roles}
    for row in token_ids:  # one at a time: all hidden states of all prompts would be large
        found: Any = encoder(torch.from_numpy(row[None]), output_hidden_states=True)
        for role, output in roles.items():
            kind, _, layer = output.partition(".")
            tensor = found.hidden_states[int(layer)] if layer else getattr(found, kind)
            wanted[role].append(tensor.numpy().copy())
    return {role: np.concatenate(rows) for role, rows in wanted.items()}
