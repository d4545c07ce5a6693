"""How a text-to-image pipeline is cut: the denoiser for the cloud, the rest for the device."""

from lambda_split.partition.pipelines.components import Component, PipelineIndex
from lambda_split.partition.pipelines.configs import UNetFacts, vae_scale_factor
from lambda_split.partition.pipelines.loading import (
    load_text_encoder,
    load_text_encoders,
    load_unet,
    load_vae,
)
from lambda_split.partition.pipelines.pipeline import Pipeline, open_pipeline
from lambda_split.partition.sources import DEMO_IMAGE, MODEL_INDEX, is_pipeline

__all__ = [
    "DEMO_IMAGE",
    "MODEL_INDEX",
    "Component",
    "Pipeline",
    "PipelineIndex",
    "UNetFacts",
    "is_pipeline",
    "load_text_encoder",
    "load_text_encoders",
    "load_unet",
    "load_vae",
    "open_pipeline",
    "vae_scale_factor",
]
