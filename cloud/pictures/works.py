"""What an engine of a denoiser is asked, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cloud.engine import SessionCache
from cloud.jobs import Reply
from lambda_split.wire.codecs import Encoded
from lambda_split.wire.pictures.layout import (
    DenoiserGeometry,
    conditioning_shapes,
    inner_shapes,
    state_shape,
)
from lambda_split.wire.pictures.server_session import PictureStart, PictureStep
from lambda_split.wire.tensor_codecs import decode
from lambda_split.wire.tensor_format import Base, TensorFormat, payload_bytes

__all__ = ["PictureRequest", "PictureResult", "PictureWork"]

Tensor = npt.NDArray[np.float32]
_EXACT = TensorFormat(Base.FP32)


@dataclass(frozen=True, eq=False, slots=True)
class PictureWork:
    """A picture's start or step, its payload read.

    Attributes:
        session: Whose it is.
        asked: What was asked.
        tensors: Its tensors, float32: conditioning, a state, or an inner part's input.
    """

    session: SessionCache
    asked: PictureStart | PictureStep
    tensors: list[Tensor]

    @property
    def tokens(self) -> int:
        """Positions that it takes."""
        return 1

    @property
    def end(self) -> int:
        """The position after it."""
        return self.asked.frame.step + 1


@dataclass(frozen=True, slots=True)
class PictureResult:
    """What came out: the answer's payload, and the step's time in microseconds."""

    payload: bytes
    micros: int


@dataclass(eq=False, slots=True)
class PictureRequest:
    """See :class:`~cloud.jobs.Request`.

    Attributes:
        asked: What was asked.
        geometry: Of the denoiser.
    """

    asked: PictureStart | PictureStep
    geometry: DenoiserGeometry
    _tensors: list[Tensor] = field(default_factory=list)
    _read: bool = False

    @property
    def tokens(self) -> int:
        """Positions that it takes."""
        return 1

    def read(self) -> None:
        """Read the payload, unless that was done.

        Raises:
            NonFinite: it holds NaN or infinity.
        """
        if self._read:
            return
        asked = self.asked
        if isinstance(asked, PictureStart):
            shapes = conditioning_shapes(asked.settings, self.geometry)
            self._tensors = _decoded(asked.conditioning, asked.frame.format, shapes)
        elif asked.settings.denoising is not None:
            shape = state_shape(asked.settings, self.geometry)
            self._tensors = _decoded(asked.frame.payload, _EXACT, [shape] * asked.frame.tensors)
        elif self.geometry.deep is not None:
            entering, _ = inner_shapes(asked.settings, self.geometry.deep)
            self._tensors = _decoded(asked.frame.payload, asked.frame.format, [entering])
        self._read = True

    def piece(self, session: SessionCache, done: int, tokens: int) -> PictureWork:
        """All of it: a step is not cut."""
        del done, tokens
        return PictureWork(session, self.asked, self._tensors)

    def reply(self, results: list[PictureResult]) -> Reply:
        """The answer's payload, which the engine has laid out already."""
        (result,) = results
        return Reply(Encoded(result.payload), result.micros)


def _decoded(
    payload: bytes | memoryview, form: TensorFormat, shapes: list[tuple[int, ...]]
) -> list[Tensor]:
    """The tensors in a payload whose length has been checked."""
    view, tensors = memoryview(payload), []
    for shape in shapes:
        size = payload_bytes(form, shape)
        tensors.append(decode(view[:size], form, shape))
        view = view[size:]
    return tensors
