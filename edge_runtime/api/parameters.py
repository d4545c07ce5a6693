"""From a request's JSON to a checked structure: what is refused is refused by its name.

Nothing that would change an answer is ignored. A parameter that this server cannot honour is taken
with the values that mean nothing to it, and refused with any other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec

from lambda_split.errors import BodyInvalid, ParameterInvalid, ParameterUnsupported

__all__ = ["INERT", "Neutral", "parse_object", "parse_request", "without_neutral"]

Neutral = Mapping[str, tuple[object, ...]]

# What OpenAI's clients may send along and what has no influence on the answer: labels of the user,
# hints for its caches and queues.
INERT: Final = (
    "user",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prompt_cache_options",
    "service_tier",
)

_Request = TypeVar("_Request", bound=msgspec.Struct)
_PATH = re.compile(r" - at `(?:key in )?\$(?P<path>[^`]*)`$")
_FIELD = re.compile(r"(?P<what>missing required|contains unknown) field `(?P<field>[^`]*)`")


def parse_object(body: bytes) -> dict[str, Any]:
    """Decode a body.

    Raises:
        BodyInvalid: it is no JSON object.
    """
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BodyInvalid(str(error)) from error
    except RecursionError as error:
        raise BodyInvalid("it is nested too deeply") from error


def without_neutral(fields: Mapping[str, Any], neutral: Neutral, where: str = "") -> dict[str, Any]:
    """The fields that are not in a table, after checking that those in it mean nothing.

    Args:
        fields: Of a JSON object.
        neutral: Name to the values that change nothing.
        where: Path of the object in the request, for the error.

    Raises:
        ParameterUnsupported: one of them has another value.
    """
    for (
        name,
        allowed,
    ) in neutral.items():  # in its order, so that it is always the same that is told
        if name in fields and not any(_same(fields[name], value) for value in allowed):
            listed = " or ".join(msgspec.json.encode(value).decode() for value in allowed)
            raise ParameterUnsupported(
                f"{where}{name}", f"this server takes {listed} only, or leave it out"
            )
    return {name: value for name, value in fields.items() if name not in neutral}


def parse_request(fields: Mapping[str, Any], kind: type[_Request], neutral: Neutral) -> _Request:
    """Check a request's fields.

    Args:
        fields: Of the body's object.
        kind: What they should be.
        neutral: Further fields, by the values that change nothing.

    Raises:
        ParameterUnsupported: a field has a value that this server cannot honour.
        ParameterInvalid: a field is missing, unknown, of another type or out of its range.
    """
    rest = without_neutral(fields, neutral)
    for name in INERT:
        rest.pop(name, None)
    try:
        return msgspec.convert(rest, kind)
    except msgspec.ValidationError as error:
        raise _named(str(error)) from error


def _same(value: object, allowed: object) -> bool:
    # True is 1 and False 0 to Python, not to JSON.
    return value == allowed and isinstance(value, bool) == isinstance(allowed, bool)


def _named(sentence: str) -> ParameterInvalid:
    """Msgspec's sentence, taken apart: it ends with the path, and quotes no value of a string."""
    path = ""
    if match := _PATH.search(sentence):
        path, sentence = match["path"].lstrip("."), sentence[: match.start()]
    if match := _FIELD.search(sentence):
        path = ".".join(filter(None, (path, match["field"])))
        missing = match["what"].startswith("missing")
        sentence = "it is required" if missing else "there is no such parameter"
    return ParameterInvalid(path or "body", sentence[:1].lower() + sentence[1:])
