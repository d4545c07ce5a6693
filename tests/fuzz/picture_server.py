"""The server's session machine of pictures, fed with sequences that a fuzzer chooses.

As those of text: each input is a script of steps, and a simple model says what must come of them.
"""

from __future__ import annotations

import collections
import math

import msgspec

from lambda_split.errors import NonFinite, PositionGap, ProtocolError, RequestError
from lambda_split.wire.codecs import Encoded
from lambda_split.wire.frames import HEADER_BYTES, MAX_U32
from lambda_split.wire.messages import Bye, serialize_message
from lambda_split.wire.pictures.frames import PictureFrame, PictureFrameKind, parse_picture_frame
from lambda_split.wire.pictures.handshake import AcceptedPictures
from lambda_split.wire.pictures.layout import (
    CONDITIONING_FORMATS,
    FLOAT_BYTES,
    conditioning_shapes,
    inner_shapes,
    state_shape,
)
from lambda_split.wire.pictures.server_session import (
    PictureServerSession,
    PictureStart,
    PictureStep,
)
from lambda_split.wire.pictures.settings import PictureSettings
from lambda_split.wire.session import State
from lambda_split.wire.tensor_format import TENSOR_FORMATS, payload_bytes
from tests.fuzz.picture_agreement import CONTEXT, LATENTS, STEPS, Agreed
from tests.fuzz.readings import Reading
from tests.fuzz.telling import tells
from tests.wire.pictures.examples import DEEP, GEOMETRY, WHOLE

__all__ = ["picture_server_session"]

_MAX_STEPS = 200


def picture_server_session(data: bytes) -> None:
    """The service's side: whatever a device sends, and whatever becomes of it."""
    reading = Reading(data)
    agreed = Agreed.of(reading)
    server = PictureServerSession(GEOMETRY)
    if reading.below(8):  # else it is still waiting for the hello
        server.receive_text(serialize_message(agreed.hello))
        server.accept(agreed.welcome, agreed.accepted)
    waiting: collections.deque[PictureStart | PictureStep] = collections.deque()
    current: PictureSettings | None = None
    sequence = 0
    for _ in range(_MAX_STEPS):
        if not reading:
            return
        step = reading.below(8)
        if step < 5:
            message = _asked(reading, step, agreed.accepted, current, sequence)
            try:
                asked = server.receive_binary(message)
            except RequestError as error:
                assert server.last_sequence == sequence
                tells(server.reject(sequence, error), error, sequence)
                current = _after_rejection(message, error, current)
            except ProtocolError:
                return  # the connection ends
            else:
                assert asked.frame.sequence == sequence
                assert len(message) <= server.longest_message
                if isinstance(asked, PictureStart):
                    _is_picture(asked)
                    current = asked.settings
                else:
                    assert asked.settings is current
                    assert asked.frame.step < asked.settings.steps
                waiting.append(asked)
            sequence = (sequence + 1) & MAX_U32
        elif step == 5 and waiting:
            _answers(server, waiting.popleft(), micros=reading.number(4))
        elif step == 6 and waiting:
            error, oldest = NonFinite("outgoing"), waiting.popleft().frame.sequence
            tells(server.reject(oldest, error), error, oldest)
        elif step == 7:
            try:
                event = server.receive_text(reading.piece().decode("utf-8", "replace"))
            except ProtocolError:
                return
            if isinstance(event, Bye):
                assert server.state is State.CLOSED


def _asked(
    reading: Reading,
    step: int,
    accepted: AcceptedPictures,
    current: PictureSettings | None,
    sequence: int,
) -> bytes:
    """A picture or a step that is valid but for what the reading makes of it, or anything."""
    number = sequence if reading.below(16) else reading.number(4)
    if step == 4:
        return reading.piece()
    if step == 3:
        settings, conditioning = reading.piece(), reading.piece()
        return PictureFrame(
            kind=PictureFrameKind.PICTURE,
            format=reading.choice(TENSOR_FORMATS),
            step=reading.below(2),
            tensors=reading.below(4),
            sequence=number,
            payload=settings + conditioning,
            settings_bytes=len(settings),
        ).serialize()
    if step == 2:
        return _picture(reading, accepted, number)
    tensors, form = reading.below(5), accepted.format
    size = 0
    if current is not None and accepted.split == "deep" and GEOMETRY.deep is not None:
        size = tensors * payload_bytes(form, inner_shapes(current, GEOMETRY.deep)[0])
    elif current is not None:
        size = tensors * FLOAT_BYTES * math.prod(state_shape(current, GEOMETRY))
    return PictureFrame(
        kind=PictureFrameKind.STEP,
        format=form,
        step=reading.below(5) if reading.below(8) else reading.number(4),
        tensors=tensors,
        sequence=number,
        payload=bytes(size),
    ).serialize()


def _picture(reading: Reading, accepted: AcceptedPictures, sequence: int) -> bytes:
    """A picture of small measures, a little beyond what was agreed at most."""
    images = reading.below(4) + 1
    settings = msgspec.structs.replace(
        DEEP if accepted.split == "deep" else WHOLE,
        images=images,
        prompts=reading.choice((1, images)),
        height=reading.below(6) + 1,
        width=reading.below(6) + 1,
        context_tokens=reading.below(6) + 1,
        negative=reading.choice(("none", "zeros", "sent")),
    )
    head = msgspec.json.encode(settings)
    form = reading.choice(CONDITIONING_FORMATS)
    shapes = conditioning_shapes(settings, GEOMETRY)
    return PictureFrame(
        kind=PictureFrameKind.PICTURE,
        format=form,
        step=0,
        tensors=len(shapes),
        sequence=sequence,
        payload=head + bytes(sum(payload_bytes(form, shape) for shape in shapes)),
        settings_bytes=len(head),
    ).serialize()


def _after_rejection(
    message: bytes, error: RequestError, current: PictureSettings | None
) -> PictureSettings | None:
    """A picture that is rejected ends the one before; a step changes nothing."""
    if message[1] == PictureFrameKind.PICTURE:
        return None
    assert isinstance(error, PositionGap) == (current is None)
    return current


def _is_picture(start: PictureStart) -> None:
    """What begins is within what was agreed, and has its whole conditioning."""
    settings, frame = start.settings, start.frame
    assert frame.step == 0
    assert settings.images * settings.height * settings.width <= LATENTS
    assert settings.steps <= STEPS
    shapes = conditioning_shapes(settings, GEOMETRY)
    assert math.prod(shapes[0][:-1]) <= CONTEXT
    expected = sum(payload_bytes(frame.format, shape) for shape in shapes)
    assert len(start.conditioning) == expected


def _answers(
    server: PictureServerSession, asked: PictureStart | PictureStep, *, micros: int
) -> None:
    """An answer is that frame's."""
    payload = b"" if isinstance(asked, PictureStart) else bytes(5)
    answer = server.reply(asked, Encoded(payload), micros)
    read = parse_picture_frame(answer, max_payload=len(payload))
    assert read.kind is PictureFrameKind.NOISE
    assert (read.sequence, read.step) == (asked.frame.sequence, asked.frame.step)
    assert read.tensors == (not isinstance(asked, PictureStart))
    assert len(answer) == HEADER_BYTES + len(payload)
