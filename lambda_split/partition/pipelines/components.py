"""A pipeline's ``model_index.json``: which parts it has, of which classes, and in which folders.

What is known here are the pipelines whose denoiser is a ``UNet2DConditionModel`` told by CLIP text
encoders. Classes are compared with the table below and never looked up by the name that a file
gives, and code that comes with a model never runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lambda_split.errors import CheckpointInvalid, UnsupportedFamily
from lambda_split.partition.files import ModelFiles, read_json_object
from lambda_split.partition.sources import MODEL_INDEX

__all__ = [
    "Component",
    "PipelineIndex",
    "read_component",
    "read_index",
    "unsupported",
]

_MAX_BYTES = 1024 * 1024
_FAMILIES = {
    "StableDiffusionPipeline": "stable-diffusion",
    "LatentConsistencyModelPipeline": "stable-diffusion",
    "StableDiffusionXLPipeline": "stable-diffusion-xl",
}
_HINT = "describe its pipeline in lambda_split/partition/pipelines/components.py"
# For each part the classes that can be cut; what is not listed is not read.
_CLASSES = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL", "AutoencoderTiny"),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
}
# What SDXL has beside.
_XL_CLASSES = {
    "text_encoder_2": ("CLIPTextModelWithProjection",),
    "tokenizer_2": ("CLIPTokenizer", "CLIPTokenizerFast"),
}


@dataclass(frozen=True)
class Component:
    """One part of a pipeline whose class is known.

    Attributes:
        name: What messages call it, for example ``unet``.
        class_name: Its class in diffusers or transformers.
        files: Where its files come from.
        folder: Its folder there; empty where the part is a repository of its own.
        config: Its ``config.json``.
    """

    name: str
    class_name: str
    files: ModelFiles = field(repr=False)
    folder: str
    config: Mapping[str, object] = field(repr=False)

    def file(self, name: str) -> str:
        """The name, in ``files``, of one of its files."""
        return f"{self.folder}/{name}" if self.folder else name


@dataclass(frozen=True)
class PipelineIndex:
    """What ``model_index.json`` says.

    Attributes:
        family: ``stable-diffusion`` or ``stable-diffusion-xl``.
        classes: Of each part, by its folder.
        scheduler: The scheduler's class.
        force_zeros_for_empty_prompt: Without a negative prompt its embedding is all zeros.
    """

    family: str
    classes: Mapping[str, str]
    scheduler: str
    force_zeros_for_empty_prompt: bool

    @property
    def text_encoders(self) -> tuple[str, ...]:
        """Names of the text encoders, in the order in which their outputs are joined."""
        return tuple(name for name in self.classes if name.startswith("text_encoder"))


def unsupported(model_type: str, reason: str = "") -> UnsupportedFamily:
    """The error for a pipeline that cannot be cut."""
    return UnsupportedFamily(model_type, tuple(_FAMILIES), reason, _HINT)


def read_index(files: ModelFiles) -> PipelineIndex:
    """Read and check ``model_index.json``.

    Raises:
        CheckpointInvalid: it is missing or malformed, or lacks a part that its family needs.
        UnsupportedFamily: the pipeline, or a part of it, is of a class that cannot be cut.
    """
    path = files.get(MODEL_INDEX)
    raw = read_json_object(path, max_bytes=_MAX_BYTES)
    name = raw.get("_class_name")
    if not isinstance(name, str):
        raise CheckpointInvalid(str(path), "it has no _class_name")
    family = _FAMILIES.get(name)
    if family is None:
        raise unsupported(name)
    xl = family == "stable-diffusion-xl"
    classes: dict[str, str] = {}
    for part, known in (_CLASSES | (_XL_CLASSES if xl else {})).items():
        classes[part] = _class_of(str(path), part, raw.get(part))
        if classes[part] not in known:
            raise unsupported(name, f"its {part} is a {classes[part]}")
    scheduler = _class_of(str(path), "scheduler", raw.get("scheduler"))
    zeros = raw.get("force_zeros_for_empty_prompt", xl)
    return PipelineIndex(family, classes, scheduler, zeros is True)


def _class_of(path: str, part: str, entry: object) -> str:
    match entry:
        case [str(), str(name)]:
            return name
        case None | [None, None]:
            raise CheckpointInvalid(path, f"it has no {part}")
    raise CheckpointInvalid(path, f"{part} is not a library and a class")


def read_component(files: ModelFiles, name: str, class_name: str, folder: str) -> Component:
    """Read a part's ``config.json``; its numbers are checked by :mod:`.configs`.

    Raises:
        CheckpointInvalid: it is missing or malformed.
    """
    location = f"{folder}/config.json" if folder else "config.json"
    config = read_json_object(files.get(location), max_bytes=_MAX_BYTES)
    return Component(name, class_name, files, folder, config)
