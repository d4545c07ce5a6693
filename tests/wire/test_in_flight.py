"""What waits for its answer, in order."""

import pytest

from lambda_split.errors import NonFinite, PositionGap, RemoteError, SequenceBroken, ServerDraining
from lambda_split.wire.frames import MAX_U32
from lambda_split.wire.in_flight import InFlight
from lambda_split.wire.messages import ErrorMessage


def waiting(*what):
    flight = InFlight()
    assert [flight.send(each) for each in what] == list(range(len(what)))
    return flight


def test_answers_come_in_the_order_of_what_was_sent():
    flight = waiting("a", "b")
    assert (len(flight), flight.next_sequence, flight.oldest) == (2, 2, "a")
    flight.check(0)
    assert len(flight) == 2  # seen, not taken
    flight.answered()
    assert (len(flight), flight.oldest) == (1, "b")
    flight.check(1)
    flight.answered()
    assert not flight
    with pytest.raises(IndexError):
        _ = flight.oldest


@pytest.mark.parametrize(
    ("what", "sequence", "expected"), [("ab", 1, 0), ("ab", 2, 0), ("", 0, 0), ("", MAX_U32, 0)]
)
def test_another_s_answer_breaks_the_sequence(what, sequence, expected):
    flight = waiting(*what)
    with pytest.raises(SequenceBroken) as caught:
        flight.check(sequence)
    assert caught.value.wire_fields() == {"found": sequence, "expected": expected}
    assert len(flight) == len(what)


def test_a_rejection_answers_the_oldest():
    flight = waiting("a", "b")
    rejected = flight.failed(ErrorMessage.from_error(PositionGap(9, 7), 0))
    assert (rejected.sequence, rejected.error.wire_fields()) == (0, {"start": 9, "length": 7})
    assert flight.oldest == "b"
    with pytest.raises(SequenceBroken):
        flight.failed(ErrorMessage.from_error(PositionGap(9, 7), 0))
    assert flight.oldest == "b"


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (ErrorMessage.from_error(NonFinite("incoming")), NonFinite),
        (ErrorMessage.from_error(ServerDraining(), 0), ServerDraining),
        (ErrorMessage(code="from-the-future", message="?", sequence=0), RemoteError),
    ],
)
def test_an_error_that_ends_the_connection_answers_nothing(message, error):
    flight = waiting("a")
    with pytest.raises(error):
        flight.failed(message)
    assert flight.oldest == "a"


def test_numbers_start_again_after_the_last():
    flight = InFlight()
    flight._next = MAX_U32
    assert flight.send("a") == MAX_U32
    assert flight.send("b") == 0
    flight.check(MAX_U32)
    flight.answered()
    flight.check(0)
