"""How a text-to-image pipeline is cut: the denoiser for the cloud, the rest for the device."""

from lambda_split.partition.pipelines.components import Component, PipelineIndex
from lambda_split.partition.pipelines.configs import UNetFacts
from lambda_split.partition.pipelines.loading import (
    load_text_encoder,
    load_text_encoders,
    load_unet,
    load_vae,
)
from lambda_split.partition.pipelines.pipeline import (
    DEMO_IMAGE,
    Pipeline,
    is_pipeline,
    open_pipeline,
)

__all__ = [
    "DEMO_IMAGE",
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
]
