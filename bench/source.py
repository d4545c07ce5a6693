"""Where the model comes from: a checkpoint to cut and serve here, or a bundle and its server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.request import Request
from bench.results import Model
from edge_runtime.tokenizer import Tokenizer
from lambda_split.bundle import WeightFormat, load_bundle
from lambda_split.errors import ManifestInvalid
from lambda_split.split import Split

__all__ = ["Source", "open_source"]


@dataclass(frozen=True)
class Source:
    """A model that is to be measured.

    Attributes:
        model: What it is.
        encode: Makes token ids of text.
        decode: The way back.
        given: Where there is a bundle already: its splits and the format of its weights.
    """

    model: Model
    encode: Callable[[str], Sequence[int]]
    decode: Callable[[Sequence[int]], str]
    given: tuple[tuple[Split, ...], WeightFormat] | None


def open_source(request: Request) -> Source:
    """Look at the checkpoint or the bundle.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        BundleError: the bundle cannot be read.
    """
    return _checkpoint(request.checkpoint) if request.bundle is None else _bundle(request.bundle)


def _checkpoint(name: str) -> Source:
    from export.tokenizer_file import read_tokenizer
    from lambda_split.partition import open_checkpoint

    checkpoint = open_checkpoint(name)
    tokenizer = Tokenizer(read_tokenizer(checkpoint).tokenizer, checkpoint.vocab_size)
    model = Model(
        id=checkpoint.id,
        fingerprint=checkpoint.fingerprint,
        hidden_size=checkpoint.hidden_size,
        layer_count=checkpoint.layer_count,
        max_positions=checkpoint.max_positions,
    )
    return Source(model, tokenizer.encode, tokenizer.decode, None)


def _bundle(folder: str) -> Source:
    bundle = load_bundle(folder)
    manifest = bundle.manifest
    if manifest.text is None:
        raise ManifestInvalid(folder, "it is no language model")
    tokenizer = Tokenizer.load(bundle.file(manifest.text.tokenizer), manifest.geometry.vocab_size)
    model = Model(
        id=manifest.model.id,
        fingerprint=manifest.model.fingerprint,
        hidden_size=manifest.geometry.hidden_size,
        layer_count=manifest.geometry.layer_count,
        max_positions=manifest.geometry.max_positions,
    )
    given = manifest.choices, manifest.graphs["head"].weights
    return Source(model, tokenizer.encode, tokenizer.decode, given)
