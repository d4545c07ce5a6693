"""The denoiser's first and last blocks as graphs, against the whole UNet in PyTorch."""

from __future__ import annotations

import shutil

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from export import ImageExportSettings, export_image_bundle
from export.images.denoiser_runs import RunRecorder, artificial_runs
from export.images.half import store_half
from export.images.verification import compare_blocks
from lambda_split.errors import CheckpointInvalid, UnsupportedFamily, VerificationFailed
from lambda_split.image_bundle import ImageBundle
from lambda_split.partition.pipelines import load_unet, open_pipeline
from lambda_split.partition.pipelines.deep import InnerBlocks, Told, embedded_guidance
from tests.partition.test_pipelines import edit

# Rows, height and width of the latents: odd ones, halves that are odd, single ones.
SIZES = [(1, 8, 8), (2, 6, 10), (3, 7, 9), (1, 5, 4), (2, 1, 1)]
# Largest root-mean-square error of the noise over its deviation, for random weights. Group norms
# over a single position have a handful of numbers each and magnify what a format loses.
ERRORS = {"fp32": 5e-5, "fp16": 2e-3, "int8": 0.3}
SINGLE_ERRORS = {"fp32": 5e-5, "fp16": 2e-3, "int8": 0.5}
# Of the embedded time, sizes and guidance, which both parts and all layers hang on.
EMBEDDING_ERRORS = {"fp32": 1e-4, "fp16": 2e-3, "int8": 2e-3}
QUICK = [("sdxl", "int8"), ("lcm", "fp32")]
ALL = [(name, weights) for name in ("sdxl", "sd1", "sd2", "lcm") for weights in ERRORS]
COMBINATIONS = [
    pytest.param(*one, marks=() if one in QUICK else (pytest.mark.slow, pytest.mark.exhaustive))
    for one in ALL
]


def session(bundle: ImageBundle, graph: str) -> onnxruntime.InferenceSession:
    path = bundle.file(bundle.manifest.graphs[graph].file)
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def inputs(bundle: ImageBundle, rows: int, height: int, width: int) -> dict[str, torch.Tensor]:
    """What a denoiser takes, by role."""
    told = bundle.manifest.conditioning
    generator = torch.Generator().manual_seed(height)
    given = {
        "latents": torch.randn(rows, 4, height, width, generator=generator),
        "timesteps": torch.full((rows,), 601.0),
        "context": torch.randn(rows, 77, told.width, generator=generator),
    }
    if told.pooled_width is not None:
        given["pooled"] = torch.randn(rows, told.pooled_width, generator=generator)
    if told.time_ids:
        sizes = [4.0 * height, 4.0 * width]
        given["time_ids"] = torch.tensor([[*sizes, 0.0, 0.0, *sizes]]).expand(rows, -1)
    if told.guidance_embedding is not None:
        given["guidance"] = torch.full((rows,), 7.5)
    return given


@pytest.mark.parametrize(("name", "weights"), COMBINATIONS)
@torch.inference_mode()
def test_the_graphs_and_the_trunk_are_the_whole_denoiser(
    export_images, pipeline_folder, name, weights
) -> None:
    bundle = export_images(name, weights, split="deep")
    manifest = bundle.manifest
    blocks = manifest.blocks
    graphs = {one: manifest.graphs[one] for one in (blocks.first, blocks.last)}
    sessions = {one: session(bundle, one) for one in graphs}

    def run(graph: str, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        described = graphs[graph]
        feed = {name: given[role] for role, name in described.inputs.items()}
        found = sessions[graph].run(list(described.outputs.values()), feed)
        return dict(zip(described.outputs, found, strict=True))

    unet = load_unet(open_pipeline(str(pipeline_folder(name))))
    inner = InnerBlocks(unet)
    for rows, height, width in SIZES:
        given = inputs(bundle, rows, height, width)
        added = embedded = None
        if "pooled" in given:
            added = {"text_embeds": given["pooled"], "time_ids": given["time_ids"]}
        if "guidance" in given:
            embedded = embedded_guidance(given["guidance"], 24)
        arrays = {role: tensor.numpy() for role, tensor in given.items()}
        found = run(blocks.first, arrays)
        features = found.pop("features")
        half = (-(-height // 2), -(-width // 2))
        assert features.shape == (rows, blocks.input_channels, *half)
        told = Told(given["timesteps"], given["context"], added, embedded)
        embedding = told.embedding(unet, given["latents"]).numpy()
        error = np.sqrt(np.mean((found["embedding"] - embedding) ** 2)) / embedding.std()
        assert error < EMBEDDING_ERRORS[weights]
        returned = inner(torch.from_numpy(features), told).numpy()
        assert returned.shape == (rows, blocks.output_channels, *half)
        noise = run(blocks.last, {**arrays, **found, "features": returned})["noise"]
        expected = unet(
            given["latents"],
            given["timesteps"],
            encoder_hidden_states=given["context"],
            timestep_cond=embedded,
            added_cond_kwargs=added,
        ).sample.numpy()
        assert noise.dtype == np.float32
        assert noise.shape == expected.shape
        error = np.sqrt(np.mean((noise - expected) ** 2)) / expected.std()
        assert error < (SINGLE_ERRORS if height == width == 1 else ERRORS)[weights]


def test_what_the_manifest_says(export_images) -> None:
    manifest = export_images("sdxl", "int8", split="deep").manifest
    blocks = manifest.blocks
    assert manifest.split == "deep"
    assert (blocks.input_channels, blocks.output_channels, blocks.reduction) == (32, 48, 2)
    assert blocks.skip_roles == ("skip.0", "skip.1")
    first, last = manifest.graphs[blocks.first], manifest.graphs[blocks.last]
    assert first.inputs.keys() == {"latents", "timesteps", "pooled", "time_ids"}
    assert first.outputs.keys() == {"features", "embedding", *blocks.skip_roles}
    assert last.inputs.keys() == {"features", "embedding", *blocks.skip_roles}
    check = manifest.verification.blocks
    assert check.steps == 2
    assert 0 < check.features < 0.1
    assert 0 < check.noise < 0.1


def test_a_distilled_model_attends_and_is_told_its_guidance(export_images) -> None:
    manifest = export_images("lcm", "fp32", split="deep").manifest
    first, last = (manifest.graphs[name] for name in ("unet_first", "unet_last"))
    assert first.inputs.keys() == {"latents", "timesteps", "context", "guidance"}
    assert "context" in last.inputs


def test_int8_is_computed_in_integers(export_images) -> None:
    bundle = export_images("sdxl", "int8", split="deep")
    for graph in ("unet_first", "unet_last"):
        path = bundle.file(bundle.manifest.graphs[graph].file)
        model = onnx.load(path, load_external_data=False)
        operators = [node.op_type for node in model.graph.node]
        assert operators.count("QuantizeLinear") >= 2
        assert operators.count("MatMulInteger") >= 1
        raw = path.read_bytes()
        assert b"site-packages" not in raw
        assert b".py" not in raw


def test_half_precision_is_for_matrices_alone() -> None:
    parsed = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 18]> graph (float[B] times) => (float[B,2] y) '
        "<float[1,2] frequencies = {1.0001, 0.50001}, float[2,2] matrix = {1.0, 2.0, 3.0, 4.0}, "
        "int64[1] last = {1}> { column = Unsqueeze(times, last)\n"
        " angles = Mul(column, frequencies)\n y = MatMul(angles, matrix) }"
    )
    model = ir.from_proto(parsed)
    store_half(model)
    stored = {name: value.dtype for name, value in model.graph.initializers.items()}
    assert stored["frequencies"] == ir.DataType.FLOAT
    assert stored["matrix.half"] == ir.DataType.FLOAT16
    onnx.checker.check_model(ir.to_proto(model))


# --- what ranges come from ------------------------------------------------------------------------


def test_a_recorder_keeps_every_third_run() -> None:
    recorder = RunRecorder()
    for number in range(7):
        named = {"encoder_hidden_states": torch.ones(2, 3, 4), "timestep_cond": torch.ones(2, 5)}
        recorder((torch.full((2, 4, 8, 8), float(number)), torch.tensor(number)), named)
    assert [float(run["timesteps"][1]) for run in recorder.runs] == [0.0, 3.0, 6.0]
    assert recorder.runs[1]["latents"].unique().tolist() == [3.0]
    assert recorder.runs[0]["guidance"].tolist() == [5.0, 5.0]
    assert "pooled" not in recorder.runs[0]


def test_artificial_runs_are_of_all_times(pipeline_folder) -> None:
    facts = open_pipeline(str(pipeline_folder("sdxl"))).facts
    runs = artificial_runs(4, facts, torch.ones(3, 77, 80), torch.ones(3, 40))
    assert [float(run["timesteps"]) for run in runs] == [875.0, 625.0, 375.0, 125.0]
    assert all(run["time_ids"].shape == (1, 6) for run in runs)


@pytest.mark.slow
def test_artificial_latents_calibrate_too(pipeline_folder, tmp_path) -> None:
    chosen = ImageExportSettings(split="deep", weights="int8", calibration_steps=0)
    manifest = export_image_bundle(str(pipeline_folder("sd1")), tmp_path / "out", chosen)
    assert manifest.verification.blocks.noise < 0.2


# --- what is refused ------------------------------------------------------------------------------


@pytest.fixture
def changed(pipeline_folder, tmp_path):
    """A copy of the SD 1.x pipeline that a test may change."""
    folder = tmp_path / "pipeline"
    shutil.copytree(pipeline_folder("sd1"), folder)
    return folder


def test_a_denoiser_of_one_block(changed, tmp_path) -> None:
    edit(
        changed / "unet/config.json",
        block_out_channels=[32],
        down_block_types=["CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D"],
    )
    with pytest.raises(UnsupportedFamily, match="too few blocks"):
        export_image_bundle(
            str(changed), tmp_path / "out", ImageExportSettings(split="deep", weights="fp32")
        )
    assert not (tmp_path / "out").exists()


def test_a_denoiser_that_cannot_be_read(changed, tmp_path) -> None:
    path = changed / "unet/diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointInvalid):
        export_image_bundle(
            str(changed), tmp_path / "out", ImageExportSettings(split="deep", weights="fp32")
        )


@pytest.mark.parametrize("wrong", ["features", "noise"])
def test_blocks_that_compute_something_else(wrong) -> None:
    right = np.random.default_rng(0).standard_normal((2, 4, 6, 6), np.float32)
    pairs = {"features": [(right, right)], "noise": [(right, right)]}
    assert compare_blocks(**pairs, weights="fp32").noise == 0
    pairs[wrong] = [(right, right[::-1])]
    with pytest.raises(VerificationFailed, match=wrong):
        compare_blocks(**pairs, weights="int8")
    pairs[wrong] = [(right, right * np.float32(np.nan))]
    with pytest.raises(VerificationFailed, match=wrong):
        compare_blocks(**pairs, weights="int8")
