"""Where the model comes from: a checkpoint to cut and serve here, or a bundle and its server."""

from __future__ import annotations

import socket
import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.request import Request
from bench.results import Model
from edge_runtime.endpoint import Endpoint
from edge_runtime.tokenizer import Tokenizer
from lambda_split.arguments import read_token_file
from lambda_split.bundle import WeightFormat, load_bundle
from lambda_split.errors import BundleKindWrong, ServerUnreachable, UsageError
from lambda_split.split import Split

__all__ = ["Source", "open_source"]

_CONNECT_S = 10.0


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
        UsageError: it is no language model, the token's file holds none, or the address is none.
        ServerUnreachable: nobody listens at the address.
    """
    if request.bundle is None:
        return _checkpoint(request.checkpoint)
    source = _bundle(request.bundle)
    token = None if request.token_file is None else read_token_file(request.token_file)
    if request.url is not None:
        # The device only ever sees the emulated link: what is wrong with the address, and a token
        # that crosses a network unencrypted, would be told by nobody.
        Endpoint(request.url, token)
        _check_reachable(request.url)
    return source


def _check_reachable(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    try:
        address = (parts.hostname or "", parts.port or 80)
        with socket.create_connection(address, timeout=_CONNECT_S):
            pass
    except OSError as error:
        raise ServerUnreachable(url, str(error)) from error


def _checkpoint(name: str) -> Source:
    from export.tokenizer_file import read_tokenizer
    from lambda_split.partition import open_checkpoint
    from lambda_split.partition.sources import is_pipeline

    if is_pipeline(name):
        raise UsageError(f"{name} is a text-to-image pipeline: bench measures language models")
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
        raise BundleKindWrong(folder, manifest.kind)
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
