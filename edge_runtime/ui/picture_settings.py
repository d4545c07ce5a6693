"""The settings of pictures: their fields on the page, and what they mean."""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr

from edge_runtime.pictures.request import PictureSpec, check_spec
from edge_runtime.ui.fields import (
    FieldValue,
    add_number,
    add_seed,
    read_number,
    read_seed,
    read_text,
    read_whole,
)
from edge_runtime.ui.picture_progress import PictureWish
from lambda_split.diffusion.scheduler_config import SOLVER_NAMES
from lambda_split.errors import UsageError
from lambda_split.image_bundle import ImageManifest

__all__ = ["add_picture_settings", "read_picture_settings"]

_OWN_SOLVER = "the model's own"
_STEPS = 20
_SMALL_SIDE = 256  # a decoder makes pictures up to that in a moment, so that each step is shown


def add_picture_settings(manifest: ImageManifest) -> list[gr.components.Component]:
    """Add the fields, in the order in which :func:`read_picture_settings` takes their values."""
    latents, defaults = manifest.latents, PictureSpec()
    with gr.Accordion("Settings", open=False, elem_id="ls-picture-settings"):
        negative = gr.Textbox(
            label="Lead away from", placeholder="nothing", lines=1, elem_id="ls-picture-negative"
        )
        with gr.Row():
            steps = add_number("picture-steps", _STEPS, "Steps", "runs of the denoiser")
            guidance = add_number(
                "picture-guidance", defaults.guidance, "Guidance", "1 is none", step=0.5
            )
            seed = add_seed("picture-seed", "picture")
        with gr.Row():
            width = add_number("picture-width", latents.width, "Width", "pixels")
            height = add_number("picture-height", latents.height, "Height", "pixels")
            images = add_number("picture-images", 1, "Pictures", "of one prompt")
        with gr.Row():
            solver = gr.Dropdown(
                [_OWN_SOLVER, *SOLVER_NAMES], value=_OWN_SOLVER, label="Solver", min_width=120
            )
            every = 1 if max(latents.height, latents.width) <= _SMALL_SIDE else 5
            preview = add_number(
                "picture-preview-every", every, "Preview every", "steps; 0 for none"
            )
    return [negative, steps, guidance, seed, width, height, images, solver, preview]


def read_picture_settings(
    prompt: str, values: Sequence[FieldValue], manifest: ImageManifest
) -> PictureWish:
    """What the fields say; an empty one means the usual.

    Args:
        prompt: What to show.
        values: Of the fields, as Gradio gives them.
        manifest: Of the bundle.

    Raises:
        UsageError: a value makes no sense.
    """
    negative, steps, guidance, seed, width, height, images, solver, preview = values
    every = read_whole(preview, "preview every", 0)
    if every < 0:
        raise UsageError("preview every must be 0 or more")
    chosen = read_text(solver)
    if chosen not in {"", _OWN_SOLVER, *SOLVER_NAMES}:
        raise UsageError(f"no solver {chosen!r}: choose one of {', '.join(SOLVER_NAMES)}")
    spec = PictureSpec(
        steps=read_whole(steps, "steps", _STEPS),
        guidance=read_number(guidance, "guidance", PictureSpec().guidance),
        height=read_whole(height, "height", manifest.latents.height),
        width=read_whole(width, "width", manifest.latents.width),
        seed=read_seed(seed),
        images=read_whole(images, "pictures", 1),
        solver=None if chosen in {"", _OWN_SOLVER} else chosen,
    )
    check_spec(spec, manifest)
    return PictureWish(prompt, read_text(negative), spec, every)
