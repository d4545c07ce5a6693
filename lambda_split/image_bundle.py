"""The bundle of a text-to-image model: what a device runs of it, and how.

Head: tokenizers and text encoders. Tail: the scheduler's step, in numpy, and the VAE decoder. The
folders are those of a diffusers pipeline exported to ONNX (``text_encoder/model.onnx``,
``vae_decoder/model.onnx``, ``scheduler/scheduler_config.json`` …), so other runtimes open them,
too; ``manifest.json`` says the rest. :func:`load_image_bundle` checks all of it before anything is
used, as :func:`lambda_split.bundle.load_bundle` does for language models.

From a prompt to a picture::

    token ids    int64 (B, max_tokens), padded     each encoder's tokenizer
    hidden       float32 (B, max_tokens, width)    each encoder; joined along the last axis
    pooled       float32 (B, pooled_width)         of the one encoder whose graph has that role
    time ids     (height, width, crop top, crop left, target height, target width), if used
    latents      float32 (B, channels, height / scale_factor, width / scale_factor)
    decoder's    latents / scaling_factor + shift_factor; where the model has statistics,
    input        latents · std / scaling_factor + mean, channel by channel
    picture      float32 (B, 3, height, width), from -1 to 1

With the split ``deep`` the denoiser's first and last blocks are graphs as well; see
:mod:`lambda_split.denoiser_blocks`.
"""

from __future__ import annotations

import os
import pathlib
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from lambda_split.bundle import ModelSource
from lambda_split.bundle_files import (
    Count,
    FileEntry,
    RawManifest,
    Size,
    check_files,
    check_named,
    read_raw_manifest,
    write_manifest_file,
)
from lambda_split.denoiser_blocks import BlocksVerification, DenoiserBlocks, wrong_blocks
from lambda_split.errors import BundleFileMissing, BundleKindWrong, ManifestInvalid

__all__ = [
    "IMAGE_KIND",
    "Conditioning",
    "DecoderVerification",
    "EncoderVerification",
    "ImageBundle",
    "ImageGraph",
    "ImageManifest",
    "ImageSplit",
    "ImageVerification",
    "ImageWeights",
    "LatentGeometry",
    "SchedulerFile",
    "TextEncoder",
    "Vae",
    "load_image_bundle",
    "write_image_manifest",
]

Floats = NDArray[np.float32]

IMAGE_KIND = "text-to-image"
ImageSplit = Literal["whole", "deep"]
ImageWeights = Literal["fp32", "fp16", "int8"]
_Factor = Annotated[float, Meta(ge=-1e6, le=1e6)]
_Positive = Annotated[float, Meta(gt=0, le=1e6)]


class LatentGeometry(msgspec.Struct, frozen=True, kw_only=True):
    """The latents' measures.

    Attributes:
        channels: Of latents and predicted noise.
        scale_factor: Pixels of a picture a latent stands for, along each side.
        height: The picture's height in pixels that the model was made for.
        width: As ``height``.
    """

    channels: Size
    scale_factor: Size
    height: Size
    width: Size


class ImageGraph(msgspec.Struct, frozen=True, kw_only=True):
    """One ONNX graph and how to feed it.

    Attributes:
        file: The ``.onnx`` file, relative to the bundle.
        weights: The format its weights are stored in.
        inputs: Role to the graph's input name. Of an encoder: ``token_ids`` int64
            (B, max_tokens). Of the decoder: ``latents`` float32 (B, channels, h, w), scaled as
            the module says.
        outputs: Role to output name. Of an encoder: ``hidden`` float32 (B, max_tokens, width),
            and ``pooled`` float32 (B, pooled_width) if the model uses this encoder's. Of the
            decoder: ``picture`` float32 (B, 3, h · scale_factor, w · scale_factor). Those of the
            denoiser's blocks are in :mod:`lambda_split.denoiser_blocks`.
    """

    file: str
    weights: ImageWeights
    inputs: dict[str, str]
    outputs: dict[str, str]


class TextEncoder(msgspec.Struct, frozen=True, kw_only=True):
    """One text encoder with its tokenizer.

    Attributes:
        graph: Its name in ``graphs``.
        tokenizer: A ``tokenizer.json``, relative to the bundle. It adds the first and the last
            token; padding and truncation are the device's.
        max_tokens: What every prompt is padded or truncated to, first and last token included.
        pad_token: What it is padded with.
        pad_token_id: The same as a number.
        width: Of its hidden states.
    """

    graph: str
    tokenizer: str
    max_tokens: Annotated[int, Meta(ge=2, le=1 << 16)] = 77
    pad_token: str
    pad_token_id: Count
    width: Size


class Conditioning(msgspec.Struct, frozen=True, kw_only=True):
    """What the denoiser is told beside latents and time.

    Attributes:
        width: Of the joined hidden states: the sum of the encoders' widths.
        pooled_width: Of the pooled embedding; None if it takes none.
        time_ids: Whether it takes the picture's sizes and crop.
        force_zeros_for_empty_prompt: Where no negative prompt is given, the negative
            conditioning is all zeros, hidden and pooled, not an encoded empty text.
        guidance_embedding: Width of the embedded guidance scale of distilled models, which need
            one pass a step instead of two; None if it takes none.
    """

    width: Size
    pooled_width: Size | None = None
    time_ids: bool = False
    force_zeros_for_empty_prompt: bool = False
    guidance_embedding: Size | None = None


class Vae(msgspec.Struct, frozen=True, kw_only=True):
    """The decoder's graph, and how latents are scaled before it; see the module.

    Attributes:
        graph: Its name in ``graphs``.
        kind: ``full`` (AutoencoderKL) or ``tiny`` (AutoencoderTiny).
        scaling_factor: Latents are divided by it.
        shift_factor: Then added to them.
        latents_mean: A number for each channel, where the model has statistics.
        latents_std: As ``latents_mean``.
    """

    graph: str
    kind: Literal["full", "tiny"]
    scaling_factor: _Positive
    shift_factor: _Factor = 0.0
    latents_mean: tuple[_Factor, ...] | None = None
    latents_std: tuple[_Positive, ...] | None = None

    def decoder_input(self, latents: Floats) -> Floats:
        """Latents as the solver has them, scaled for the decoder; float32 (B, C, h, w) both."""
        if self.latents_mean is not None and self.latents_std is not None:
            mean = np.array(self.latents_mean, np.float32).reshape(1, -1, 1, 1)  # C -> (1, C, 1, 1)
            deviation = np.array(self.latents_std, np.float32).reshape(1, -1, 1, 1)
            return latents * deviation / np.float32(self.scaling_factor) + mean
        scaled = latents / np.float32(self.scaling_factor)
        return scaled + np.float32(self.shift_factor) if self.shift_factor else scaled


class SchedulerFile(msgspec.Struct, frozen=True, kw_only=True):
    """The scheduler that the model's authors chose.

    Attributes:
        name: Its class in diffusers.
        file: Its settings as diffusers writes them, relative to the bundle.
    """

    name: str
    file: str


class EncoderVerification(msgspec.Struct, frozen=True, kw_only=True):
    """How far an encoder's graph is from PyTorch.

    Attributes:
        max_error: Largest absolute difference of the hidden states (and pooled embedding).
        cosine: Smallest cosine between a token's vectors (or pooled embeddings) of the two.
    """

    max_error: float
    cosine: float


class DecoderVerification(msgspec.Struct, frozen=True, kw_only=True):
    """How far the decoder's graph is from PyTorch.

    Attributes:
        max_error: Largest absolute difference of a picture's values, which go from -1 to 1.
        psnr: Peak signal-to-noise ratio of the pictures in decibels, the peak being 2; at most 200.
    """

    max_error: float
    psnr: float


class ImageVerification(msgspec.Struct, frozen=True, kw_only=True):
    """How far the exported graphs are from diffusers, measured at export.

    Attributes:
        prompts: Texts that were encoded.
        pictures: Latents that were decoded.
        encoders: By graph.
        vae: The decoder's.
        blocks: The denoiser's blocks', with the split ``deep``.
    """

    prompts: Count
    pictures: Count
    encoders: dict[str, EncoderVerification]
    vae: DecoderVerification
    blocks: BlocksVerification | None = None


class ImageManifest(msgspec.Struct, frozen=True, kw_only=True):
    """All that ``manifest.json`` says.

    Attributes:
        schema: Of the manifest.
        kind: ``text-to-image``.
        producer: Who wrote it.
        model: Where it was cut from; ``family`` is ``stable-diffusion`` or ``stable-diffusion-xl``.
        split: ``whole``: the whole denoiser is the trunk; ``deep``: its first and last blocks are
            the device's.
        latents: Their measures.
        encoders: In the order in which their hidden states are joined.
        conditioning: What the denoiser takes.
        vae: The decoder.
        blocks: The denoiser's blocks that are the device's, with the split ``deep``.
        scheduler: The model's own.
        graphs: By name.
        files: Every file but the manifest.
        verification: What was measured at export.
    """

    schema: int
    kind: Literal["text-to-image"]
    producer: str
    model: ModelSource
    split: ImageSplit
    latents: LatentGeometry
    encoders: Annotated[tuple[TextEncoder, ...], Meta(min_length=1, max_length=8)]
    conditioning: Conditioning
    vae: Vae
    blocks: DenoiserBlocks | None = None
    scheduler: SchedulerFile
    graphs: dict[str, ImageGraph]
    verification: ImageVerification | None = None
    files: dict[str, FileEntry]


class ImageBundle(msgspec.Struct, frozen=True):
    """A bundle whose manifest and files were checked."""

    path: pathlib.Path
    manifest: ImageManifest

    def file(self, name: str) -> pathlib.Path:
        """The path of a listed file.

        Raises:
            BundleFileMissing: the manifest does not list it.
        """
        if name not in self.manifest.files:
            raise BundleFileMissing(name)
        return self.path / name


def load_image_bundle(
    folder: str | os.PathLike[str], *, check_contents: bool = True
) -> ImageBundle:
    """Read a bundle and check everything that its manifest says.

    Args:
        folder: The bundle's folder.
        check_contents: Also compare each file's sha256 (reads every byte once); sizes and presence
            are always compared.

    Raises:
        BundleNotFound: there is no manifest.
        BundleKindWrong: it is of a language model.
        ManifestInvalid: it is malformed or contradicts itself.
        SchemaUnsupported: it is of another schema version.
        PathOutsideBundle: it names a path that leaves the folder.
        BundleFileMissing: a listed file is absent.
        BundleFileUnreadable: a listed file cannot be read.
        BundleFileAltered: a listed file has another size or content.
    """
    path = pathlib.Path(folder)
    manifest = _parse(read_raw_manifest(path))
    check_files(path, manifest.files, check_contents=check_contents)
    return ImageBundle(path, manifest)


def write_image_manifest(folder: pathlib.Path, manifest: ImageManifest) -> None:
    """Write ``manifest.json``: a temporary file first, then renamed, so it is whole or absent."""
    write_manifest_file(folder, manifest)


def _parse(raw: RawManifest) -> ImageManifest:
    if raw.kind == "causal-lm":
        raise BundleKindWrong(str(raw.path.parent), raw.kind)
    try:
        manifest = msgspec.json.decode(raw.content, type=ImageManifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestInvalid(str(raw.path), str(error)) from error
    named = [graph.file for graph in manifest.graphs.values()]
    named += [encoder.tokenizer for encoder in manifest.encoders]
    check_named(raw.path, [*named, manifest.scheduler.file], manifest.files)
    if (contradiction := _contradiction(manifest)) is not None:
        raise ManifestInvalid(str(raw.path), contradiction)
    return manifest


def _contradiction(manifest: ImageManifest) -> str | None:
    """What does not fit together, or None."""
    pooled = 0
    for encoder in manifest.encoders:
        graph = manifest.graphs.get(encoder.graph)
        if graph is None or "token_ids" not in graph.inputs or "hidden" not in graph.outputs:
            return f"the encoder {encoder.graph!r} needs a graph from token_ids to hidden"
        pooled += "pooled" in graph.outputs
    width = sum(encoder.width for encoder in manifest.encoders)
    if width != manifest.conditioning.width:
        return f"encoders of width {width} do not make {manifest.conditioning.width}"
    if len({encoder.max_tokens for encoder in manifest.encoders}) > 1:
        return "hidden states of different lengths cannot be joined"
    if pooled != (manifest.conditioning.pooled_width is not None):
        return f"{pooled} encoders give a pooled embedding"
    decoder = manifest.graphs.get(manifest.vae.graph)
    if decoder is None or "latents" not in decoder.inputs or "picture" not in decoder.outputs:
        return f"the decoder {manifest.vae.graph!r} needs a graph from latents to picture"
    return _wrong_split(manifest) or _wrong_measures(manifest.latents, manifest.vae)


def _wrong_split(manifest: ImageManifest) -> str | None:
    blocks, told = manifest.blocks, manifest.conditioning
    if (blocks is not None) != (manifest.split == "deep"):
        return "the denoiser's blocks are the device's with the split 'deep', and only with that"
    if blocks is None:
        return None
    takes = {
        "context": True,
        "pooled": told.pooled_width is not None,
        "time_ids": told.time_ids,
        "guidance": told.guidance_embedding is not None,
    }
    graphs = {
        name: (graph.inputs.keys(), graph.outputs.keys()) for name, graph in manifest.graphs.items()
    }
    return wrong_blocks(blocks, graphs, {role for role, taken in takes.items() if taken})


def _wrong_measures(latents: LatentGeometry, vae: Vae) -> str | None:
    if latents.height % latents.scale_factor or latents.width % latents.scale_factor:
        return f"a picture's sides must be multiples of {latents.scale_factor}"
    for values in (vae.latents_mean, vae.latents_std):
        if values is not None and len(values) != latents.channels:
            return f"the latents' statistics are not of {latents.channels} channels"
    if (vae.latents_mean is None) != (vae.latents_std is None):
        return "of the latents' mean and deviation only one is there"
    return None
