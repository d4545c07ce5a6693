"""Adapters of pipelines: merged part by part, they are what diffusers computes with them."""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Callable

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from lambda_split.errors import AdapterError, CheckpointNotFound
from lambda_split.partition.pipelines import (
    load_text_encoder,
    load_unet,
    open_pipeline,
)
from tests.tiny_pipelines import MAX_TOKENS, build_tiny_pipeline, save_tiny_pipeline

FILE = "pytorch_lora_weights.safetensors"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("lora") / "pictures"
    save_tiny_pipeline("sdxl", path)
    return path


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], pathlib.Path]:
    """A random adapter of the UNet and both encoders, as diffusers saves it."""

    def make(seed: int) -> pathlib.Path:
        path = tmp_path_factory.mktemp("adapters") / f"style-{seed}"
        pipeline = build_tiny_pipeline("sdxl")
        torch.manual_seed(seed)
        layers = {}
        for part, targets in (
            ("unet", ["to_q", "to_v", "proj_in"]),
            ("text_encoder", ["q_proj", "fc1"]),
            ("text_encoder_2", ["v_proj"]),
        ):
            module = getattr(pipeline, part)
            config = LoraConfig(r=2, lora_alpha=4, target_modules=targets, init_lora_weights=False)
            module.add_adapter(config)
            found = get_peft_model_state_dict(module)
            layers[f"{part}_lora_layers"] = found
        StableDiffusionXLPipeline.save_lora_weights(path, **layers)
        return path

    return make


def outputs(pipeline: object, unet, encoders) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    told = {
        "text_embeds": torch.randn(1, 40, generator=generator),
        "time_ids": torch.full((1, 6), 64.0),
    }
    sample = torch.randn(1, 4, 8, 8, generator=generator)
    hidden = torch.randn(1, MAX_TOKENS, 80, generator=generator)
    ids = torch.arange(MAX_TOKENS)[None]
    with torch.inference_mode():
        found = [unet(sample, torch.tensor(3.0), hidden, added_cond_kwargs=told).sample]
        found += [one(ids, output_hidden_states=True).hidden_states[-2] for one in encoders]
    return found


def test_merged_parts_are_those_of_diffusers(folder, adapter) -> None:
    one, two = adapter(1), adapter(2)
    whole = StableDiffusionXLPipeline.from_pretrained(folder)
    plain = outputs(whole, whole.unet, (whole.text_encoder, whole.text_encoder_2))
    for path in (one, two):
        whole.load_lora_weights(path)
        whole.fuse_lora()
        whole.unload_lora_weights()
    expected = outputs(whole, whole.unet, (whole.text_encoder, whole.text_encoder_2))
    pipeline = open_pipeline(str(folder), lora=[str(one), str(two)])
    assert pipeline.lora == ("style-1", "style-2")
    encoders = [load_text_encoder(pipeline, name) for name in pipeline.text_encoders]
    found = outputs(pipeline, load_unet(pipeline), encoders)
    for before, reference, output in zip(plain, expected, found, strict=True):
        assert not torch.allclose(before, reference, atol=1e-2)
        assert torch.allclose(output, reference, atol=1e-5)


def test_the_fingerprint_tells_of_adapters_and_their_order(folder, adapter) -> None:
    one, two = str(adapter(1)), str(adapter(2))
    fingerprints = [
        open_pipeline(str(folder), lora=lora).fingerprint
        for lora in ([], [one], [two], [one, two], [two, one])
    ]
    assert len(set(fingerprints)) == len(fingerprints)
    assert open_pipeline(str(folder), lora=[one]).fingerprint == fingerprints[1]


def test_a_part_that_an_adapter_does_not_change_stays(folder, adapter, tmp_path) -> None:
    tensors = load_file(adapter(1) / FILE)
    kept = {name: value for name, value in tensors.items() if name.startswith("unet.")}
    save_file(kept, tmp_path / "only-the-unet.safetensors")
    pipeline = open_pipeline(str(folder), lora=[str(tmp_path / "only-the-unet.safetensors")])
    assert pipeline.lora == ("only-the-unet.safetensors",)
    plain = open_pipeline(str(folder))
    ids = torch.arange(MAX_TOKENS)[None]
    found = load_text_encoder(pipeline, "text_encoder")(ids).last_hidden_state
    assert torch.equal(found, load_text_encoder(plain, "text_encoder")(ids).last_hidden_state)


def test_older_names_of_a_text_encoder(folder, adapter, tmp_path) -> None:
    path = adapter(1)
    tensors = {}
    for name, value in load_file(path / FILE).items():
        part, _, rest = name.partition(".")
        if part == "text_encoder" and not rest.startswith("text_model."):
            tensors[f"{part}.text_model.{rest}"] = value
        elif part == "text_encoder":
            tensors[f"{part}.{rest.removeprefix('text_model.')}"] = value
    save_file(tensors, tmp_path / "old.safetensors")
    ids = torch.arange(MAX_TOKENS)[None]
    found = [
        load_text_encoder(open_pipeline(str(folder), lora=[lora]), "text_encoder")(ids)
        for lora in (str(path), str(tmp_path / "old.safetensors"))
    ]
    plain = load_text_encoder(open_pipeline(str(folder)), "text_encoder")(ids)
    assert not torch.allclose(found[0].last_hidden_state, plain.last_hidden_state, atol=1e-2)


def test_adapters_that_cannot_be_merged(folder, adapter, tmp_path) -> None:
    with pytest.raises(AdapterError, match=FILE):
        open_pipeline(str(folder), lora=[str(tmp_path)])
    with pytest.raises(CheckpointNotFound):
        open_pipeline(str(folder), lora=[str(tmp_path / "nowhere" / "else")])
    copy = tmp_path / "copy"
    shutil.copytree(adapter(1), copy)
    (copy / FILE).write_bytes(b"garbage")
    with pytest.raises(AdapterError):
        open_pipeline(str(folder), lora=[str(copy)])
    save_file({"unrelated.weight": torch.zeros(2, 2)}, copy / FILE)
    with pytest.raises(AdapterError):
        load_unet(open_pipeline(str(folder), lora=[str(copy)]))
    tensors = {
        name: torch.zeros(*value.shape[:-1], value.shape[-1] + 1)
        for name, value in load_file(adapter(1) / FILE).items()
    }
    save_file(tensors, copy / FILE)
    with pytest.raises(AdapterError):
        load_unet(open_pipeline(str(folder), lora=[str(copy)]))
    with pytest.raises(AdapterError):
        load_text_encoder(open_pipeline(str(folder), lora=[str(copy)]), "text_encoder")
