"""Errors that one side can tell the other, and how they cross the wire."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from lambda_split.errors.base import LambdaSplitError

__all__ = ["RemoteError", "WireError", "error_from_wire"]


class WireError(LambdaSplitError):
    """An error that one side can tell the other; ``code`` is its name in the protocol."""

    code: ClassVar[str] = "error"

    def wire_fields(self) -> dict[str, str | int]:
        """The error's facts as they cross the wire (strings and integers only)."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]  # every concrete subclass is a dataclass; a test walks the tree


@dataclass(eq=False)
class RemoteError(WireError):
    """An error whose code this version does not know."""

    remote_code: str
    message: str

    def __str__(self) -> str:
        return f"the peer reports {self.remote_code}: {self.message}"


def _concrete(base: type[WireError]) -> list[type[WireError]]:
    found: list[type[WireError]] = []
    for cls in base.__subclasses__():
        found += [cls] if "code" in vars(cls) else []
        found += _concrete(cls)
    return found


def error_from_wire(code: str, fields: dict[str, object], message: str) -> WireError:
    """Rebuild the typed error that the peer sent.

    Args:
        code: The protocol's name of the error.
        fields: Its facts; checked against the error's own fields.
        message: The peer's sentence, used when the code or its fields are not known here.

    Returns:
        The typed error, or :class:`RemoteError` where this version does not know it.
    """
    for cls in _concrete(WireError):
        if cls.code != code:
            continue
        wanted = {field.name: field.type for field in dataclasses.fields(cls)}  # type: ignore[arg-type]  # concrete wire errors are dataclasses
        if fields.keys() == wanted.keys() and all(
            type(value).__name__ == wanted[name] for name, value in fields.items()
        ):
            return cls(**fields)
    return RemoteError(remote_code=code, message=message)
