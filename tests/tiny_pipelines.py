"""Tiny random text-to-image pipelines, saved as real ones are.

``save_tiny_pipeline(name, folder)`` writes a pipeline of a megabyte or so: ``model_index.json``,
``unet/``, ``vae/``, ``text_encoder/`` …, weights as safetensors, tokenizers as vocabulary and
merges; ``PIPELINES`` lists the names. Each is there for what its family does differently.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    DiffusionPipeline,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    SchedulerMixin,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers import pre_tokenizers
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

__all__ = [
    "MAX_TOKENS",
    "PIPELINES",
    "TinyPipeline",
    "build_tiny_pipeline",
    "build_tiny_vae",
    "save_tiny_pipeline",
]

MAX_TOKENS = 77
_START, _END = "<|startoftext|>", "<|endoftext|>"
_WORDS = "a red green blue small large circle square triangle on the left right of photo cat dog"
_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@dataclass(frozen=True)
class TinyPipeline:
    """What makes a variant.

    Attributes:
        pipeline: The pipeline's class.
        unet: Settings of its UNet beside the common ones.
        scheduler: Makes its scheduler.
        encoders: Settings of each text encoder beside the common ones.
        pads: What each tokenizer pads with.
        tiny_vae: Whether its VAE is the tiny one.
    """

    pipeline: type[DiffusionPipeline]
    unet: dict[str, object]
    scheduler: Callable[[], SchedulerMixin]
    encoders: tuple[dict[str, object], ...] = ({},)
    pads: tuple[str, ...] = (_END,)
    tiny_vae: bool = False
    more: dict[str, object] = field(default_factory=dict)


def _xl(**changes: object) -> TinyPipeline:
    settings: dict[str, object] = {
        "pipeline": StableDiffusionXLPipeline,
        "unet": {
            "sample_size": 16,
            "block_out_channels": (32, 48, 48),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": [1, 1, 2],
            "attention_head_dim": [2, 4, 4],
            "use_linear_projection": True,
            "cross_attention_dim": 32 + 48,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 40 + 6 * 8,
        },
        "scheduler": lambda: EulerDiscreteScheduler(
            **_BETAS, steps_offset=1, timestep_spacing="leading"
        ),
        # As published: the first has no pooled output in use, the second pads with "!".
        "encoders": (
            {"hidden_size": 32, "eos_token_id": 2},
            {
                "hidden_size": 48,
                "hidden_act": "gelu",
                "projection_dim": 40,
                "num_hidden_layers": 4,
                "eos_token_id": 2,
            },
        ),
        "pads": (_END, "!"),
        "more": {"force_zeros_for_empty_prompt": True},
    }
    return TinyPipeline(**(settings | changes))  # type: ignore[arg-type]  # settings of any kind


_CROSS_FIRST: dict[str, object] = {
    "sample_size": 16,
    "block_out_channels": (32, 64),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "attention_head_dim": 4,
    "cross_attention_dim": 32,
}

PIPELINES: dict[str, TinyPipeline] = {
    "sdxl": _xl(),
    # Few steps, noise added at each, timesteps from the end.
    "turbo": _xl(
        scheduler=lambda: EulerAncestralDiscreteScheduler(**_BETAS, timestep_spacing="trailing")
    ),
    "sdxl-tiny-vae": _xl(tiny_vae=True),
    "sd1": TinyPipeline(
        StableDiffusionPipeline,
        _CROSS_FIRST,
        lambda: DDIMScheduler(**_BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        encoders=({"eos_token_id": 2},),
    ),
    "sd2": TinyPipeline(
        StableDiffusionPipeline,
        _CROSS_FIRST
        | {
            "attention_head_dim": [2, 4],
            "use_linear_projection": True,
            "upcast_attention": True,
        },
        lambda: DDIMScheduler(
            **_BETAS,
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type="v_prediction",
        ),
        encoders=({"hidden_act": "gelu"},),
        pads=("!",),
    ),
    # One pass a step: the guidance scale is embedded beside the time.
    "lcm": TinyPipeline(
        LatentConsistencyModelPipeline,
        _CROSS_FIRST | {"time_cond_proj_dim": 24},
        lambda: LCMScheduler(**_BETAS),
    ),
}


@cache
def _vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's layout: bytes, bytes that end a word, merges, the two special tokens last."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters.insert(0, letters.pop(letters.index("!")))  # id 0, which some models pad with
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges: dict[tuple[str, str], None] = {}
    for word in _WORDS.split():
        built, *rest = [*word[:-1], f"{word[-1]}</w>"]
        for symbol in rest:
            merges[built, symbol] = None
            built += symbol
    tokens += dict.fromkeys("".join(pair) for pair in merges)
    return {token: number for number, token in enumerate([*tokens, _START, _END])}, list(merges)


def _write_tokenizer(folder: pathlib.Path, pad: str) -> None:
    vocabulary, merges = _vocabulary()
    special = {"bos_token": _START, "eos_token": _END, "unk_token": _END, "pad_token": pad}
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    settings = {"model_max_length": MAX_TOKENS, "tokenizer_class": "CLIPTokenizer", **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def _text_encoder(settings: dict[str, object], *, projects: bool) -> nn.Module:
    vocabulary, _ = _vocabulary()
    common: dict[str, object] = {
        "vocab_size": len(vocabulary),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": MAX_TOKENS,
        "bos_token_id": vocabulary[_START],
        "eos_token_id": vocabulary[_END],
        "pad_token_id": 1,
    }
    config = CLIPTextConfig(**(common | settings))
    model = CLIPTextModelWithProjection(config) if projects else CLIPTextModel(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # The library's deviation of 0.02 would make all prompts nearly the same.
            if parameter.ndim > 1:
                parameter.normal_(0, 1 if "embedding" in name else parameter.shape[-1] ** -0.5)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.1)
    return model


def build_tiny_vae(*, tiny: bool = False) -> nn.Module:
    """A VAE of scale factor 4; seed the generator before."""
    if tiny:
        return AutoencoderTiny(
            encoder_block_out_channels=(16, 16, 16),
            decoder_block_out_channels=(16, 16, 16),
            num_encoder_blocks=(1, 1, 1),
            num_decoder_blocks=(1, 1, 1),
        )
    return AutoencoderKL(
        block_out_channels=(32, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=8,
        latent_channels=4,
        sample_size=64,
        scaling_factor=0.13025,
    )


def build_tiny_pipeline(name: str, seed: int = 0) -> DiffusionPipeline:
    """A random float32 pipeline, with the tokenizers that :func:`save_tiny_pipeline` writes."""
    variant = PIPELINES[name]
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(layers_per_block=1, norm_num_groups=8, **variant.unet)
    parts: dict[str, object] = {
        "unet": unet,
        "vae": build_tiny_vae(tiny=variant.tiny_vae),
        "scheduler": variant.scheduler(),
    }
    vocabulary, merges = _vocabulary()
    xl = variant.pipeline is StableDiffusionXLPipeline
    for number, settings in enumerate(variant.encoders):
        suffix = "" if number == 0 else f"_{number + 1}"
        parts[f"text_encoder{suffix}"] = _text_encoder(settings, projects=number == 1)
        parts[f"tokenizer{suffix}"] = CLIPTokenizer(
            vocab=vocabulary,
            merges=merges,
            pad_token=variant.pads[number],
            model_max_length=MAX_TOKENS,
        )
    if not xl:
        parts |= {"safety_checker": None, "feature_extractor": None}
        parts["requires_safety_checker"] = False
    for part in parts.values():
        if isinstance(part, nn.Module):
            part.eval()
    pipeline = variant.pipeline(**parts, **variant.more)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_tiny_pipeline(
    name: str,
    folder: pathlib.Path,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    **settings: object,
) -> DiffusionPipeline:
    """Write a variant; returns the pipeline, whose weights are those on disk.

    Args:
        name: One of ``PIPELINES``.
        folder: Created if need be.
        seed: Of the random weights.
        dtype: What the weights are stored in.
        **settings: For ``save_pretrained``, such as ``variant`` and ``max_shard_size``.
    """
    pipeline = build_tiny_pipeline(name, seed).to(dtype)
    pipeline.save_pretrained(folder, **settings)
    for number, pad in enumerate(PIPELINES[name].pads):
        target = folder / ("tokenizer" if number == 0 else f"tokenizer_{number + 1}")
        for file in target.iterdir():  # the library's newer format, which published ones lack
            file.unlink()
        target.rmdir()
        _write_tokenizer(target, pad)
    return pipeline
