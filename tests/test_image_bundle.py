"""Reading the bundle of a text-to-image model: each way it can be wrong has its own error."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from lambda_split.bundle import MANIFEST_NAME, ModelSource, describe_files, load_bundle
from lambda_split.bundle_files import SCHEMA
from lambda_split.cli import main
from lambda_split.denoiser_blocks import DenoiserBlocks
from lambda_split.errors import (
    BundleFileAltered,
    BundleFileMissing,
    BundleKindWrong,
    BundleNotFound,
    ManifestInvalid,
    PathOutsideBundle,
    SchemaUnsupported,
)
from lambda_split.image_bundle import (
    Conditioning,
    ImageGraph,
    ImageManifest,
    LatentGeometry,
    SchedulerFile,
    TextEncoder,
    Vae,
    load_image_bundle,
    write_image_manifest,
)

FILES = {
    "text_encoder/model.onnx": b"first",
    "text_encoder_2/model.onnx": b"second",
    "vae_decoder/model.onnx": b"decoder",
    "tokenizer/tokenizer.json": b"{}",
    "scheduler/scheduler_config.json": b"{}",
}


def _graph(folder: str, inputs: dict[str, str], outputs: dict[str, str]) -> ImageGraph:
    return ImageGraph(file=f"{folder}/model.onnx", weights="fp32", inputs=inputs, outputs=outputs)


def _encoder(name: str, width: int) -> TextEncoder:
    return TextEncoder(
        graph=name,
        tokenizer="tokenizer/tokenizer.json",
        pad_token="<|endoftext|>",
        pad_token_id=1,
        width=width,
    )


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    ids = {"token_ids": "input_ids"}
    manifest = ImageManifest(
        schema=SCHEMA,
        kind="text-to-image",
        producer="a test",
        model=ModelSource(id="tiny", family="stable-diffusion-xl", fingerprint="0123456789abcdef"),
        split="whole",
        latents=LatentGeometry(channels=4, scale_factor=8, height=64, width=128),
        encoders=(_encoder("text_encoder", 16), _encoder("text_encoder_2", 32)),
        conditioning=Conditioning(width=48, pooled_width=24, time_ids=True),
        vae=Vae(graph="vae_decoder", kind="full", scaling_factor=0.13025),
        scheduler=SchedulerFile(
            name="EulerDiscreteScheduler", file="scheduler/scheduler_config.json"
        ),
        graphs={
            "text_encoder": _graph("text_encoder", ids, {"hidden": "hidden_states.3"}),
            "text_encoder_2": _graph(
                "text_encoder_2", ids, {"hidden": "hidden_states.3", "pooled": "text_embeds"}
            ),
            "vae_decoder": _graph(
                "vae_decoder", {"latents": "latent_sample"}, {"picture": "sample"}
            ),
        },
        files=describe_files(tmp_path, FILES),
    )
    write_image_manifest(tmp_path, manifest)
    return tmp_path


def _edit(folder: pathlib.Path, change: Callable[[dict], object]) -> None:
    manifest = json.loads((folder / MANIFEST_NAME).read_text())
    change(manifest)
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest))


def test_round_trip(folder) -> None:
    bundle = load_image_bundle(folder)
    assert bundle.manifest.conditioning.pooled_width == 24
    assert bundle.manifest.encoders[1].max_tokens == 77
    assert bundle.file("text_encoder/model.onnx").read_bytes() == b"first"
    write_image_manifest(folder, bundle.manifest)
    assert load_image_bundle(folder).manifest == bundle.manifest
    with pytest.raises(BundleFileMissing):
        bundle.file("manifest.json")


def test_whoever_wants_text_is_told_that_it_makes_pictures(folder) -> None:
    with pytest.raises(BundleKindWrong, match="pictures: use 'lambda-split image'") as caught:
        load_bundle(folder)
    assert (caught.value.path, caught.value.kind) == (str(folder), "text-to-image")


def test_whoever_wants_pictures_is_told_that_it_makes_text(folder) -> None:
    _edit(folder, lambda manifest: manifest.update(kind="causal-lm"))
    with pytest.raises(BundleKindWrong, match="text: use 'lambda-split generate' or"):
        load_image_bundle(folder)


def test_another_kind(folder) -> None:
    _edit(folder, lambda manifest: manifest.update(kind="text-to-video"))
    for load in (load_bundle, load_image_bundle):
        with pytest.raises(ManifestInvalid, match="kind"):
            load(folder)


@pytest.mark.parametrize("kind", ["text-to-image", "text-to-video", 3, None])
def test_another_schema(folder, kind) -> None:
    (folder / MANIFEST_NAME).write_text(json.dumps({"schema": 2, "kind": kind}))
    with pytest.raises(SchemaUnsupported):
        load_image_bundle(folder)


def test_no_manifest(tmp_path) -> None:
    with pytest.raises(BundleNotFound):
        load_image_bundle(tmp_path)


def test_inspect_shows_it(folder, capsys) -> None:
    assert main(["inspect", str(folder)]) == 0
    shown = capsys.readouterr().out
    for words in ("stable-diffusion-xl", "128 × 64", "48 wide, pooled 24, time ids", "unaltered"):
        assert words in shown
    assert main(["inspect", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "text-to-image"
    (folder / "vae_decoder/model.onnx").write_bytes(b"decodes")
    assert main(["inspect", str(folder)]) == 1


def _set(*path_and_value: object) -> Callable[[dict], None]:
    *path, last, value = path_and_value

    def change(manifest: dict) -> None:
        place = manifest
        for step in path:
            place = place[step]
        place[last] = value

    return change


CONTRADICTIONS = {
    "no encoder": _set("encoders", []),
    "an encoder without a graph": _set("encoders", 0, "graph", "text_encoder_3"),
    "an encoder that takes no tokens": _set("graphs", "text_encoder", "inputs", {}),
    "an encoder that gives nothing": _set("graphs", "text_encoder", "outputs", {}),
    "widths that do not add up": _set("encoders", 0, "width", 17),
    "lengths that differ": _set("encoders", 0, "max_tokens", 64),
    "a prompt of one token": _set("encoders", 0, "max_tokens", 1),
    "no pooled embedding where one is wanted": _set(
        "graphs", "text_encoder_2", "outputs", {"hidden": "last_hidden_state"}
    ),
    "a pooled embedding that nobody wants": _set("conditioning", "pooled_width", None),
    "two pooled embeddings": _set("graphs", "text_encoder", "outputs", "pooled", "pooler_output"),
    "no decoder": _set("vae", "graph", "vae_encoder"),
    "a decoder without latents": _set("graphs", "vae_decoder", "inputs", {"sample": "sample"}),
    "a decoder without a picture": _set("graphs", "vae_decoder", "outputs", {}),
    "a scaling factor of zero": _set("vae", "scaling_factor", 0),
    "a negative deviation": _set("vae", "latents_std", [1, 1, 1, -1]),
    "statistics of three channels": _set("vae", "latents_mean", [0, 0, 0]),
    "a mean without a deviation": _set("vae", "latents_mean", [0, 0, 0, 0]),
    "a side that no latents have": _set("latents", "height", 65),
    "a huge side": _set("latents", "height", 1 << 40),
    "a split that nobody knows": _set("split", "half"),
    "weights that nobody knows": _set("graphs", "vae_decoder", "weights", "int3"),
    "a file that is not listed": _set("scheduler", "file", "scheduler.json"),
    "a tokenizer that is not listed": _set("encoders", 1, "tokenizer", "tokenizer.json"),
    "nothing listed": _set("files", {}),
    "a fingerprint that is none": _set("model", "fingerprint", "?"),
}


@pytest.mark.parametrize("change", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_contradictions(folder, change) -> None:
    _edit(folder, change)
    with pytest.raises(ManifestInvalid):
        load_image_bundle(folder)


BLOCKS = DenoiserBlocks(
    first="first", last="last", input_channels=8, output_channels=16, reduction=2, skips=2
)


def _named(*roles: str) -> dict[str, str]:
    return {role: role for role in roles}


@pytest.fixture
def deep(folder) -> pathlib.Path:
    """The same bundle with the denoiser's first and last blocks; their files are the decoder's."""

    def change(manifest: dict) -> None:
        graph = manifest["graphs"]["vae_decoder"]
        between = _named("embedding", "skip.0", "skip.1")
        manifest["split"] = "deep"
        manifest["blocks"] = msgspec.to_builtins(BLOCKS)
        manifest["graphs"]["first"] = graph | {
            "inputs": _named("latents", "timesteps", "pooled", "time_ids"),
            "outputs": _named("features") | between,
        }
        manifest["graphs"]["last"] = graph | {
            "inputs": _named("features") | between,
            "outputs": _named("noise"),
        }

    _edit(folder, change)
    return folder


def test_a_bundle_with_the_denoisers_blocks(deep) -> None:
    manifest = load_image_bundle(deep).manifest
    assert manifest.blocks == BLOCKS
    assert manifest.blocks.skip_roles == ("skip.0", "skip.1")
    for graph in ("first", "last"):  # one that attends
        _edit(deep, _set("graphs", graph, "inputs", "context", "context"))
    load_image_bundle(deep)


WRONG_BLOCKS = {
    "no blocks": _set("blocks", None),
    "blocks of a whole denoiser": _set("split", "whole"),
    "no first graph": _set("blocks", "first", "unet_first"),
    "no last graph": _set("blocks", "last", "unet_last"),
    "first and last exchanged": _set("blocks", "first", "last"),
    "first blocks without latents": _set("graphs", "first", "inputs", {"timesteps": "t"}),
    "first blocks without time": _set("graphs", "first", "inputs", {"latents": "l"}),
    "first blocks told of guidance": _set("graphs", "first", "inputs", "guidance", "g"),
    "first blocks of something else": _set("graphs", "first", "inputs", "mask", "m"),
    "first blocks without features": _set("graphs", "first", "outputs", {"embedding": "e"}),
    "a skip connection too few": _set("blocks", "skips", 3),
    "a skip connection too many": _set("blocks", "skips", 1),
    "no skip connections": _set("blocks", "skips", 0),
    "last blocks without features": _set("graphs", "last", "inputs", {"embedding": "e"}),
    "last blocks told of sizes": _set("graphs", "last", "inputs", "time_ids", "t"),
    "last blocks without noise": _set("graphs", "last", "outputs", {}),
    "another reduction": _set("blocks", "reduction", 4),
    "no channels": _set("blocks", "input_channels", 0),
}


@pytest.mark.parametrize("change", WRONG_BLOCKS.values(), ids=WRONG_BLOCKS)
def test_blocks_that_do_not_fit(deep, change) -> None:
    _edit(deep, change)
    with pytest.raises(ManifestInvalid):
        load_image_bundle(deep)


def test_sizes_are_no_blocks_business_where_the_denoiser_takes_none(deep) -> None:
    _edit(deep, _set("conditioning", "time_ids", False))
    with pytest.raises(ManifestInvalid, match="first blocks"):
        load_image_bundle(deep)


def test_statistics_of_the_latents(folder) -> None:
    def change(manifest: dict) -> None:
        manifest["vae"] |= {"latents_mean": [0, 1, -2, 3], "latents_std": [1, 2, 3, 4]}

    _edit(folder, change)
    assert load_image_bundle(folder).manifest.vae.latents_mean == (0.0, 1.0, -2.0, 3.0)


def test_latents_are_scaled_for_the_decoder() -> None:
    latents = np.arange(24, dtype=np.float32).reshape(1, 4, 2, 3)
    vae = Vae(graph="vae_decoder", kind="full", scaling_factor=0.5)
    assert np.array_equal(vae.decoder_input(latents), latents * 2)
    vae = Vae(graph="vae_decoder", kind="full", scaling_factor=0.5, shift_factor=0.25)
    assert np.array_equal(vae.decoder_input(latents), latents * 2 + 0.25)
    vae = Vae(
        graph="vae_decoder",
        kind="full",
        scaling_factor=2,
        latents_mean=(1, 2, 3, 4),
        latents_std=(4, 3, 2, 1),
    )
    found = vae.decoder_input(latents)
    assert found.dtype == np.float32
    assert np.array_equal(found[:, 1], latents[:, 1] * 1.5 + 2)


@pytest.mark.parametrize(
    "path",
    [
        ("graphs", "vae_decoder", "file"),
        ("encoders", 0, "tokenizer"),
        ("scheduler", "file"),
    ],
)
def test_paths_that_leave_the_folder(folder, path) -> None:
    _edit(folder, _set(*path, "../secret"))
    with pytest.raises(PathOutsideBundle):
        load_image_bundle(folder)


def test_altered_and_missing_files(folder) -> None:
    (folder / "vae_decoder/model.onnx").write_bytes(b"decodes")
    with pytest.raises(BundleFileAltered, match="sha256"):
        load_image_bundle(folder)
    load_image_bundle(folder, check_contents=False)
    (folder / "vae_decoder/model.onnx").unlink()
    with pytest.raises(BundleFileMissing):
        load_image_bundle(folder)
