"""The server does not want the session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lambda_split.errors.wire import WireError

__all__ = [
    "CapacityRefused",
    "CodecRefused",
    "DenoiserSplitRefused",
    "FingerprintRefused",
    "KindRefused",
    "PictureRefused",
    "PositionsRefused",
    "Refused",
    "SplitRefused",
    "TokenMissing",
    "TokenRevoked",
    "Unauthorized",
    "VersionRefused",
    "WidthRefused",
]


class Refused(WireError):
    """The server does not want the session: this one, or from this device."""


@dataclass(eq=False)
class VersionRefused(Refused):
    """The two sides speak different protocol versions."""

    code: ClassVar[str] = "version-refused"
    asked: int
    served: int

    def __str__(self) -> str:
        return (
            f"the device speaks protocol {self.asked}, the server {self.served}: install the same "
            "version of lambda-split on both sides"
        )


@dataclass(eq=False)
class FingerprintRefused(Refused):
    """Device and server were made from different checkpoints."""

    code: ClassVar[str] = "fingerprint-refused"
    asked: str
    served: str
    what: str

    def __str__(self) -> str:
        return (
            f"the bundle was exported from another checkpoint than the server loaded ({self.what}: "
            f"bundle {self.asked}, server {self.served}): export again from the served model, or "
            "serve the exported one (the same LoRA adapters on both sides)"
        )


@dataclass(eq=False)
class SplitRefused(Refused):
    """The server's loaded layers do not cover the device's split."""

    code: ClassVar[str] = "split-refused"
    head_layers: int
    tail_layers: int
    first_layer: int
    last_layer: int

    def __str__(self) -> str:
        return (
            f"the bundle's split ({self.head_layers}, {self.tail_layers}) needs layers that the "
            f"server has not loaded; it holds layers {self.first_layer} to {self.last_layer}: "
            f"serve with --head-layers {self.head_layers} --tail-layers {self.tail_layers} or fewer"
        )


@dataclass(eq=False)
class WidthRefused(Refused):
    """The hidden sizes differ."""

    code: ClassVar[str] = "width-refused"
    asked: int
    served: int

    def __str__(self) -> str:
        return f"the bundle's hidden size is {self.asked}, the server's {self.served}"


@dataclass(eq=False)
class CodecRefused(Refused):
    """None of the device's codecs is known to the server."""

    code: ClassVar[str] = "codec-refused"
    asked: str
    served: str

    def __str__(self) -> str:
        return f"the device offers the codecs {self.asked}, the server knows {self.served}"


@dataclass(eq=False)
class KindRefused(Refused):
    """The server serves models of another kind."""

    code: ClassVar[str] = "kind-refused"
    asked: str
    served: str

    def __str__(self) -> str:
        return f"the server serves {self.served}, and this bundle is for {self.asked}"


@dataclass(eq=False)
class DenoiserSplitRefused(Refused):
    """A split that the server's denoiser cannot do."""

    code: ClassVar[str] = "denoiser-split-refused"
    asked: str
    served: str

    def __str__(self) -> str:
        return f"the split {self.asked!r} is not served: this denoiser can do {self.served}"


@dataclass(eq=False)
class PictureRefused(Refused):
    """The device asked for larger pictures than the server makes."""

    code: ClassVar[str] = "picture-refused"
    what: str
    asked: int
    limit: int

    def __str__(self) -> str:
        return f"a picture with {self.asked} {self.what}: the server allows 1 to {self.limit}"


@dataclass(eq=False)
class PositionsRefused(Refused):
    """The device asked for more positions than a session may have."""

    code: ClassVar[str] = "positions-refused"
    asked: int
    limit: int

    def __str__(self) -> str:
        return (
            f"{self.asked} positions were asked for, the server allows {self.limit} a session: "
            "give --max-positions here, or a larger one to the server"
        )


@dataclass(eq=False)
class CapacityRefused(Refused):
    """The server is full for now."""

    code: ClassVar[str] = "capacity-refused"
    reason: str
    retry_after_s: int

    def __str__(self) -> str:
        return (
            f"the server is full ({self.reason}): try again in {self.retry_after_s} s, or serve "
            "with a larger --max-sessions"
        )


@dataclass(eq=False)
class Unauthorized(Refused):
    """The server does not know the bearer token of the upgrade request (HTTP 401)."""

    code: ClassVar[str] = "unauthorized"

    def __str__(self) -> str:
        return "the server does not know the token that this device sent: check --token-file"


@dataclass(eq=False)
class TokenMissing(Refused):
    """The upgrade request had no bearer token, and the server wants one (HTTP 401)."""

    code: ClassVar[str] = "token-missing"

    def __str__(self) -> str:
        return "the server wants a token and this device sent none: give --token-file"


@dataclass(eq=False)
class TokenRevoked(Refused):
    """The server does not take the token any more (HTTP 401, or the end of an open session)."""

    code: ClassVar[str] = "token-revoked"

    def __str__(self) -> str:
        return "the server does not take this device's token any more: ask for another one"
