"""What the command line asked for, before the model is known."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass

from bench.cases import MODES, Link, Mode
from bench.plan import GROWTH_TOKENS, symmetric_splits
from bench.results import Model
from bench.settings import BenchSettings, Dtype, WireCodec
from lambda_split.bundle import WeightFormat
from lambda_split.errors import PromptTooLong, UsageError
from lambda_split.split import Split

__all__ = ["Request", "settings_for"]

_DEMO = "demo"
_DEPTHS = (1, 4, 8)
_MOST_CONTEXT = 4096  # unless more is asked for: sending everything again grows with its square


@dataclass(frozen=True, kw_only=True)
class Request:
    """The arguments of ``lambda-split bench``; it explains them.

    Raises:
        UsageError: they contradict each other.
    """

    model: str | None = None
    bundle: str | None = None
    url: str | None = None
    token_file: str | None = None
    modes: tuple[Mode, ...] | None = None
    depths: tuple[int, ...] | None = None
    links: tuple[Link, ...]
    prompt_tokens: int
    max_new_tokens: int
    repetitions: int
    max_context: int | None = None
    weights: WeightFormat | None = None
    dtype: Dtype | None = None
    codec: WireCodec
    threads: int | None = None
    out: pathlib.Path
    restart: bool = False

    def __post_init__(self) -> None:
        if self.max_new_tokens < 2:
            raise UsageError("--max-new-tokens must be 2 or more: speed is that after the first")
        if (self.bundle is None) != (self.url is None):
            raise UsageError("give both --bundle and --url, or neither")
        if self.bundle is not None and self.model is not None:
            raise UsageError("give MODEL, or --bundle and --url of a server that is there already")
        if self.url is None:
            if self.token_file is not None:
                raise UsageError("--token-file is for a server that is there already: give --url")
            return
        if not self.url.startswith("ws://"):
            raise UsageError(
                f"--url {self.url}: it must begin with ws://, since the emulated link is another "
                "host than a certificate is for; for wss:// open a tunnel to the server"
            )
        if self.modes is not None and not set(self.modes) <= {"split", "split-everything"}:
            raise UsageError("with --bundle and --url, --modes can be split and split-everything")
        for name, value, whose in (
            ("--splits", self.depths, "the bundle's own splits are measured"),
            ("--weights", self.weights, "the bundle has its own"),
            ("--dtype", self.dtype, "the server has its own"),
        ):
            if value is not None:
                raise UsageError(f"{name} is not for --bundle and --url: {whose}")

    @property
    def checkpoint(self) -> str:
        """The model that this program exports and serves itself."""
        return self.model or _DEMO


def settings_for(
    request: Request, model: Model, given: tuple[tuple[Split, ...], WeightFormat] | None
) -> BenchSettings:
    """What is measured of a model.

    Args:
        request: What was asked for.
        model: The model.
        given: Where there is a bundle already: its splits and the format of its weights.

    Raises:
        PromptTooLong: prompt and new tokens take more positions than the model has.
        UsageError: a context is longer than that.
    """
    limit = model.max_positions
    if request.prompt_tokens + request.max_new_tokens > limit:
        reason = "take less for --prompt-tokens or --max-new-tokens"
        raise PromptTooLong(reason, request.prompt_tokens + request.max_new_tokens, limit)
    context = min(limit, _MOST_CONTEXT) if request.max_context is None else request.max_context
    if context > limit:
        raise UsageError(f"--max-context {context}: the model has {limit} positions")
    if 0 < context <= GROWTH_TOKENS:
        raise UsageError(f"--max-context must be 0, or more than {GROWTH_TOKENS}")
    modes = request.modes
    if modes is None:
        modes = MODES if given is None else ("split", "split-everything")
    splits: tuple[Split, ...] = ()
    if {"split", "split-everything"} & set(modes):
        depths = request.depths or _DEPTHS
        splits = symmetric_splits(depths, model.layer_count) if given is None else given[0]
    else:
        context = 0  # the table of growth is of splits
    return BenchSettings(
        server="own" if given is None else "given",
        modes=modes,
        splits=splits,
        links=request.links,
        prompt_tokens=request.prompt_tokens,
        max_new_tokens=request.max_new_tokens,
        repetitions=request.repetitions,
        max_context=context,
        dtype=request.dtype or "auto",
        weights=(request.weights or "int4") if given is None else given[1],
        codec=request.codec,
        threads=request.threads,
    )
