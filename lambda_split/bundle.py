"""The bundle: the folder that export writes and a device runs.

``manifest.json`` names everything a device needs, so that the Python and the Kotlin runtimes read
the same file. :func:`load_bundle` checks all of it before anything is used: the schema, each path,
each file's size and sha256.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import sys
from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from lambda_split.digests import Digest, Sha256, Witnesses
from lambda_split.errors import (
    BundleFileAltered,
    BundleFileMissing,
    BundleFileUnreadable,
    BundleNotFound,
    ManifestInvalid,
    PathOutsideBundle,
    SchemaUnsupported,
)
from lambda_split.split import Split

__all__ = [
    "MANIFEST_NAME",
    "SCHEMA",
    "Bundle",
    "FileEntry",
    "GenerationDefaults",
    "Geometry",
    "Graph",
    "Manifest",
    "ModelSource",
    "TextSettings",
    "Verification",
    "describe_files",
    "load_bundle",
    "write_manifest",
]

MANIFEST_NAME = "manifest.json"
SCHEMA = 1
_MAX_MANIFEST_BYTES = 4 * 1024 * 1024  # bounds the read; real manifests have a few kilobytes
_HASH_CHUNK_BYTES = 1 << 20

Count = Annotated[int, Meta(ge=0, le=1 << 40)]
Size = Annotated[int, Meta(ge=1, le=1 << 31)]
_LARGEST_FLOAT = sys.float_info.max  # a bound that infinity is beyond
WeightFormat = Literal["fp32", "fp16", "int8", "int4"]


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


class KVGeometry(msgspec.Struct, frozen=True, kw_only=True):
    """One layer's key-value cache: arrays of (1, heads, positions, head_dim)."""

    heads: Size
    head_dim: Size


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """One ONNX graph and how to feed it.

    Attributes:
        file: The ``.onnx`` file, relative to the bundle.
        weights: The format its weights are stored in.
        attention: ``shared-kv``: past and present are the same preallocated buffer of any capacity
            (GroupQueryAttention); ``concat-kv``: the graph returns past with the new positions
            appended.
        kv: The cache of each of its layers, in order; empty where it has no layers.
        inputs: Role to the graph's input name. Roles: ``token_ids`` int64 (1, T), ``hidden``
            float32 (1, T, W), ``start`` int64 (1,) the first position of this call,
            ``logit_positions`` int64 (N,) the rows of this call whose logits are wanted,
            ``past.<i>.key`` and ``past.<i>.value`` float32 (1, heads, capacity, head_dim).
        outputs: Role to output name: ``hidden`` float32 (1, T, W), ``logits`` float32 (1, N, V),
            ``present.<i>.key`` and ``present.<i>.value``.
    """

    file: str
    weights: WeightFormat
    attention: Literal["shared-kv", "concat-kv"]
    kv: tuple[KVGeometry, ...]
    inputs: dict[str, str]
    outputs: dict[str, str]


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


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """How far the exported graphs are from PyTorch, measured at export.

    Attributes:
        tokens: Positions that were compared.
        head_max_error: Largest absolute difference of the head's hidden states.
        head_relative_error: Root-mean-square difference over root-mean-square value.
        logits_max_error: Largest absolute difference of the tail's logits.
        kl_divergence: Mean KL(PyTorch ‖ ONNX) of the next-token distributions, in nats.
        top1_agreement: Share of positions whose most likely token is the same.
    """

    tokens: Count
    head_max_error: float
    head_relative_error: float
    logits_max_error: float
    kl_divergence: float
    top1_agreement: float


class FileEntry(msgspec.Struct, frozen=True):
    """Size in bytes and sha256 of one file."""

    size: Count
    sha256: Sha256


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """All that ``manifest.json`` says."""

    schema: int
    kind: Literal["causal-lm", "text-to-image"]
    producer: str
    model: ModelSource
    split: Split
    geometry: Geometry
    graphs: dict[str, Graph]
    text: TextSettings | None = None
    verification: Verification | None = None
    files: dict[str, FileEntry]


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


class _SchemaOnly(msgspec.Struct):
    schema: int


def _read_manifest(folder: pathlib.Path) -> Manifest:
    path = folder / MANIFEST_NAME
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_MANIFEST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleNotFound(str(folder)) from error
    except OSError as error:
        raise ManifestInvalid(str(path), error.strerror or "it cannot be read") from error
    if len(raw) > _MAX_MANIFEST_BYTES:
        raise ManifestInvalid(str(path), f"it is larger than {_MAX_MANIFEST_BYTES} bytes")
    try:
        # The schema first: a newer manifest may have another shape altogether.
        found = msgspec.json.decode(raw, type=_SchemaOnly).schema
        if found != SCHEMA:
            raise SchemaUnsupported(found, SCHEMA)
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestInvalid(str(path), str(error)) from error
    _check_manifest(path, manifest)
    return manifest


def _check_manifest(path: pathlib.Path, manifest: Manifest) -> None:
    named = [graph.file for graph in manifest.graphs.values()]
    if manifest.text is not None:
        named.append(manifest.text.tokenizer)
        if manifest.text.chat_template is not None:
            named.append(manifest.text.chat_template)
    for name in [*manifest.files, *named]:
        _check_inside(name)
    for name in named:
        if name not in manifest.files:
            raise ManifestInvalid(str(path), f"{name} is used but not listed in 'files'")
    if manifest.kind == "causal-lm":
        if manifest.text is None or not {"head", "tail"} <= manifest.graphs.keys():
            raise ManifestInvalid(
                str(path), "a causal-lm needs 'text' and graphs 'head' and 'tail'"
            )
        layers = manifest.split.head_layers + manifest.split.tail_layers
        if min(manifest.split.head_layers, manifest.split.tail_layers) < 0 or (
            layers >= manifest.geometry.layer_count
        ):
            raise ManifestInvalid(str(path), "the split does not fit the layer count")


def _check_inside(name: str) -> None:
    # Manifests are POSIX-style on every system; a backslash or drive would escape on Windows.
    pure = pathlib.PurePosixPath(name)
    if (
        not name
        or name == "."
        or pure.is_absolute()
        or ".." in pure.parts
        or "\\" in name
        or ":" in name
        or "\0" in name
        or pure.as_posix() != name
    ):
        raise PathOutsideBundle(name)


def _sha256(path: pathlib.Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _check_file(folder: pathlib.Path, name: str, entry: FileEntry, *, contents: bool) -> None:
    path = folder / name
    try:
        # A symbolic link inside the folder may still point out of it.
        resolved = path.resolve(strict=True)
        size = resolved.stat().st_size
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        raise BundleFileMissing(name) from error
    if not resolved.is_relative_to(folder.resolve()):
        raise PathOutsideBundle(name)
    if not resolved.is_file():
        raise BundleFileMissing(name)
    if size != entry.size:
        raise BundleFileAltered(name, "its size", str(entry.size), str(size))
    if contents:
        try:
            found = _sha256(resolved)
        except OSError as error:
            raise BundleFileUnreadable(name, error.strerror or "it cannot be read") from error
        if found != entry.sha256:
            raise BundleFileAltered(name, "its sha256", entry.sha256[:12], found[:12])


def load_bundle(folder: str | os.PathLike[str], *, check_contents: bool = True) -> Bundle:
    """Read a bundle and check everything that its manifest says.

    Args:
        folder: The bundle's folder.
        check_contents: Also compare each file's sha256 (reads every byte once); sizes and presence
            are always compared.

    Raises:
        BundleNotFound: there is no manifest.
        ManifestInvalid: it is malformed or contradicts itself.
        SchemaUnsupported: it is of another schema version.
        PathOutsideBundle: it names a path that leaves the folder.
        BundleFileMissing: a listed file is absent.
        BundleFileUnreadable: a listed file cannot be read.
        BundleFileAltered: a listed file has another size or content.
    """
    path = pathlib.Path(folder)
    manifest = _read_manifest(path)
    for name, entry in manifest.files.items():
        _check_file(path, name, entry, contents=check_contents)
    return Bundle(path, manifest)


def describe_files(folder: pathlib.Path, names: Iterable[str]) -> dict[str, FileEntry]:
    """Size and sha256 of files below ``folder``, for a manifest's ``files``."""
    return {
        name: FileEntry((folder / name).stat().st_size, _sha256(folder / name)) for name in names
    }


def write_manifest(folder: pathlib.Path, manifest: Manifest) -> None:
    """Write ``manifest.json``: a temporary file first, then renamed, so it is whole or absent."""
    temporary = folder / f".{MANIFEST_NAME}.tmp"
    raw = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    with temporary.open("wb") as file:
        file.write(raw + b"\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / MANIFEST_NAME)
