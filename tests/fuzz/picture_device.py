"""The device's session machine of pictures, fed with sequences that a fuzzer chooses."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lambda_split.errors import NonFinite, WireError
from lambda_split.wire.messages import ErrorMessage, serialize_message
from lambda_split.wire.pictures.device_session import PictureDeviceSession
from lambda_split.wire.pictures.frames import PictureFrame, PictureFrameKind
from lambda_split.wire.session import Rejected, State
from lambda_split.wire.tensor_format import TENSOR_FORMATS, TensorFormat
from tests.fuzz.picture_agreement import STEPS, Agreed
from tests.fuzz.readings import Reading
from tests.wire.pictures.examples import FP16, WHOLE

__all__ = ["picture_device_session"]

_MAX_STEPS = 200


@dataclass(frozen=True)
class _Expected:
    """The answer to something that a device sent."""

    sequence: int
    step: int
    form: TensorFormat
    tensors: int
    nbytes: int

    def frame(self, **changes: Any) -> bytes:
        facts: dict[str, Any] = {
            "kind": PictureFrameKind.NOISE,
            "format": self.form,
            "step": self.step,
            "tensors": self.tensors,
            "sequence": self.sequence,
            "payload": bytes(self.nbytes),
        }
        return PictureFrame(**(facts | changes)).serialize()


def picture_device_session(data: bytes) -> None:
    """The device's side: whatever a service answers."""
    reading = Reading(data)
    agreed = Agreed.of(reading)
    device = PictureDeviceSession(agreed.hello)
    if reading.below(8):  # else it is still waiting for the welcome
        device.receive_text(serialize_message(agreed.welcome))
    waiting: collections.deque[_Expected] = collections.deque()
    sequence = 0
    for _ in range(_MAX_STEPS):
        if not reading:
            return
        step = reading.below(8)
        try:
            if step < 3:
                waiting.append(_send(device, reading, sequence, picture=step == 0))
                assert device.state is not State.CONNECTING
                sequence += 1
            elif step < 6:
                frame = device.receive_binary(_answer(reading, step, waiting))
                expected = waiting.popleft()
                assert (frame.sequence, frame.step) == (expected.sequence, expected.step)
                assert (frame.format, frame.tensors) == (expected.form, expected.tensors)
                assert len(frame.payload) == expected.nbytes
            else:
                event = device.receive_text(_text(reading, step, waiting))
                if isinstance(event, Rejected):
                    assert event.sequence == waiting.popleft().sequence
        except WireError:
            return
        assert device.in_flight == len(waiting)


def _send(
    device: PictureDeviceSession, reading: Reading, sequence: int, *, picture: bool
) -> _Expected:
    """Something is sent; what its answer has to be."""
    if picture:
        device.picture(WHOLE, reading.piece(), FP16, tensors=reading.below(3))
        return _Expected(sequence, 0, FP16, 0, 0)
    step, nbytes = reading.below(STEPS), reading.below(64)
    device.step(step, reading.piece(), tensors=reading.below(4), answer_bytes=nbytes)
    return _Expected(sequence, step, device.format, 1, nbytes)


def _answer(reading: Reading, step: int, waiting: Sequence[_Expected]) -> bytes:
    """The right answer, one with a field or two of the reading's, or anything."""
    if step == 3 or not waiting:
        return reading.piece()
    if step == 4:
        return waiting[0].frame()
    changes: dict[str, Any] = {
        "kind": reading.choice(tuple(PictureFrameKind)),
        "format": reading.choice(TENSOR_FORMATS),
        "step": reading.number(4),
        "tensors": reading.below(3),
        "sequence": reading.number(4),
        "settings_bytes": reading.below(3),
        "payload": reading.piece(),
    }
    chosen = {reading.choice(tuple(changes)) for _ in range(1 + reading.below(2))}
    return waiting[0].frame(**{name: changes[name] for name in chosen})


def _text(reading: Reading, step: int, waiting: Sequence[_Expected]) -> str:
    """The rejection of the oldest, or anything."""
    if step == 6 and waiting:
        error = ErrorMessage.from_error(NonFinite("incoming"), waiting[0].sequence)
        return serialize_message(error)
    return reading.piece().decode("utf-8", "replace")
