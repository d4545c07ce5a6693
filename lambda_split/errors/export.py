"""Writing a bundle failed; nothing half-written is left behind."""

from __future__ import annotations

from dataclasses import dataclass

from lambda_split.errors.base import LambdaSplitError

__all__ = ["ExportError", "OutputExists", "OutputNotWritable", "VerificationFailed"]


class ExportError(LambdaSplitError):
    """Writing a bundle failed; nothing half-written is left behind."""


@dataclass(eq=False)
class OutputExists(ExportError):
    """The output folder is there already."""

    path: str

    def __str__(self) -> str:
        return f"{self.path} exists: choose another --out, or pass --overwrite to replace it"


@dataclass(eq=False)
class OutputNotWritable(ExportError):
    """The bundle could not be written."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"cannot write {self.path}: {self.reason}; nothing was left behind"


@dataclass(eq=False)
class VerificationFailed(ExportError):
    """The exported graphs differ from PyTorch by more than the format's threshold."""

    measure: str
    value: float
    threshold: float

    def __str__(self) -> str:
        return (
            f"the exported graphs do not match PyTorch: {self.measure} is {self.value:.3g}, the "
            f"limit is {self.threshold:.3g}; no bundle was written"
        )
