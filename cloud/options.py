"""Options: how one is declared, and what values it takes.

An option is a field of a settings dataclass, declared by :func:`option`. The command line, the
environment, the configuration file, ``--print-config`` and the documentation are all made from
these fields, so that none of them can say something else than the others.
"""

from __future__ import annotations

import dataclasses
import fractions
import math
import pathlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

__all__ = [
    "ENVIRONMENT_PREFIX",
    "Kind",
    "MemoryShare",
    "Option",
    "choice",
    "count",
    "memory",
    "number",
    "option",
    "options_of",
    "path",
    "seconds",
    "text",
    "texts",
    "yes_or_no",
]

ENVIRONMENT_PREFIX: Final = "LAMBDA_SPLIT_SERVE_"
_UNITS: Final = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_SIZE: Final = re.compile(r"(\d{1,30}(?:\.\d{1,9})?)\s*([a-zA-Z]*|%)", re.ASCII)
_TRUE: Final = frozenset({"true", "yes", "on", "1"})
_FALSE: Final = frozenset({"false", "no", "off", "0"})
_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)


@dataclass(frozen=True)
class MemoryShare:
    """A part of the memory that is free when the server starts."""

    percent: float


@dataclass(frozen=True)
class Kind(Generic[_T_co]):
    """The values that an option takes.

    Attributes:
        parse: From text; raises ValueError with a reason.
        file_types: What the configuration file may hold; it is parsed as the same text.
        metavar: Stands for the value in help.
        choices: All values, where they are few.
        item: Where it takes several values: one of them. ``parse`` then takes one a line.
    """

    parse: Callable[[str], _T_co]
    file_types: tuple[type, ...]
    metavar: str
    choices: tuple[str, ...] = ()
    item: Kind[Any] | None = None


@dataclass(frozen=True)
class Option:
    """One option, as its sources name it.

    Attributes:
        section: The table of the configuration file, and the field of the settings.
        attribute: The field of that part of the settings.
        kind: What it takes.
        default: Where no source has it.
        help: What it does.
        unset: What a default of None means.
        positional: Its name on the command line where it is no flag.
    """

    section: str
    attribute: str
    kind: Kind[Any]
    default: Any
    help: str
    unset: str
    positional: str | None

    @property
    def key(self) -> str:
        """Its name in the configuration file, such as ``max-sessions``."""
        return self.attribute.replace("_", "-")

    @property
    def flag(self) -> str:
        """Its name on the command line, such as ``--max-sessions``."""
        return self.positional or f"--{self.key}"

    @property
    def destination(self) -> str:
        """Its name among parsed arguments."""
        return self.positional.lower() if self.positional else self.attribute

    @property
    def variable(self) -> str:
        """Its environment variable, such as ``LAMBDA_SPLIT_SERVE_MAX_SESSIONS``."""
        return ENVIRONMENT_PREFIX + (self.positional or self.attribute).upper()


@dataclass(frozen=True)
class _Declaration:
    kind: Kind[Any]
    help: str
    unset: str
    positional: str | None


def option(
    default: _T, kind: Kind[_T], description: str, *, unset: str = "", positional: str | None = None
) -> _T:
    """Declare a field of a settings dataclass as an option.

    Args:
        default: Where no source has it.
        kind: What it takes.
        description: What it does, for help and documentation.
        unset: What a default of None means.
        positional: Its name on the command line where it is no flag.
    """
    declaration = _Declaration(kind, description, unset, positional)
    return field(default=default, metadata={"option": declaration})


def options_of(settings: type[Any], section: str) -> Iterator[Option]:
    """The options that a dataclass declares, in order."""
    for each in dataclasses.fields(settings):
        told: _Declaration = each.metadata["option"]
        yield Option(
            section, each.name, told.kind, each.default, told.help, told.unset, told.positional
        )


# --- kinds ----------------------------------------------------------------------------------------


def count(lowest: int, highest: int | None = None, metavar: str = "N") -> Kind[int]:
    """A whole number."""

    def parse(given: str) -> int:
        try:
            value = int(given)
        except ValueError:
            raise ValueError(f"{_quoted(given)} is not a whole number") from None
        if value < lowest:
            raise ValueError(f"{_quoted(given)} is below {lowest}")
        if highest is not None and value > highest:
            raise ValueError(f"{_quoted(given)} is above {highest}")
        return value

    return Kind(parse, (int,), metavar)


def seconds(lowest: float, highest: float) -> Kind[float]:
    """A time in seconds."""

    def parse(given: str) -> float:
        try:
            value = float(given)
        except ValueError:
            value = math.nan
        if math.isnan(value):
            raise ValueError(f"{_quoted(given)} is not a number of seconds")
        if not lowest <= value <= highest:
            raise ValueError(f"{_quoted(given)} is not between {lowest:g} and {highest:g} seconds")
        return value

    return Kind(parse, (int, float), "SECONDS")


def number(lowest: float, highest: float, metavar: str) -> Kind[float]:
    """A number that need not be whole."""

    def parse(given: str) -> float:
        try:
            value = float(given)
        except ValueError:
            value = math.nan
        if not lowest <= value <= highest:  # nor where it is no number
            raise ValueError(f"{_quoted(given)} is not a number between {lowest:g} and {highest:g}")
        return value

    return Kind(parse, (int, float), metavar)


def memory() -> Kind[int | MemoryShare]:
    """An amount of memory: ``8GB``, ``500MB``, ``16GiB``, a number of GB, or a share as ``60%``."""

    def parse(given: str) -> int | MemoryShare:
        match = _SIZE.fullmatch(given.strip())
        unit = match[2].lower() if match else ""
        if match is None or (unit not in _UNITS and unit not in {"", "%"}):
            raise ValueError(f"{_quoted(given)} is no amount of memory: write 8GB, 500MB or 60%")
        amount = fractions.Fraction(match[1])
        if unit == "%":
            if not 0 < amount <= 100:
                raise ValueError(f"{_quoted(given)} is not above 0% and at most 100%")
            return MemoryShare(float(amount))
        value = round(amount * _UNITS[unit or "gb"])
        if value < 1:
            raise ValueError(f"{_quoted(given)} is no memory at all")
        return value

    return Kind(parse, (int, float, str), "SIZE")


def text(metavar: str) -> Kind[str]:
    """Text that is not empty, without control characters."""

    def parse(given: str) -> str:
        if not given or not given.isprintable():
            raise ValueError(f"{_quoted(given)} is empty or has control characters")
        return given

    return Kind(parse, (str,), metavar)


def texts(metavar: str) -> Kind[tuple[str, ...]]:
    """Several texts; one a line in the environment."""
    one = text(metavar)

    def parse(given: str) -> tuple[str, ...]:
        return tuple(one.parse(line) for line in given.splitlines() if line)

    return Kind(parse, (list,), metavar, item=one)


def path() -> Kind[pathlib.Path]:
    """A file."""
    one = text("FILE")
    return Kind(lambda given: pathlib.Path(one.parse(given)), (str,), "FILE")


def choice(*values: str) -> Kind[str]:
    """One of few words."""

    def parse(given: str) -> str:
        if given not in values:
            raise ValueError(f"{_quoted(given)} is not one of {', '.join(values)}")
        return given

    return Kind(parse, (str,), "|".join(values), choices=values)


def yes_or_no() -> Kind[bool]:
    """True or false."""

    def parse(given: str) -> bool:
        if given.lower() in _TRUE:
            return True
        if given.lower() in _FALSE:
            return False
        raise ValueError(f"{_quoted(given)} is neither true nor false")

    return Kind(parse, (bool,), "true|false")


def _quoted(given: str) -> str:
    """As a literal, cut to a length that fits a sentence."""
    return repr(given if len(given) <= 80 else given[:80] + "…")
