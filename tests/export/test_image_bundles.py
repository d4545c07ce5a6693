"""Exported pipelines against diffusers: the same numbers, for every batch and size."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from diffusers import DiffusionPipeline
from tokenizers import Tokenizer

from export import ImageExportSettings, export_image_bundle
from lambda_split.bundle import load_bundle
from lambda_split.errors import (
    BundleFileAltered,
    BundleKindWrong,
    CheckpointInvalid,
    OutputExists,
    UnsupportedFamily,
    UsageError,
    VerificationFailed,
)
from lambda_split.image_bundle import ImageBundle, load_image_bundle
from lambda_split.partition.pipelines import open_pipeline
from tests.partition.test_pipelines import edit, spoil
from tests.tiny_pipelines import MAX_TOKENS, PIPELINES, build_tiny_vae

PROMPTS = ["a red circle on the left of a blue square", "", "Ünïcode! 23 cats, " * 20]
SIZES = [(1, 8, 8), (2, 5, 9), (3, 12, 4), (1, 1, 1)]
# Largest error against values of about 1, and smallest PSNR.
ENCODER_ERRORS = {"fp32": 1e-4, "fp16": 2e-2, "int8": 2.0}
PSNR = {"fp32": 100.0, "fp16": 60.0, "int8": 20.0}

QUICK = [("sdxl", "int8"), ("sd1", "fp16")]
SLOW = [
    *((name, weights) for name in PIPELINES for weights in ("fp32", "fp16", "int8")),
]
COMBINATIONS = [
    pytest.param(*one, marks=() if one in QUICK else (pytest.mark.slow, pytest.mark.exhaustive))
    for one in SLOW
]


def session(bundle: ImageBundle, graph: str) -> onnxruntime.InferenceSession:
    path = bundle.file(bundle.manifest.graphs[graph].file)
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def token_ids(bundle: ImageBundle, number: int, prompts: list[str]) -> np.ndarray:
    """As a device computes them."""
    encoder = bundle.manifest.encoders[number]
    tokenizer = Tokenizer.from_file(str(bundle.file(encoder.tokenizer)))
    tokenizer.enable_truncation(encoder.max_tokens)
    tokenizer.enable_padding(
        length=encoder.max_tokens, pad_id=encoder.pad_token_id, pad_token=encoder.pad_token
    )
    return np.array([tokenizer.encode(prompt).ids for prompt in prompts], np.int64)


@pytest.fixture(scope="session")
def whole(pipeline_folder):
    made = {}

    def load(name: str) -> DiffusionPipeline:
        if name not in made:
            made[name] = DiffusionPipeline.from_pretrained(pipeline_folder(name))
        return made[name]

    return load


def conditioning(bundle: ImageBundle, prompts: list[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """What a device sends: joined hidden states, and the pooled embedding."""
    hidden, pooled = [], None
    for number, encoder in enumerate(bundle.manifest.encoders):
        graph = bundle.manifest.graphs[encoder.graph]
        ids = token_ids(bundle, number, prompts)
        found = session(bundle, encoder.graph).run(
            list(graph.outputs.values()), {graph.inputs["token_ids"]: ids}
        )
        outputs = dict(zip(graph.outputs, found, strict=True))
        hidden.append(outputs["hidden"])
        pooled = outputs.get("pooled", pooled)
    return np.concatenate(hidden, axis=-1), pooled


@pytest.mark.parametrize(("name", "weights"), COMBINATIONS)
def test_conditioning_is_that_of_diffusers(export_images, whole, name, weights) -> None:
    bundle = export_images(name, weights)
    assert bundle.manifest.encoders[0].max_tokens == MAX_TOKENS
    limit = ENCODER_ERRORS[weights]
    for count in (1, 2, 3):
        prompts = PROMPTS[:count]
        hidden, pooled = conditioning(bundle, prompts)
        with torch.inference_mode():
            reference = whole(name).encode_prompt(
                prompts, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
            )
        assert hidden.dtype == np.float32
        assert hidden.shape == (count, MAX_TOKENS, bundle.manifest.conditioning.width)
        assert np.abs(hidden - reference[0].numpy()).max() < limit
        if bundle.manifest.conditioning.pooled_width is None:
            assert pooled is None
        else:
            assert pooled.shape == (count, bundle.manifest.conditioning.pooled_width)
            assert np.abs(pooled - reference[2].numpy()).max() < limit


@pytest.mark.parametrize(("name", "weights"), COMBINATIONS)
def test_pictures_are_those_of_diffusers(export_images, whole, name, weights) -> None:
    bundle = export_images(name, weights)
    vae, graph = bundle.manifest.vae, bundle.manifest.graphs["vae_decoder"]
    decoder = session(bundle, "vae_decoder")
    generator = np.random.default_rng(3)
    scale = bundle.manifest.latents.scale_factor
    errors = []
    for batch, height, width in SIZES:
        latents = generator.standard_normal((batch, 4, height, width), np.float32)
        with torch.inference_mode():
            scaled = torch.from_numpy(latents) / whole(name).vae.config.scaling_factor
            reference = whole(name).vae.decode(scaled).sample.numpy()
        (picture,) = decoder.run(
            [graph.outputs["picture"]], {graph.inputs["latents"]: vae.decoder_input(latents)}
        )
        assert picture.shape == (batch, 3, height * scale, width * scale)
        errors.append((picture - reference).reshape(-1))
    error = np.sqrt(np.mean(np.square(np.concatenate(errors))))
    assert 20 * np.log10(2 / error) > PSNR[weights]


def test_what_the_manifest_says(export_images, pipeline_folder) -> None:
    bundle = export_images("sdxl", "int8")
    manifest = bundle.manifest
    pipeline = open_pipeline(str(pipeline_folder("sdxl")))
    assert manifest.model.id == "tiny-pipeline"
    assert manifest.model.family == "stable-diffusion-xl"
    assert manifest.model.fingerprint == pipeline.fingerprint
    assert manifest.model.witnesses == pipeline.witnesses()
    assert manifest.split == "whole"
    assert (manifest.latents.height, manifest.latents.scale_factor) == (64, 4)
    assert [encoder.pad_token_id for encoder in manifest.encoders] == [566, 0]
    conditioned = manifest.conditioning
    assert (conditioned.width, conditioned.pooled_width, conditioned.time_ids) == (80, 40, True)
    assert conditioned.force_zeros_for_empty_prompt
    assert manifest.scheduler.name == "EulerDiscreteScheduler"
    scheduler = json.loads(bundle.file(manifest.scheduler.file).read_text())
    assert scheduler["timestep_spacing"] == "leading"
    assert (manifest.vae.kind, manifest.vae.scaling_factor) == ("full", 0.13025)
    assert manifest.graphs["text_encoder"].outputs == {"hidden": "hidden_states.2"}
    assert manifest.graphs["text_encoder_2"].outputs == {
        "hidden": "hidden_states.3",
        "pooled": "text_embeds",
    }
    check = manifest.verification
    assert check.encoders.keys() == {"text_encoder", "text_encoder_2"}
    assert 0.9 < check.encoders["text_encoder"].cosine < 1
    assert 20 < check.vae.psnr < 60
    on_disk = {
        path.relative_to(bundle.path).as_posix()
        for path in bundle.path.rglob("*")
        if path.is_file()
    }
    assert on_disk == manifest.files.keys() | {"manifest.json"}


def test_text_users_are_told(export_images) -> None:
    with pytest.raises(BundleKindWrong, match="lambda-split image"):
        load_bundle(export_images("sdxl", "int8").path)


@pytest.mark.slow
def test_the_guidance_embedding_of_a_distilled_model(export_images) -> None:
    manifest = export_images("lcm", "fp32").manifest
    assert manifest.conditioning.guidance_embedding == 24
    assert manifest.scheduler.name == "LCMScheduler"


def test_graphs_say_nothing_about_the_machine(export_images) -> None:
    for bundle in (export_images("sdxl", "int8"), export_images("sd1", "fp16")):
        for graph in bundle.manifest.graphs.values():
            raw = bundle.file(graph.file).read_bytes()
            assert b"site-packages" not in raw
            assert b".py" not in raw
        for name in bundle.manifest.files:
            if name.endswith("config.json"):
                assert "_name_or_path" not in json.loads(bundle.file(name).read_text())


def test_int8_is_computed_in_integers(export_images) -> None:
    bundle = export_images("sdxl", "int8")

    def operators(graph: str) -> list[str]:
        path = bundle.file(bundle.manifest.graphs[graph].file)
        return [node.op_type for node in onnx.load(path, load_external_data=False).graph.node]

    encoder = operators("text_encoder")
    assert encoder.count("MatMulInteger") == 3 * 6  # six linear layers in each of three
    assert "GatherBlockQuantized" in encoder
    decoder = operators("vae_decoder")
    assert decoder.count("QuantizeLinear") > 10
    assert decoder.count("DequantizeLinear") > decoder.count("QuantizeLinear")


def test_half_precision_is_half_the_size(export_images, whole) -> None:
    bundle = export_images("sd1", "fp16")
    decoder = whole("sd1").vae.decoder
    stored = 4 * sum(parameter.numel() for parameter in decoder.parameters())
    assert bundle.manifest.files["vae_decoder/weights.data"].size < 0.6 * stored


def test_an_altered_graph(export_images, tmp_path) -> None:
    folder = tmp_path / "pictures"
    shutil.copytree(export_images("sd1", "fp16").path, folder)
    path = folder / "vae_decoder/weights.data"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(BundleFileAltered, match="vae_decoder"):
        load_image_bundle(folder)


@pytest.mark.parametrize(
    ("weights", "settings"), [("fp16", {}), ("int8", {"calibration_steps": 0})]
)
def test_the_unets_weights_are_not_read(pipeline_folder, tmp_path, weights, settings) -> None:
    folder = tmp_path / "pipeline"
    shutil.copytree(pipeline_folder("sd1"), folder)
    unet = folder / "unet/diffusion_pytorch_model.safetensors"
    raw = unet.read_bytes()
    header = 8 + int.from_bytes(raw[:8], "little")
    unet.write_bytes(raw[:header] + b"\xff" * (len(raw) - header))  # all of them not a number
    spoil(folder, "unet", "text_encoder", "tokenizer", "vae", "scheduler", "model_index.json")
    chosen = ImageExportSettings(weights=weights, **settings)
    manifest = export_image_bundle(str(folder), tmp_path / "out", chosen)
    assert manifest.verification.vae.psnr > PSNR[weights]


def test_pictures_that_are_no_numbers_cannot_calibrate(pipeline_folder, tmp_path) -> None:
    folder = tmp_path / "pipeline"
    shutil.copytree(pipeline_folder("sd1"), folder)
    unet = folder / "unet/diffusion_pytorch_model.safetensors"
    raw = unet.read_bytes()
    header = 8 + int.from_bytes(raw[:8], "little")
    unet.write_bytes(raw[:header] + b"\xff" * (len(raw) - header))
    chosen = ImageExportSettings(weights="int8", calibration_steps=1)
    with pytest.raises(UsageError, match="calibrate-steps 0"):
        export_image_bundle(str(folder), tmp_path / "out", chosen)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def changed(pipeline_folder, tmp_path):
    """A copy of the SD 1.x pipeline that a test may change."""
    folder = tmp_path / "pipeline"
    shutil.copytree(pipeline_folder("sd1"), folder)
    return folder


def _refused(folder, tmp_path, error, **settings) -> str:
    chosen = ImageExportSettings(**{"weights": "fp32", **settings})
    with pytest.raises(error) as caught:
        export_image_bundle(str(folder), tmp_path / "out", chosen)
    assert not (tmp_path / "out").exists()
    return str(caught.value)


@pytest.mark.slow
def test_an_encoder_of_another_width(changed, tmp_path) -> None:
    edit(changed / "unet/config.json", cross_attention_dim=64)
    assert "cross_attention_dim" in _refused(changed, tmp_path, CheckpointInvalid)


def test_a_tokenizer_with_more_tokens_than_its_encoder(changed, tmp_path) -> None:
    path = changed / "tokenizer/vocab.json"
    edit(path, extra=567)
    assert "568 tokens" in _refused(changed, tmp_path, CheckpointInvalid)


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_a_tokenizer_that_is_none(changed, tmp_path, name) -> None:
    (changed / "tokenizer" / name).write_bytes(b"\xff[")
    _refused(changed, tmp_path, CheckpointInvalid)


def test_no_tokenizer(changed, tmp_path) -> None:
    for path in (changed / "tokenizer").iterdir():
        path.unlink()
    assert "no tokenizer" in _refused(changed, tmp_path, CheckpointInvalid)


def test_a_tokenizer_that_pads_with_what_it_lacks(changed, tmp_path) -> None:
    edit(changed / "tokenizer/tokenizer_config.json", pad_token="<pad>")
    _refused(changed, tmp_path, CheckpointInvalid)


def test_a_decoder_that_makes_no_numbers(changed, tmp_path) -> None:
    edit(changed / "vae/config.json", scaling_factor=0)
    assert "scaling_factor" in _refused(changed, tmp_path, CheckpointInvalid)


def test_an_unknown_pipeline(changed, tmp_path) -> None:
    edit(changed / "model_index.json", _class_name="FluxPipeline")
    assert "FluxPipeline" in _refused(changed, tmp_path, UnsupportedFamily)


def test_an_output_that_is_there(changed, tmp_path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputExists):
        export_image_bundle(str(changed), tmp_path / "out")


@pytest.mark.slow
def test_a_tiny_decoder_for_another_pipeline(changed, tmp_path) -> None:
    torch.manual_seed(1)
    tiny = build_tiny_vae(tiny=True)
    tiny.save_pretrained(changed / "vae_tiny")
    out = tmp_path / "out"
    chosen = ImageExportSettings(weights="fp32", vae="tiny")
    manifest = export_image_bundle(str(changed), out, chosen)
    assert (manifest.vae.kind, manifest.vae.scaling_factor) == ("tiny", 1.0)
    bundle = load_image_bundle(out)
    latents = np.random.default_rng(0).standard_normal((1, 4, 6, 10), np.float32)
    (picture,) = session(bundle, "vae_decoder").run(None, {"latent_sample": latents})
    expected = tiny.decode(torch.from_numpy(latents)).sample.detach().numpy()
    assert np.abs(picture - expected).max() < 1e-4


def test_a_graph_that_computes_something_else(changed, tmp_path, monkeypatch) -> None:
    from export.images import encoders

    original = encoders.run_graph

    def wrong(path, graph, feeds):
        return {role: value[::-1] for role, value in original(path, graph, feeds).items()}

    monkeypatch.setattr(encoders, "run_graph", wrong)
    assert "relative error" in _refused(changed, tmp_path, VerificationFailed)
