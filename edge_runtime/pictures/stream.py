"""Pictures on their way: what comes step by step, and what there is at the end."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from edge_runtime.closing import Closing
from edge_runtime.notebook import Fact, Share, as_duration, card, plain, shares_bar
from edge_runtime.pictures.decoder import Pixels, VaeDecoder
from edge_runtime.pictures.inline import inline_pictures
from edge_runtime.pictures.request import PictureSpec
from edge_runtime.pictures.runs import DenoisingStep, PictureOrder
from edge_runtime.stats import GenerationStats, Meter
from lambda_split.counting import counted
from lambda_split.diffusion.solver import SolverState
from lambda_split.errors import UsageError

__all__ = ["ImageResult", "ImageStats", "ImageStep", "ImageStream"]

Latents = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ImageStats:
    """What a picture cost, in seconds and bytes.

    Attributes:
        total_s: From the prompt to the pixels.
        encode_s: In the text encoders.
        link_s: Waiting for answers, less the trunk's own time.
        trunk_s: In the denoiser, as the server reports it.
        blocks_s: With the split ``deep``: in the denoiser's first and last blocks.
        decode_s: In the VAE decoder, previews included.
        bytes_up: Message bytes sent, replays included.
        bytes_down: Message bytes received.
        reconnects: Times the connection was lost and the picture gone on with.
    """

    total_s: float = 0.0
    encode_s: float = 0.0
    link_s: float = 0.0
    trunk_s: float = 0.0
    blocks_s: float = 0.0
    decode_s: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0
    reconnects: int = 0

    @property
    def shares(self) -> tuple[Share, ...]:
        """The time of each part, in the order of a picture's way."""
        return (
            Share("text encoders", self.encode_s),
            Share("link", self.link_s),
            Share("denoiser", self.trunk_s),
            Share("decoder", self.decode_s),
            Share("blocks here", self.blocks_s),
        )

    @property
    def facts(self) -> list[Fact]:
        """What people want to know of it, by name."""
        facts = [
            ("all after", as_duration(self.total_s)),
            ("up", counted(self.bytes_up, "byte")),
            ("down", counted(self.bytes_down, "byte")),
        ]
        if self.reconnects:
            facts.append(("lost and found", counted(self.reconnects, "connection")))
        return facts

    def _repr_html_(self) -> str:
        return card("ImageStats", self.facts, shares_bar(self.shares, self.total_s))

    def summary(self) -> str:
        """A few lines for people."""
        blocks = f"its first and last blocks here {self.blocks_s:.2f}, " if self.blocks_s else ""
        return (
            f"{self.total_s:.2f} s: text encoders {self.encode_s:.2f}, link {self.link_s:.2f}, "
            f"denoiser {self.trunk_s:.2f}, {blocks}decoder {self.decode_s:.2f}\n"
            f"wire: {self.bytes_up:,} bytes up, {self.bytes_down:,} bytes down"
            + (f", {counted(self.reconnects, 'reconnect')}" if self.reconnects else "")
        )


@dataclass(frozen=True, eq=False)
class ImageStep:
    """A step on the way to the pictures.

    Attributes:
        number: 1 for the first.
        steps: How many there are.
        noise: float32 (images, C, h, w), what the denoiser predicts, after guidance.
        preview: uint8 (images, height, width, 3), the pictures as far as this step can tell; None
            where none was asked for.
    """

    number: int
    steps: int
    noise: Latents
    preview: Pixels | None = None

    def __repr__(self) -> str:
        return plain("ImageStep", self._facts())

    def _repr_html_(self) -> str:
        if self.preview is None:
            return card("ImageStep", self._facts())
        shown = inline_pictures(self.preview, f"preview after step {self.number}")
        return card("ImageStep", self._facts(), shown)

    def _facts(self) -> list[Fact]:
        return [("number", f"{self.number} of {self.steps}")]


@dataclass(frozen=True, eq=False)
class ImageResult:
    """Finished pictures.

    Attributes:
        images: uint8 (images, height, width, 3), red, green and blue.
        latents: float32 (images, C, h, w), what they were decoded from.
        seed: The seed that was used.
        spec: What was asked for.
        stats: What it cost.
    """

    images: Pixels
    latents: Latents
    seed: int
    spec: PictureSpec
    stats: ImageStats

    def __repr__(self) -> str:
        return plain(
            "ImageResult", [*self._facts(), ("all after", as_duration(self.stats.total_s))]
        )

    def __rich_repr__(self) -> Iterator[tuple[str, object]]:
        yield from self._facts()
        yield "spec", self.spec
        yield "stats", self.stats

    def _repr_html_(self) -> str:
        return card(
            "ImageResult",
            [*self._facts(), *self.stats.facts],
            inline_pictures(self.images, f"picture made with seed {self.seed}"),
            shares_bar(self.stats.shares, self.stats.total_s),
        )

    def _facts(self) -> list[Fact]:
        count, height, width = self.images.shape[:3]
        return [
            ("images", f"{count} of {width} × {height}"),
            ("seed", str(self.seed)),
            ("steps", str(self.spec.steps)),
        ]


class ImageStream(Closing):
    """Iterates over the steps of pictures; :attr:`result` is there at the end.

    Closing it early, with :meth:`close` or by leaving a ``with`` block, ends the work on them; the
    generator is ready for the next prompt.

    Args:
        steps: The trunk's steps; none is taken before the first is asked for.
        order: What is made.
        decoder: Makes pixels.
        spec: What was asked for.
        meter: What the session has cost.
        began: The meter's reading when work began.
        encode_s: Seconds that the text encoders took.
        preview_every: Decode a preview after every so many steps; 0 for none.
    """

    def __init__(
        self,
        steps: Generator[DenoisingStep],
        order: PictureOrder,
        decoder: VaeDecoder,
        *,
        spec: PictureSpec,
        meter: Meter,
        began: GenerationStats,
        encode_s: float,
        preview_every: int,
    ) -> None:
        self._steps = steps
        self._order = order
        self._decoder = decoder
        self._spec = spec
        self._meter = meter
        self._before = began
        self._encode_s = encode_s
        self._decode_s = 0.0
        self._total_s = encode_s
        self._preview_every = preview_every
        self._state: SolverState | None = None
        self._taken = 0
        self._result: ImageResult | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ImageStep:
        """Take a step; after the last one decode the pictures.

        Raises:
            RequestError: the server cannot make this picture.
            ConnectionLost: going on was given up.
            WireError: the server objects or does not serve this bundle any more.
            GraphInvalid: the decoder fails.
        """
        began = time.perf_counter()
        try:
            taken = next(self._steps)
            self._state = taken.after
            number, every = taken.number + 1, self._preview_every
            self._taken = number
            preview = self._preview(taken) if every and number % every == 0 else None
            return ImageStep(number, self._order.trajectory.solver.steps, taken.noise, preview)
        except StopIteration:
            if self._result is None and self._state is not None and self._all_taken:
                images = self._decode(self._state.sample)
                self._total_s += time.perf_counter() - began
                began = time.perf_counter()
                self._result = self._finish(images, self._state.sample)
            raise
        finally:
            self._total_s += time.perf_counter() - began

    def close(self) -> None:
        """Take no more steps; nothing happens where all were taken."""
        self._steps.close()

    @property
    def result(self) -> ImageResult:
        """The finished pictures.

        Raises:
            UsageError: not all steps were taken yet.
        """
        if self._result is None:
            raise UsageError("the pictures are not finished: iterate to the end first")
        return self._result

    @property
    def _all_taken(self) -> bool:
        return self._taken == self._order.trajectory.solver.steps

    def _preview(self, taken: DenoisingStep) -> Pixels:
        solver = self._order.trajectory.solver
        return self._decode(solver.predicted_original(taken.noise, taken.number, taken.before))

    def _decode(self, latents: Latents) -> Pixels:
        began = time.perf_counter()
        pixels = self._decoder.decode(latents)
        self._decode_s += time.perf_counter() - began
        return pixels

    @property
    def conditioning(self) -> Sequence[npt.NDArray[np.float32]]:
        """What the trunk is told of the prompt: context, then the pooled output, if there is one.

        float32 (rows, tokens, width) and (rows, width): a row for the prompt, and one for the
        negative prompt where it is sent.
        """
        return self._order.conditioning

    @property
    def stats(self) -> ImageStats:
        """What it has cost so far."""
        spent = self._meter.since(self._before)
        return ImageStats(
            total_s=self._total_s,
            encode_s=self._encode_s,
            link_s=spent.link_s,
            trunk_s=spent.trunk_s,
            blocks_s=spent.head_s + spent.tail_s,
            decode_s=self._decode_s,
            bytes_up=spent.bytes_up,
            bytes_down=spent.bytes_down,
            reconnects=spent.reconnects,
        )

    def _finish(self, images: Pixels, latents: Latents) -> ImageResult:
        seed = self._order.trajectory.denoising.seed
        return ImageResult(images, latents, seed, self._spec, self.stats)
