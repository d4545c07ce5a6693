"""Cutting a text-to-image pipeline: each part from its own files, and one identity for all."""

from __future__ import annotations

import json
import pathlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from diffusers import DiffusionPipeline
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from lambda_split.errors import (
    CheckpointInvalid,
    CheckpointNotFound,
    TensorMismatch,
    TensorMissing,
    UnsafeWeights,
    UnsupportedFamily,
    UsageError,
)
from lambda_split.partition.pipelines import (
    Pipeline,
    is_pipeline,
    load_text_encoder,
    load_text_encoders,
    load_unet,
    load_vae,
    open_pipeline,
)
from tests.hub_server import COMMIT, HubServer, serve_hub
from tests.partition.test_hub import use_endpoint
from tests.tiny_pipelines import MAX_TOKENS, PIPELINES, build_tiny_vae, save_tiny_pipeline

REPOSITORY = "owner/pictures"
UNET_FILE = "unet/diffusion_pytorch_model.safetensors"


@dataclass(frozen=True)
class TinyFolder:
    folder: pathlib.Path
    whole: DiffusionPipeline


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], TinyFolder]:
    made: dict[str, TinyFolder] = {}

    def make(name: str) -> TinyFolder:
        if name not in made:
            folder = tmp_path_factory.mktemp(name) / "pictures"
            made[name] = TinyFolder(folder, save_tiny_pipeline(name, folder))
        return made[name]

    return make


@pytest.fixture
def sdxl(saved, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy that a test may change."""
    return pathlib.Path(shutil.copytree(saved("sdxl").folder, tmp_path / "pictures"))


def spoil(folder: pathlib.Path, *kept: str) -> None:
    """Overwrite all files but the kept ones (or those in kept folders) with garbage."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not any(name == keep or name.startswith(f"{keep}/") for keep in kept):
            path.write_bytes(b"garbage")


def edit(path: pathlib.Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def same_tensors(part: torch.nn.Module, whole: torch.nn.Module) -> bool:
    expected = whole.state_dict()
    return all(torch.equal(tensor, expected[name]) for name, tensor in part.state_dict().items())


@pytest.mark.parametrize("name", PIPELINES)
def test_each_part_is_the_pipelines_own(saved, name) -> None:
    whole = saved(name).whole
    pipeline = open_pipeline(str(saved(name).folder))
    assert same_tensors(load_unet(pipeline), whole.unet)
    for part, encoder in zip(pipeline.text_encoders, load_text_encoders(pipeline), strict=True):
        reference = getattr(whole, part)
        assert type(encoder) is type(reference)
        ids = torch.randint(0, 500, (2, MAX_TOKENS))
        found = encoder(ids, output_hidden_states=True).hidden_states[-2]
        assert torch.equal(found, reference(ids, output_hidden_states=True).hidden_states[-2])
    latents = torch.randn(2, 4, 6, 10)
    assert torch.equal(load_vae(pipeline).decode(latents).sample, whole.vae.decode(latents).sample)


@pytest.mark.parametrize("name", PIPELINES)
def test_what_the_unet_takes(saved, name) -> None:
    pipeline = open_pipeline(str(saved(name).folder))
    facts = pipeline.facts
    xl = pipeline.family == "stable-diffusion-xl"
    assert (facts.latent_channels, facts.height, facts.width) == (4, 16, 16)
    assert (facts.conditioning_width, facts.pooled_width) == ((80, 40) if xl else (32, None))
    assert facts.time_ids is xl
    assert facts.guidance_embedding == (24 if name == "lcm" else None)
    assert pipeline.text_encoders == ("text_encoder", "text_encoder_2")[: 1 + xl]
    assert pipeline.index.force_zeros_for_empty_prompt is xl
    assert (pipeline.id, pipeline.revision, pipeline.lora) == ("pictures", None, ())


def test_a_server_reads_the_unets_files_only(sdxl, saved) -> None:
    spoil(sdxl, "unet", "model_index.json")
    read: list[int] = []
    unet = load_unet(open_pipeline(str(sdxl)), on_tensor=read.append)
    assert read == [len(unet.state_dict())] * len(unet.state_dict())
    assert same_tensors(unet, saved("sdxl").whole.unet)


def test_export_reads_the_others_and_of_the_unet_what_it_is(sdxl, saved) -> None:
    # Of the UNet's file the header stays.
    raw = bytearray((sdxl / UNET_FILE).read_bytes())
    header = 8 + int.from_bytes(raw[:8], "little")
    raw[header:] = bytes(len(raw) - header)
    (sdxl / UNET_FILE).write_bytes(raw)
    pipeline = open_pipeline(str(sdxl))
    assert pipeline.fingerprint == open_pipeline(str(saved("sdxl").folder)).fingerprint
    assert len(load_text_encoders(pipeline)) == 2
    load_vae(pipeline)


def test_each_encoder_and_the_vae_read_their_own_files_only(sdxl) -> None:
    pipeline = open_pipeline(str(sdxl))
    spoil(sdxl, "text_encoder_2")
    load_text_encoder(pipeline, "text_encoder_2")
    with pytest.raises(CheckpointInvalid):
        load_text_encoder(pipeline, "text_encoder")
    with pytest.raises(CheckpointInvalid):
        load_vae(pipeline)


def test_the_vaes_encoder_is_not_needed(sdxl, saved) -> None:
    path = sdxl / "vae/diffusion_pytorch_model.safetensors"
    tensors = {name: value for name, value in load_file(path).items() if "encoder." not in name}
    save_file(tensors, path)
    vae = load_vae(open_pipeline(str(sdxl)))
    latents = torch.randn(1, 4, 8, 8)
    expected = saved("sdxl").whole.vae.decode(latents).sample
    assert torch.equal(vae.decode(latents).sample, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_takes_the_variant_and_its_identity_is_the_same(
    saved, tmp_path, dtype
) -> None:
    folder = tmp_path / "pictures"
    shutil.copytree(saved("sdxl").folder, folder)
    whole = open_pipeline(str(folder))
    save_tiny_pipeline("sdxl", tmp_path / "half", dtype=torch.float16, variant="fp16")
    half = open_pipeline(str(tmp_path / "half"))
    assert half.fingerprint == whole.fingerprint
    assert half.witnesses() == whole.witnesses()
    shutil.copytree(tmp_path / "half/unet", folder / "unet", dirs_exist_ok=True)
    wanted = "fp16.safetensors" if dtype != torch.float32 else "model.safetensors"
    for path in (folder / "unet").glob("*.safetensors"):
        if not path.name.endswith(wanted):
            path.write_bytes(b"garbage")
    if dtype == torch.float32:
        assert load_unet(open_pipeline(str(folder))).dtype == dtype
    else:
        # Only the header of the full weights is looked at, for their names.
        shutil.copy(saved("sdxl").folder / UNET_FILE, folder / UNET_FILE)
        unet = load_unet(open_pipeline(str(folder)), dtype=dtype)
        assert unet.dtype == dtype
        (folder / UNET_FILE).unlink()
        assert load_unet(open_pipeline(str(folder))).dtype == torch.float32  # there is no other


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_several_shards(saved, tmp_path, variant) -> None:
    folder = tmp_path / "pictures"
    settings = {"variant": variant} if variant else {}
    whole = save_tiny_pipeline("sdxl", folder, max_shard_size="500KB", **settings)
    assert len(list((folder / "unet").glob("*.safetensors"))) > 2
    pipeline = open_pipeline(str(folder))
    assert pipeline.fingerprint == open_pipeline(str(saved("sdxl").folder)).fingerprint
    assert pipeline.witnesses()
    assert same_tensors(load_unet(pipeline), whole.unet)
    load_text_encoders(pipeline)
    load_vae(pipeline)


def test_names_of_older_checkpoints(sdxl, saved) -> None:
    path = sdxl / "text_encoder/model.safetensors"
    tensors = {f"text_model.{name}": value for name, value in load_file(path).items()}
    positions = torch.arange(MAX_TOKENS)[None]
    save_file({**tensors, "text_model.embeddings.position_ids": positions}, path)
    path = sdxl / "vae/diffusion_pytorch_model.safetensors"
    renamed = {}
    for name, value in load_file(path).items():
        old = name
        for new, before in (("to_q", "query"), ("to_k", "key"), ("to_v", "value")):
            old = old.replace(f".{new}.", f".{before}.")
        renamed[old.replace(".to_out.0.", ".proj_attn.")] = value
    save_file(renamed, path)
    pipeline = open_pipeline(str(sdxl))
    assert same_tensors(
        load_text_encoder(pipeline, "text_encoder"), saved("sdxl").whole.text_encoder
    )
    assert same_tensors(load_vae(pipeline), saved("sdxl").whole.vae)


def test_the_fingerprint_tells_unets_apart_and_the_witnesses_fine_tunes(saved, tmp_path) -> None:
    fingerprints = {
        open_pipeline(str(saved(name).folder)).fingerprint for name in ("sdxl", "sd1", "sd2", "lcm")
    }
    assert len(fingerprints) == 4
    save_tiny_pipeline("sdxl", tmp_path / "other", seed=1)
    one, other = open_pipeline(str(saved("sdxl").folder)), open_pipeline(str(tmp_path / "other"))
    assert one.fingerprint == other.fingerprint
    witnesses = one.witnesses()
    assert len(witnesses) == 16
    assert one.witness_digests(witnesses) == witnesses
    assert not set(other.witness_digests(witnesses).values()) & set(witnesses.values())
    with pytest.raises(TensorMissing):
        one.witness_digests(["conv_in.scale"])


def test_a_scheduler_and_a_librarys_version_change_nothing(sdxl, saved) -> None:
    edit(sdxl / "scheduler/scheduler_config.json", _class_name="DDIMScheduler")
    edit(sdxl / "unet/config.json", _diffusers_version="0.1", _name_or_path="elsewhere")
    expected = open_pipeline(str(saved("sdxl").folder)).fingerprint
    assert open_pipeline(str(sdxl)).fingerprint == expected
    edit(sdxl / "unet/config.json", norm_eps=1e-6)
    assert open_pipeline(str(sdxl)).fingerprint != expected


def test_a_tiny_vae(sdxl, saved, tmp_path) -> None:
    torch.manual_seed(5)
    tiny = build_tiny_vae(tiny=True)
    tiny.save_pretrained(tmp_path / "taesd")
    pipeline = open_pipeline(str(sdxl))
    latents = torch.randn(1, 4, 8, 8)
    expected = tiny.decode(latents).sample
    found = load_vae(pipeline, str(tmp_path / "taesd")).decode(latents).sample
    assert torch.equal(found, expected)
    shutil.copytree(tmp_path / "taesd", sdxl / "vae_tiny")
    assert torch.equal(load_vae(pipeline, "tiny").decode(latents).sample, expected)
    own = open_pipeline(str(saved("sdxl-tiny-vae").folder))
    assert own.vae("tiny").folder == "vae"
    edit(sdxl / "vae_tiny/config.json", latent_channels=16)
    with pytest.raises(UsageError, match="16 channels"):
        pipeline.vae("tiny")
    with pytest.raises(UsageError, match="not a VAE"):
        pipeline.vae(str(sdxl / "unet"))


INDEX_CHANGES = {
    "an image-to-image pipeline": ({"_class_name": "StableDiffusionXLImg2ImgPipeline"}, "Img2Img"),
    "a pipeline of its own": ({"_class_name": "MyPipeline"}, "MyPipeline"),
    "another denoiser": ({"unet": ["diffusers", "UNet3DConditionModel"]}, "UNet3D"),
    "another encoder": ({"text_encoder_2": ["transformers", "T5EncoderModel"]}, "T5"),
    "another tokenizer": ({"tokenizer": ["transformers", "T5Tokenizer"]}, "T5"),
    "another vae": ({"vae": ["diffusers", "VQModel"]}, "VQModel"),
}


@pytest.mark.parametrize(("changes", "words"), INDEX_CHANGES.values(), ids=INDEX_CHANGES)
def test_pipelines_that_cannot_be_cut(sdxl, changes, words) -> None:
    edit(sdxl / "model_index.json", **changes)
    with pytest.raises(UnsupportedFamily, match=words) as caught:
        open_pipeline(str(sdxl))
    assert "StableDiffusionXLPipeline" in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"_class_name": None},
        {"_class_name": ["pipeline", "MyPipeline"]},
        {"unet": None},
        {"vae": [None, None]},
        {"text_encoder_2": None},
        {"scheduler": None},
        {"tokenizer": "CLIPTokenizer"},
        {"tokenizer": [1, 2]},
    ],
)
def test_a_malformed_index(sdxl, changes) -> None:
    edit(sdxl / "model_index.json", **changes)
    with pytest.raises(CheckpointInvalid):
        open_pipeline(str(sdxl))


@pytest.mark.parametrize(
    "changes",
    [
        {"in_channels": 9},
        {"addition_embed_type": "text"},
        {"class_embed_type": "timestep"},
        {"encoder_hid_dim_type": "text_proj"},
        {"time_embedding_type": "fourier"},
        {"attention_type": "gated"},
        {"mid_block_type": None},
        {"down_block_types": ["DownBlock2D", "DownBlock2D", "KDownBlock2D"]},
    ],
)
def test_unets_that_cannot_be_cut(sdxl, changes) -> None:
    edit(sdxl / "unet/config.json", **changes)
    with pytest.raises(UnsupportedFamily):
        open_pipeline(str(sdxl))


@pytest.mark.parametrize(
    "changes",
    [
        {"block_out_channels": []},
        {"block_out_channels": [64] * 99},
        {"block_out_channels": [32, 48, 1 << 40]},
        {"block_out_channels": 32},
        {"down_block_types": ["DownBlock2D"]},
        {"transformer_layers_per_block": [1, 1, 1 << 20]},
        {"transformer_layers_per_block": [[[[1]]]]},
        {"layers_per_block": -1},
        {"layers_per_block": True},
        {"attention_head_dim": "many"},
        {"cross_attention_dim": 0},
        {"cross_attention_dim": [32, 32, 32]},
        {"time_cond_proj_dim": 1 << 40},
        {"sample_size": [16]},
        {"sample_size": 1e9},
        {"projection_class_embeddings_input_dim": 48},
        {"addition_time_embed_dim": None},
        {"conv_in_kernel": 1000},
    ],
)
def test_numbers_that_no_unet_has(sdxl, changes) -> None:
    edit(sdxl / "unet/config.json", **changes)
    with pytest.raises(CheckpointInvalid):
        open_pipeline(str(sdxl))


def test_a_config_that_the_library_cannot_build(sdxl) -> None:
    edit(sdxl / "unet/config.json", norm_num_groups=7)
    with pytest.raises(CheckpointInvalid, match=r"unet/config\.json"):
        load_unet(open_pipeline(str(sdxl)))


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("text_encoder", {"hidden_size": 1 << 40}),
        ("text_encoder", {"num_hidden_layers": 0}),
        ("text_encoder", {"num_attention_heads": 5}),
        ("text_encoder_2", {"vocab_size": None}),
        ("text_encoder_2", {"projection_dim": "wide"}),
        ("vae", {"latent_channels": 0}),
        ("vae", {"block_out_channels": None}),
        ("vae", {"layers_per_block": 1 << 30}),
    ],
)
def test_numbers_that_no_other_part_has(sdxl, part, changes) -> None:
    edit(sdxl / part / "config.json", **changes)
    pipeline = open_pipeline(str(sdxl))
    with pytest.raises(CheckpointInvalid):
        load_vae(pipeline) if part == "vae" else load_text_encoder(pipeline, part)


def test_a_vae_of_other_blocks(sdxl) -> None:
    edit(sdxl / "vae/config.json", up_block_types=["UpBlock2D"] * 3)
    with pytest.raises(UnsupportedFamily, match="UpBlock2D"):
        load_vae(open_pipeline(str(sdxl)))


def test_tensors_that_contradict_the_config(sdxl) -> None:
    path = sdxl / UNET_FILE
    tensors = load_file(path)
    save_file({**tensors, "conv_in.bias": torch.zeros(3)}, path)
    with pytest.raises(TensorMismatch, match=r"unet\.conv_in\.bias"):
        load_unet(open_pipeline(str(sdxl)))
    del tensors["conv_in.bias"]
    save_file(tensors, path)
    with pytest.raises(TensorMissing, match=r"unet\.conv_in\.bias"):
        load_unet(open_pipeline(str(sdxl)))


def test_pickled_weights_are_refused(sdxl) -> None:
    (sdxl / UNET_FILE).rename(sdxl / "unet/diffusion_pytorch_model.bin")
    with pytest.raises(UnsafeWeights, match="unet"):
        open_pipeline(str(sdxl))
    (sdxl / "unet/diffusion_pytorch_model.bin").rename(sdxl / UNET_FILE)
    (sdxl / "text_encoder/model.safetensors").rename(sdxl / "text_encoder/pytorch_model.bin")
    with pytest.raises(UnsafeWeights, match="text_encoder"):
        load_text_encoders(open_pipeline(str(sdxl)))


def test_no_weights(sdxl) -> None:
    (sdxl / UNET_FILE).unlink()
    with pytest.raises(CheckpointInvalid, match="no weights of its unet"):
        open_pipeline(str(sdxl))


def test_an_index_that_leads_out_of_the_folder(sdxl) -> None:
    (sdxl / UNET_FILE).unlink()
    index = {"weight_map": {"conv_in.bias": "../vae/diffusion_pytorch_model.safetensors"}}
    (sdxl / f"{UNET_FILE}.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointInvalid, match="shard"):
        open_pipeline(str(sdxl))


def test_what_is_no_pipeline(tmp_path, sdxl) -> None:
    assert is_pipeline(str(sdxl))
    assert is_pipeline("demo-image")
    assert not is_pipeline(str(tmp_path))
    assert not is_pipeline(str(tmp_path / "nowhere"))
    assert not is_pipeline("demo")
    with pytest.raises(CheckpointNotFound, match=r"model_index\.json"):
        open_pipeline(str(tmp_path))
    with pytest.raises(CheckpointNotFound):
        open_pipeline(str(tmp_path / "nowhere"))


@pytest.fixture
def hub(saved, tmp_path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serve_hub({REPOSITORY: saved("sdxl").folder}) as server:
        use_endpoint(monkeypatch, server.url)
        yield server


def _open_from(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    # The header's reader goes by an address that the library fixed when it was imported.
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", hub.url)
    return open_pipeline(REPOSITORY)


def test_opening_fetches_configs_and_a_header(hub, saved, monkeypatch) -> None:
    pipeline = _open_from(hub, monkeypatch)
    local = open_pipeline(str(saved("sdxl").folder))
    assert (pipeline.id, pipeline.revision) == (REPOSITORY, COMMIT)
    assert pipeline.fingerprint == local.fingerprint
    assert hub.fetched == ["model_index.json", "unet/config.json"]
    assert set(hub.ranges) == {UNET_FILE}
    assert pipeline.witnesses() == {}  # nothing of the weights is here
    load_text_encoders(pipeline)
    load_vae(pipeline)
    assert UNET_FILE not in hub.fetched
    hub.fetched.clear()
    load_unet(pipeline)
    assert hub.fetched == [UNET_FILE]
    assert pipeline.witnesses() == local.witnesses()


def test_offline_what_was_fetched_is_found(hub, monkeypatch) -> None:
    load_unet(_open_from(hub, monkeypatch))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    load_unet(open_pipeline(REPOSITORY))
    assert is_pipeline(REPOSITORY)
