"""Options and their values as text: TOML for people to keep, a table for the documentation."""

from __future__ import annotations

import itertools
import json
import pathlib
from collections.abc import Iterable
from typing import Any, Final

from cloud.options import MemoryShare, Option

__all__ = ["as_markdown", "as_toml", "default_text"]

_UNITS: Final = (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3), ("B", 1))


def as_toml(values: Iterable[tuple[Option, Any, str]]) -> str:
    """A configuration file that gives the same settings.

    Args:
        values: For each option, sections together, its value and where that comes from.
    """
    lines: list[str] = []
    for section, group in itertools.groupby(values, key=lambda each: each[0].section):
        lines += ["", f"[{section}]"]
        for option, value, source in group:
            if value is None:
                lines.append(f"# {option.key} is not set: {option.unset}")
            else:
                lines.append(f"{option.key} = {_literal(option, value)}  # {_printable(source)}")
    return "\n".join(lines[1:]) + "\n"


def as_markdown(options: Iterable[Option]) -> str:
    """The table of the documentation."""
    lines = ["| flag | file | environment | default | what it is |", "|---|---|---|---|---|"]
    for option in options:
        cells = (
            f"`{option.flag}`" if option.positional else f"`{_usage(option)}`",
            f"`[{option.section}] {option.key}`",
            f"`{option.variable}`",
            default_text(option),
            option.help,
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def default_text(option: Option) -> str:
    """What holds where no source has the option, for people."""
    if option.unset:
        return option.unset
    if isinstance(option.default, bool):
        return "yes" if option.default else "no"
    return f"{option.default:g}" if isinstance(option.default, float) else str(option.default)


def _usage(option: Option) -> str:
    return (
        option.flag if option.kind.file_types == (bool,) else f"{option.flag} {option.kind.metavar}"
    )


def _literal(option: Option, value: object) -> str:
    """A value in TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"[{', '.join(_string(each) for each in value)}]"
    if isinstance(value, MemoryShare):
        return _string(f"{value.percent!r}%")
    if isinstance(value, int) and str in option.kind.file_types:  # bytes
        unit, size = next(each for each in _UNITS if value % each[1] == 0)
        return _string(f"{value // size}{unit}")
    if isinstance(value, int | float):
        return repr(value)
    return _string(str(value) if isinstance(value, pathlib.Path) else value)


def _string(value: object) -> str:
    # JSON's escapes are TOML's; of what has to be escaped, JSON leaves only U+007F.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")


def _printable(source: str) -> str:
    return "".join(character if character.isprintable() else "\ufffd" for character in source)
