"""Something is wrong with the folder that a device runs."""

from __future__ import annotations

from dataclasses import dataclass

from lambda_split.errors.base import LambdaSplitError

__all__ = [
    "BundleError",
    "BundleFileAltered",
    "BundleFileMissing",
    "BundleFileUnreadable",
    "BundleKindWrong",
    "BundleNotFound",
    "ChatTemplateInvalid",
    "GraphInvalid",
    "LogitsInvalid",
    "ManifestInvalid",
    "PathOutsideBundle",
    "SchemaUnsupported",
    "TokenizerInvalid",
]


class BundleError(LambdaSplitError):
    """Something is wrong with the folder that a device runs."""


@dataclass(eq=False)
class BundleNotFound(BundleError):
    """There is no manifest in the folder."""

    path: str

    def __str__(self) -> str:
        return (
            f"{self.path} is not a bundle (no manifest.json): make one with 'lambda-split export'"
        )


@dataclass(eq=False)
class ManifestInvalid(BundleError):
    """The manifest is not what its schema says."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"the bundle's {self.path} cannot be used: {self.reason}"


@dataclass(eq=False)
class BundleKindWrong(BundleError):
    """The bundle is a good one, of a model for something else."""

    path: str
    kind: str

    def __str__(self) -> str:
        what, use = _USES.get(self.kind, (self.kind, "a command for that"))
        return f"the bundle {self.path} is of a model for {what}: use {use}"


# What each kind of bundle is for, and with which commands.
_USES = {
    "causal-lm": ("text", "'lambda-split generate' or 'lambda-split chat'"),
    "text-to-image": ("pictures", "'lambda-split image'"),
}


@dataclass(eq=False)
class SchemaUnsupported(BundleError):
    """The manifest was written for a schema that this version cannot read."""

    found: int
    supported: int

    def __str__(self) -> str:
        return (
            f"the bundle has manifest schema {self.found}, this version reads {self.supported}: "
            "upgrade lambda-split, or export the bundle again with this version"
        )


@dataclass(eq=False)
class PathOutsideBundle(BundleError):
    """A path in the manifest leaves the bundle's folder."""

    path: str

    def __str__(self) -> str:
        return f"the manifest names {self.path!r}, which is outside the bundle's folder"


@dataclass(eq=False)
class BundleFileMissing(BundleError):
    """A file that the manifest names is absent."""

    path: str

    def __str__(self) -> str:
        return f"the bundle lacks {self.path}: copy it again, or export again"


@dataclass(eq=False)
class BundleFileUnreadable(BundleError):
    """A file is there, but the system does not let it be read."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"the bundle's {self.path} cannot be read: {self.reason}"


@dataclass(eq=False)
class BundleFileAltered(BundleError):
    """A file's size or sha256 differ from what the manifest says."""

    path: str
    what: str
    expected: str
    found: str

    def __str__(self) -> str:
        return (
            f"{self.path} was altered: {self.what} is {self.found}, the manifest says "
            f"{self.expected}: copy it again, or export again"
        )


@dataclass(eq=False)
class GraphInvalid(BundleError):
    """A graph cannot be loaded, or lacks what the manifest says it has."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"the graph {self.path} cannot be used: {self.reason}"


@dataclass(eq=False)
class TokenizerInvalid(BundleError):
    """The tokenizer cannot be loaded, or has tokens that the model does not know."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"the tokenizer {self.path} cannot be used: {self.reason}"


@dataclass(eq=False)
class ChatTemplateInvalid(BundleError):
    """The chat template is not a template that can be compiled."""

    reason: str

    def __str__(self) -> str:
        return f"the bundle's chat template cannot be used: {self.reason}"


@dataclass(eq=False)
class LogitsInvalid(BundleError):
    """The tail's logits have no finite maximum, so there is no next token."""

    found: str

    def __str__(self) -> str:
        return (
            f"the tail's largest logit is {self.found}: its weights are damaged or overflow; "
            "export the bundle again, with another --weights format"
        )
