"""The caller asked for something that makes no sense."""

from __future__ import annotations

from dataclasses import dataclass

from lambda_split.counting import counted
from lambda_split.errors.base import LambdaSplitError

__all__ = [
    "ChatTemplateError",
    "MissingExtra",
    "PromptEmpty",
    "PromptTooLong",
    "TlsFileInvalid",
    "TokenFileInvalid",
    "UsageError",
]


@dataclass(eq=False)
class UsageError(LambdaSplitError):
    """The caller asked for something that makes no sense."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(eq=False)
class MissingExtra(UsageError):
    """An optional dependency is not installed; ``reason`` is the missing module's name."""

    extra: str

    def __str__(self) -> str:
        return (
            f"this command needs the '{self.extra}' extra ({self.reason} is not installed): "
            f"pip install 'lambda-split[{self.extra}]'"
        )


@dataclass(eq=False)
class PromptEmpty(UsageError):
    """The prompt has no tokens, so there is no position whose output could be sampled."""

    reason: str = "the prompt is empty: give at least one token to continue"

    def __str__(self) -> str:
        return self.reason


@dataclass(eq=False)
class PromptTooLong(UsageError):
    """The prompt leaves no room in the session's positions."""

    reason: str
    tokens: int
    max_positions: int

    def __str__(self) -> str:
        return (
            f"the prompt has {counted(self.tokens, 'token')} but the session holds "
            f"{counted(self.max_positions, 'position')}: {self.reason}"
        )


@dataclass(eq=False)
class ChatTemplateError(UsageError):
    """The model's chat template refused the messages, or failed on them."""

    def __str__(self) -> str:
        return f"the model's chat template does not take these messages: {self.reason}"


@dataclass(eq=False)
class TokenFileInvalid(UsageError):
    """A line of the server's token file is malformed; the sentence never quotes the line."""

    path: str
    line: int

    def __str__(self) -> str:
        return f"{self.path}, line {self.line}: {self.reason}"


@dataclass(eq=False)
class TlsFileInvalid(UsageError):
    """A certificate or key file cannot be used."""

    path: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"
