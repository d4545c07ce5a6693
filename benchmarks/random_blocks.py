"""A published UNet's first and last blocks with random weights, as ``export`` writes them."""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import UNet2DConditionModel

from edge_runtime.graph_session import RuntimeSettings, open_session
from edge_runtime.pictures.blocks import BlockRunner
from edge_runtime.pictures.graphs import PictureGraph
from export.images.block_graphs import told_of, trace_first, trace_last
from export.images.dynamic_int8 import replace_linear_layers
from export.images.graphs import TracedImageGraph
from export.images.half import store_half
from export.images.static_int8 import quantize_convolutions
from export.progress import QuietProgress
from export.weight_file import WeightFile, write_graph
from lambda_split.image_bundle import ImageGraph
from lambda_split.partition.pipelines import UNetFacts
from lambda_split.partition.pipelines.deep import FirstBlocks, LastBlocks, deep_geometry

__all__ = ["MODELS", "Blocks", "random_blocks", "rows_of"]

CHANNELS, TOKENS, POOLED = 4, 77, 1280
SIDE = 32  # of the latents that ranges come from
Shapes = Mapping[str, tuple[int, ...]]

# The published UNets' configs, as far as they differ from the library's defaults.
MODELS: dict[str, dict[str, object]] = {
    "sdxl": {
        "sample_size": 128,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": [1, 2, 10],
        "attention_head_dim": [5, 10, 20],
        "use_linear_projection": True,
        "cross_attention_dim": 2048,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    "sd15": {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
}


@dataclass(frozen=True)
class Blocks:
    """Blocks that are measured.

    Attributes:
        runner: Runs them.
        told: Shapes of what they are told, by role, without the rows.
        nbytes: Of their files.
    """

    runner: BlockRunner
    told: Shapes
    nbytes: int


def rows_of(told: Shapes, rows: int) -> dict[str, npt.NDArray[np.float32]]:
    """Random conditioning."""
    random = np.random.default_rng(0)
    return {
        role: random.standard_normal((rows, *shape), np.float32) for role, shape in told.items()
    }


@contextmanager
def random_blocks(model: str, weights: str, settings: RuntimeSettings) -> Iterator[Blocks]:
    """Make, trace and load them.

    Args:
        model: One of ``MODELS``.
        weights: ``fp32``, ``fp16`` or ``int8``.
        settings: Threads.
    """
    with torch.device("meta"):  # the inner part, nearly all of it, is never made
        library: Any = UNet2DConditionModel  # the library's own types are partial
        unet = library(**MODELS[model])
    geometry = deep_geometry(unet)
    if geometry is None:
        raise SystemExit(f"{model} has no deep split")
    first, last = FirstBlocks(unet), LastBlocks(unet)
    torch.manual_seed(0)
    for part in (first, last):
        _fill(part)
    facts = _facts(model)
    told: dict[str, tuple[int, ...]] = {"context": (TOKENS, facts.conditioning_width)}
    told |= {"pooled": (POOLED,), "time_ids": (6,)} if facts.time_ids else {}
    given = {role: torch.from_numpy(value) for role, value in rows_of(told, 1).items()}
    given |= {"latents": torch.randn(1, CHANNELS, SIDE, SIDE), "timesteps": torch.tensor([500.0])}
    with torch.inference_mode():
        features, embedding, *skips = first(given["latents"], told_of(given, facts))
    inner = torch.randn(1, geometry.output_channels, *features.shape[2:])
    feed = {"features": inner, "embedding": embedding, "context": given["context"]}
    feed |= {f"skip.{number}": skip for number, skip in enumerate(skips)}
    if weights == "int8":
        for blocks in (first.block, last.block):
            replace_linear_layers(blocks, QuietProgress())
    with tempfile.TemporaryDirectory() as temporary:
        folders = [pathlib.Path(temporary) / name for name in ("unet_first", "unet_last")]
        traced = [trace_first(first, facts, len(skips)), trace_last(last, facts, feed)]
        first_graph, last_graph = (
            _written(folder, one, example, weights, settings)
            for folder, one, example in zip(folders, traced, (given, feed), strict=True)
        )
        nbytes = sum(path.stat().st_size for folder in folders for path in folder.iterdir())
        yield Blocks(BlockRunner(first_graph, last_graph, geometry), told, nbytes)


def _fill(part: torch.nn.Module) -> None:
    part.to_empty(device="cpu").eval().requires_grad_(requires_grad=False)
    for module in part.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()


def _facts(model: str) -> UNetFacts:
    config, xl = MODELS[model], model == "sdxl"
    return UNetFacts(
        latent_channels=CHANNELS,
        conditioning_width=int(str(config["cross_attention_dim"])),
        pooled_width=POOLED if xl else None,
        time_ids=xl,
        guidance_embedding=None,
        height=int(str(config["sample_size"])),
        width=int(str(config["sample_size"])),
    )


def _written(
    folder: pathlib.Path,
    traced: TracedImageGraph,
    example: Mapping[str, torch.Tensor],
    weights: str,
    settings: RuntimeSettings,
) -> PictureGraph:
    folder.mkdir()
    model = traced.model
    with tempfile.TemporaryDirectory() as scratch:
        if weights == "int8":
            feeds = [{role: example[role].numpy() for role in traced.inputs}]
            model = quantize_convolutions(model, feeds, pathlib.Path(scratch))
        if weights != "fp32":
            store_half(model)
        with WeightFile(folder) as weight_file:
            write_graph(model, folder / "model.onnx", weight_file)
            weight_file.finish()
        del model  # it holds files of the scratch folder
    session = open_session(folder / "model.onnx", folder.name, settings)
    graph = ImageGraph(
        file=folder.name, weights="fp32", inputs=traced.inputs, outputs=traced.outputs
    )
    return PictureGraph(session, graph)
