"""The bundle: the folder that export writes and a device runs.

``manifest.json`` names everything a device needs, so that the Python and the Kotlin runtimes read
the same file. :func:`load_bundle` checks all of it before anything is used: the schema, each path,
each file's size and sha256. This is the manifest of language models; that of pictures is in
:mod:`lambda_split.image_bundle`.
"""

from __future__ import annotations

import os
import pathlib
import sys
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from lambda_split.bundle_files import (
    MANIFEST_NAME,
    SCHEMA,
    Count,
    FileEntry,
    RawManifest,
    Size,
    check_files,
    check_named,
    describe_files,
    read_raw_manifest,
    write_manifest_file,
)
from lambda_split.bundle_graphs import (
    Graph,
    KVGeometry,
    SplitGraphs,
    Verification,
    WeightFormat,
    check_splits,
)
from lambda_split.digests import Digest, Witnesses
from lambda_split.errors import BundleFileMissing, BundleKindWrong, ManifestInvalid, UsageError
from lambda_split.split import Split

__all__ = [
    "MANIFEST_NAME",
    "SCHEMA",
    "Bundle",
    "FileEntry",
    "GenerationDefaults",
    "Geometry",
    "Graph",
    "KVGeometry",
    "Manifest",
    "ModelSource",
    "SplitGraphs",
    "TextSettings",
    "Verification",
    "WeightFormat",
    "describe_files",
    "load_bundle",
    "write_manifest",
]

_LARGEST_FLOAT = sys.float_info.max  # a bound that infinity is beyond


class ModelSource(msgspec.Struct, frozen=True, kw_only=True):
    """Which checkpoint the bundle was cut from.

    Attributes:
        id: Hugging Face id, or the name of the local folder (never its path).
        revision: The Hub commit, where known.
        family: transformers' ``model_type``, for example ``llama``.
        lora: Names of the adapters that were merged, in order.
        fingerprint: The checkpoint's identity (config, tensor names, adapters); equal on both
            sides. See ``docs/adr/0002-fingerprint.md``.
        witnesses: Trunk tensors that the export could see without opening trunk-only shards, each
            with the digest of its dtype, shape and first bytes; the server compares those it holds.
    """

    id: str
    family: str
    fingerprint: Digest
    revision: str | None = None
    lora: tuple[str, ...] = ()
    witnesses: Witnesses = {}


class Geometry(msgspec.Struct, frozen=True, kw_only=True):
    """The model's measures.

    Attributes:
        hidden_size: Width of the hidden states that cross the wire.
        layer_count: Decoder layers of the whole model.
        vocab_size: Number of logits.
        max_positions: Positions the exported graphs are valid for.
    """

    hidden_size: Size
    layer_count: Size
    vocab_size: Size
    max_positions: Size


class GenerationDefaults(msgspec.Struct, frozen=True, kw_only=True):
    """The sampling settings that the checkpoint's authors chose; temperature 0 is greedy.

    Ranges are those of ``edge_runtime.sampling.SamplingSettings``, which explains the fields. (JSON
    has no infinity, and a number beyond float64 is no float to msgspec.)
    """

    temperature: Annotated[float, Meta(ge=0, le=_LARGEST_FLOAT)] = 0.0
    top_k: Count = 0
    top_p: Annotated[float, Meta(ge=0, le=1)] = 1.0
    min_p: Annotated[float, Meta(ge=0, le=1)] = 0.0
    repetition_penalty: Annotated[float, Meta(ge=1e-3, le=1e3)] = 1.0


class TextSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Tokenizer and generation settings of a causal language model.

    Attributes:
        tokenizer: The ``tokenizer.json`` file, relative to the bundle.
        chat_template: The jinja2 template file, where the model has one.
        stop_token_ids: Tokens that end a generation.
        special_tokens: Names to texts that chat templates may use (``bos_token`` …).
        generation: Defaults for what the caller leaves open.
    """

    tokenizer: str
    chat_template: str | None = None
    stop_token_ids: tuple[Count, ...] = ()
    special_tokens: dict[str, str] = {}
    generation: GenerationDefaults = GenerationDefaults()


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """All that ``manifest.json`` says.

    ``split``, the graphs ``head`` and ``tail`` and ``verification`` are of one split. Where a
    device may choose, ``splits`` names the graphs of each, that one among them: a runtime that
    does not know this field uses ``split``.
    """

    schema: int
    kind: Literal["causal-lm"]
    producer: str
    model: ModelSource
    split: Split
    geometry: Geometry
    graphs: dict[str, Graph]
    text: TextSettings | None = None
    verification: Verification | None = None
    splits: tuple[SplitGraphs, ...] = ()
    files: dict[str, FileEntry]

    @property
    def choices(self) -> tuple[Split, ...]:
        """The splits that a device may run; at least one."""
        return tuple(one.split for one in self.splits) or (self.split,)

    def at(self, split: Split) -> Manifest:
        """The manifest as if this were its only split.

        Raises:
            UsageError: the bundle has no such split.
        """
        if split not in self.choices:
            listed = " and ".join(map(str, self.choices))
            raise UsageError(f"the bundle has no split {split}, it has {listed}")
        chosen = next((one for one in self.splits if one.split == split), None)
        if chosen is None:
            return self
        return msgspec.structs.replace(
            self,
            split=split,
            graphs={"head": self.graphs[chosen.head], "tail": self.graphs[chosen.tail]},
            verification=chosen.verification,
            splits=(),
        )


class Bundle(msgspec.Struct, frozen=True):
    """A bundle whose manifest and files were checked."""

    path: pathlib.Path
    manifest: Manifest

    def file(self, name: str) -> pathlib.Path:
        """The path of a listed file.

        Raises:
            BundleFileMissing: the manifest does not list it.
        """
        if name not in self.manifest.files:
            raise BundleFileMissing(name)
        return self.path / name

    def at(self, split: Split) -> Bundle:
        """The bundle as if this were its only split.

        Raises:
            UsageError: it has no such split.
        """
        return Bundle(self.path, self.manifest.at(split))


def _parse(raw: RawManifest) -> Manifest:
    if raw.kind == "text-to-image":
        raise BundleKindWrong(str(raw.path.parent), raw.kind)
    try:
        manifest = msgspec.json.decode(raw.content, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestInvalid(str(raw.path), str(error)) from error
    _check_manifest(raw.path, manifest)
    return manifest


def _check_manifest(path: pathlib.Path, manifest: Manifest) -> None:
    named = [graph.file for graph in manifest.graphs.values()]
    if manifest.text is not None:
        named.append(manifest.text.tokenizer)
        if manifest.text.chat_template is not None:
            named.append(manifest.text.chat_template)
    check_named(path, named, manifest.files)
    if manifest.text is None or not {"head", "tail"} <= manifest.graphs.keys():
        raise ManifestInvalid(str(path), "a causal-lm needs 'text' and graphs 'head' and 'tail'")
    split = manifest.split
    layers = split.head_layers + split.tail_layers
    if min(split.head_layers, split.tail_layers) < 0 or layers >= manifest.geometry.layer_count:
        raise ManifestInvalid(str(path), "the split does not fit the layer count")
    check_splits(path, split, manifest.splits, manifest.graphs, manifest.geometry.layer_count)


def load_bundle(folder: str | os.PathLike[str], *, check_contents: bool = True) -> Bundle:
    """Read a bundle and check everything that its manifest says.

    Args:
        folder: The bundle's folder.
        check_contents: Also compare each file's sha256 (reads every byte once); sizes and presence
            are always compared.

    Raises:
        BundleNotFound: there is no manifest.
        BundleKindWrong: it is of a pipeline that makes pictures.
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
    return Bundle(path, manifest)


def write_manifest(folder: pathlib.Path, manifest: Manifest) -> None:
    """Write ``manifest.json``: a temporary file first, then renamed, so it is whole or absent."""
    write_manifest_file(folder, manifest)
