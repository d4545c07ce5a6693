"""The error tree: every class is drawn, exported, has a sentence, and crosses the wire."""

import dataclasses
import inspect
import re

import pytest

from lambda_split import errors
from lambda_split.errors import LambdaSplitError, RemoteError, WireError, error_from_wire
from lambda_split.wire.messages import ErrorMessage, parse_message, serialize_message

CLASSES = [
    cls
    for _, cls in inspect.getmembers(errors, inspect.isclass)
    if issubclass(cls, LambdaSplitError) and cls.__module__.startswith(errors.__name__)
]
CONCRETE = [cls for cls in CLASSES if dataclasses.is_dataclass(cls)]
WIRE = [cls for cls in CONCRETE if issubclass(cls, WireError) and "code" in vars(cls)]
SAMPLES = {"int": 7, "str": "some text", "float": 0.5, "tuple[str, ...]": ("one", "two")}


def sample(cls):
    return cls(**{field.name: SAMPLES[field.type] for field in dataclasses.fields(cls)})


def drawn_tree():
    """Each class of the docstring's drawing with the one that it hangs from."""
    parents, path = {}, []
    drawing = errors.__doc__.split("\n\n")[1]
    for line in drawing.splitlines():
        # Several names stand side by side where leaves share a line.
        for match in re.finditer(r"(?:[├└]── |^ {4})([A-Z]\w+)", line):
            depth = match.start(1) // 4 if match.start() < 20 else None
            if depth is None:
                parents[match[1]] = path[-2]
                continue
            path[depth - 1 :] = [match[1]]
            parents[match[1]] = path[-2] if len(path) > 1 else None
    return parents


def test_the_drawing_is_the_tree():
    real = {cls.__name__: cls.__base__.__name__ for cls in CLASSES}
    real["LambdaSplitError"] = None
    assert drawn_tree() == real


def test_every_class_is_exported():
    assert set(errors.__all__) == {cls.__name__ for cls in CLASSES} | {"error_from_wire"}
    assert errors.__all__ == sorted(errors.__all__)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_class_says_what_it_is(cls):
    assert inspect.getdoc(cls)
    assert cls.__doc__ != cls.__base__.__doc__


@pytest.mark.parametrize("cls", CONCRETE, ids=lambda cls: cls.__name__)
def test_every_error_has_a_sentence(cls):
    sentence = str(sample(cls))
    assert len(sentence) > 3
    assert "\n" not in sentence
    assert "<" not in sentence  # no object's default representation
    assert len(sentence.split()) > 1 or cls is errors.UsageError


@pytest.mark.parametrize("cls", CONCRETE, ids=lambda cls: cls.__name__)
def test_only_leaves_and_usage_errors_can_be_raised(cls):
    below = [other for other in CLASSES if other.__base__ is cls]
    assert not below or cls is errors.UsageError


def test_every_wire_error_has_a_code_of_its_own():
    leaves = [cls for cls in CONCRETE if issubclass(cls, WireError) and cls is not RemoteError]
    assert leaves == WIRE
    codes = [cls.code for cls in WIRE]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z]+(-[a-z0-9]+)+|unauthorized", code) for code in codes)


@pytest.mark.parametrize("cls", WIRE, ids=lambda cls: cls.__name__)
def test_every_wire_error_arrives_as_itself(cls):
    error = sample(cls)
    text = serialize_message(ErrorMessage.from_error(error, 3))
    arrived = parse_message(text).to_error()
    assert type(arrived) is cls
    assert arrived.wire_fields() == error.wire_fields()
    assert str(arrived) == str(error)


@pytest.mark.parametrize(
    ("code", "fields"),
    [
        ("from-the-future", {}),
        ("remote", {}),
        ("error", {}),
        ("", {}),
        ("position-gap", {}),
        ("position-gap", {"start": 1}),
        ("position-gap", {"start": 1, "length": "2"}),
        ("position-gap", {"start": 1, "length": 2, "more": 3}),
        ("position-gap", {"start": True, "length": 2}),
        ("non-finite", {"where": 1}),
    ],
)
def test_an_error_that_is_not_known_arrives_as_remote(code, fields):
    error = error_from_wire(code, fields, "the peer's sentence")
    assert type(error) is RemoteError
    assert error.remote_code == code
    assert "the peer's sentence" in str(error)


@pytest.mark.parametrize("cls", CONCRETE, ids=lambda cls: cls.__name__)
def test_errors_are_equal_only_to_themselves_and_can_be_raised(cls):
    error = sample(cls)
    assert error == error  # noqa: PLR0124 - identity is what is tested
    assert error != sample(cls)
    with pytest.raises(cls):
        raise error
