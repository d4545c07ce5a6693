"""Every error that Λ-Split raises on purpose, in one tree.

::

    LambdaSplitError
    ├── UsageError                 the caller asked for something that makes no sense
    │   ├── MissingExtra           an optional dependency is not installed
    │   ├── PromptEmpty            nothing to continue
    │   ├── PromptTooLong          the prompt leaves no room in the model's positions
    │   └── ChatTemplateError      the chat template refused the messages, or failed on them
    ├── BundleError                the folder that a device runs
    │   ├── BundleNotFound         no manifest there
    │   ├── ManifestInvalid        the manifest is not what the schema says
    │   ├── SchemaUnsupported      written by a newer (or foreign) version
    │   ├── PathOutsideBundle      a listed path leaves the folder
    │   ├── BundleFileMissing      a listed file is not there
    │   ├── BundleFileAltered      size or sha256 differ from the manifest
    │   ├── GraphInvalid           a graph lacks an input or output that the manifest names
    │   ├── TokenizerInvalid       tokenizer.json is malformed or has tokens the model lacks
    │   ├── ChatTemplateInvalid    the chat template is not a template
    │   └── LogitsInvalid          the tail computed logits that cannot be sampled
    ├── CheckpointError            the model that is exported or served
    │   ├── CheckpointNotFound     neither a folder nor a reachable Hub id
    │   ├── CheckpointInvalid      config, index or shard is malformed
    │   ├── UnsafeWeights          only pickled weights there
    │   ├── UnsupportedFamily      an architecture that cannot be cut yet
    │   ├── TensorMissing          a tensor that the wanted part needs is absent
    │   ├── TensorMismatch         a tensor has another shape than the config says
    │   ├── SplitImpossible        more layers asked for than the model has
    │   └── AdapterError           a LoRA adapter that cannot be merged
    ├── ExportError                checkpoint -> bundle
    │   ├── OutputExists           the output folder is there already
    │   ├── OutputNotWritable      disk full, no permission …
    │   └── VerificationFailed     the graphs differ too much from PyTorch
    ├── WireError                  crosses the wire as an error message; has a ``code``
    │   ├── ProtocolError          the peer broke the protocol; the connection ends
    │   │   ├── FrameTruncated     ├── FrameOversized      ├── FrameLengthMismatch
    │   │   ├── FrameUnknownKind   ├── FrameUnknownFlags   ├── FrameUnknownCodec
    │   │   ├── FrameVersion       ├── SequenceBroken      ├── MessageMalformed
    │   │   ├── UnexpectedMessage  └── HandshakeTimeout
    │   ├── Refused                the handshake failed; no hidden state was sent
    │   │   ├── VersionRefused     ├── FingerprintRefused  ├── SplitRefused
    │   │   ├── WidthRefused       ├── CodecRefused        ├── PositionsRefused
    │   │   ├── CapacityRefused    └── Unauthorized
    │   ├── RequestError           one forward was rejected; the session goes on unchanged
    │   │   ├── PositionGap        ├── PositionBeyondEnd   ├── ChunkTooLong
    │   │   ├── NonFinite          └── CodecOverflow
    │   ├── ServerError            the server's own trouble; reconnect and replay
    │   │   ├── ServerDraining     ├── SessionEvicted      └── InternalError
    │   └── RemoteError            a code that this version does not know
    └── LinkError                  the way to the server
        ├── AddressUnavailable     the server cannot listen there
        ├── ServerUnreachable      no connection within the allowed time
        └── ConnectionLost         it broke; raised only after replaying was given up

Errors are dataclasses: they hold the facts as fields and compose their sentence from them.
A sentence says what is wrong and, where there is something to do, what to do.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

__all__ = [
    "AdapterError",
    "AddressUnavailable",
    "BundleError",
    "BundleFileAltered",
    "BundleFileMissing",
    "BundleNotFound",
    "CapacityRefused",
    "ChatTemplateError",
    "ChatTemplateInvalid",
    "CheckpointError",
    "CheckpointInvalid",
    "CheckpointNotFound",
    "ChunkTooLong",
    "CodecOverflow",
    "CodecRefused",
    "ConnectionLost",
    "ExportError",
    "FingerprintRefused",
    "FrameLengthMismatch",
    "FrameOversized",
    "FrameTruncated",
    "FrameUnknownCodec",
    "FrameUnknownFlags",
    "FrameUnknownKind",
    "FrameVersion",
    "GraphInvalid",
    "HandshakeTimeout",
    "InternalError",
    "LambdaSplitError",
    "LinkError",
    "LogitsInvalid",
    "ManifestInvalid",
    "MessageMalformed",
    "MissingExtra",
    "NonFinite",
    "OutputExists",
    "OutputNotWritable",
    "PathOutsideBundle",
    "PositionBeyondEnd",
    "PositionGap",
    "PositionsRefused",
    "PromptEmpty",
    "PromptTooLong",
    "ProtocolError",
    "Refused",
    "RemoteError",
    "RequestError",
    "SchemaUnsupported",
    "SequenceBroken",
    "ServerDraining",
    "ServerError",
    "ServerUnreachable",
    "SessionEvicted",
    "SplitImpossible",
    "SplitRefused",
    "TensorMismatch",
    "TensorMissing",
    "TokenizerInvalid",
    "Unauthorized",
    "UnexpectedMessage",
    "UnsafeWeights",
    "UnsupportedFamily",
    "UsageError",
    "VerificationFailed",
    "VersionRefused",
    "WidthRefused",
    "WireError",
    "error_from_wire",
]


class LambdaSplitError(Exception):
    """Base of all errors that Λ-Split raises on purpose."""


# --- the caller ---------------------------------------------------------------------------------


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
            f"the prompt has {self.tokens} tokens but the session holds "
            f"{self.max_positions} positions: {self.reason}"
        )


@dataclass(eq=False)
class ChatTemplateError(UsageError):
    """The model's chat template refused the messages, or failed on them."""

    def __str__(self) -> str:
        return f"the model's chat template does not take these messages: {self.reason}"


# --- the bundle ---------------------------------------------------------------------------------


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
        return f"{self.path} is not a valid manifest: {self.reason}"


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


# --- the checkpoint -----------------------------------------------------------------------------


class CheckpointError(LambdaSplitError):
    """Something is wrong with the model that is exported or served."""


@dataclass(eq=False)
class CheckpointNotFound(CheckpointError):
    """Neither a local folder nor a reachable Hugging Face id."""

    model: str
    reason: str

    def __str__(self) -> str:
        return f"cannot find the model {self.model!r}: {self.reason}"


@dataclass(eq=False)
class CheckpointInvalid(CheckpointError):
    """A file of the checkpoint is malformed."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"the checkpoint file {self.path} is invalid: {self.reason}"


@dataclass(eq=False)
class UnsafeWeights(CheckpointError):
    """The checkpoint has pickled weights only, which run code when read."""

    model: str

    def __str__(self) -> str:
        return (
            f"{self.model} has no safetensors files, only pickled weights, which can run code "
            "when read: convert it to safetensors first"
        )


@dataclass(eq=False)
class UnsupportedFamily(CheckpointError):
    """The architecture cannot be cut yet."""

    model_type: str
    supported: tuple[str, ...]
    reason: str = ""

    def __str__(self) -> str:
        why = f" ({self.reason})" if self.reason else ""
        return (
            f"models of type {self.model_type!r} are not supported{why}; supported: "
            f"{', '.join(self.supported)}. To add one, describe where its layers, embedding, norm "
            "and rotary embedding sit in lambda_split/partition/families.py"
        )


@dataclass(eq=False)
class TensorMissing(CheckpointError):
    """Tensors that the wanted part needs are not in the checkpoint."""

    part: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        shown = ", ".join(self.names[:3]) + (" …" if len(self.names) > 3 else "")
        return (
            f"the checkpoint lacks {len(self.names)} tensor(s) that the {self.part} needs: {shown}"
        )


@dataclass(eq=False)
class TensorMismatch(CheckpointError):
    """A tensor's shape or dtype contradicts the config."""

    name: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"tensor {self.name} is {self.found}, the config says {self.expected}"


@dataclass(eq=False)
class SplitImpossible(CheckpointError):
    """More layers were asked for than the model has."""

    head_layers: int
    tail_layers: int
    layer_count: int

    def __str__(self) -> str:
        return (
            f"cannot cut {self.head_layers} head and {self.tail_layers} tail layers from a model "
            f"of {self.layer_count} layers: both must be at least 0 and leave the trunk at least 1"
        )


@dataclass(eq=False)
class AdapterError(CheckpointError):
    """A LoRA adapter cannot be merged."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"cannot merge the adapter {self.path}: {self.reason}"


# --- export -------------------------------------------------------------------------------------


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


# --- the wire -----------------------------------------------------------------------------------


class WireError(LambdaSplitError):
    """An error that one side can tell the other; ``code`` is its name in the protocol."""

    code: ClassVar[str] = "error"

    def wire_fields(self) -> dict[str, str | int]:
        """The error's facts as they cross the wire (strings and integers only)."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]  # every concrete subclass is a dataclass; a test walks the tree


class ProtocolError(WireError):
    """The peer broke the protocol; the connection cannot go on."""


@dataclass(eq=False)
class FrameTruncated(ProtocolError):
    """A binary message is shorter than the fixed header."""

    code: ClassVar[str] = "frame-truncated"
    length: int
    needed: int

    def __str__(self) -> str:
        return (
            f"a binary message of {self.length} bytes is shorter than the {self.needed}-byte header"
        )


@dataclass(eq=False)
class FrameOversized(ProtocolError):
    """A frame announces more than the limit; nothing was allocated for it."""

    code: ClassVar[str] = "frame-oversized"
    length: int
    limit: int

    def __str__(self) -> str:
        return f"a frame of {self.length} bytes exceeds the limit of {self.limit}"


@dataclass(eq=False)
class FrameLengthMismatch(ProtocolError):
    """The payload is not as long as the header (or tokens × width × codec) says."""

    code: ClassVar[str] = "frame-length-mismatch"
    length: int
    expected: int

    def __str__(self) -> str:
        return f"a frame's payload has {self.length} bytes where {self.expected} were announced"


@dataclass(eq=False)
class FrameUnknownKind(ProtocolError):
    """The header's kind byte names no known frame."""

    code: ClassVar[str] = "frame-unknown-kind"
    kind: int

    def __str__(self) -> str:
        return f"unknown frame kind {self.kind}"


@dataclass(eq=False)
class FrameUnknownFlags(ProtocolError):
    """A reserved flag bit is set."""

    code: ClassVar[str] = "frame-unknown-flags"
    flags: int

    def __str__(self) -> str:
        return f"unknown flags {self.flags:#04x}"


@dataclass(eq=False)
class FrameUnknownCodec(ProtocolError):
    """The header's codec byte is unknown, or not the one agreed on."""

    code: ClassVar[str] = "frame-unknown-codec"
    codec: int

    def __str__(self) -> str:
        return f"codec {self.codec} is unknown or was not agreed on"


@dataclass(eq=False)
class FrameVersion(ProtocolError):
    """The header's version byte is not this protocol's."""

    code: ClassVar[str] = "frame-version"
    found: int
    expected: int

    def __str__(self) -> str:
        return f"a frame has protocol version {self.found}, expected {self.expected}"


@dataclass(eq=False)
class SequenceBroken(ProtocolError):
    """Frames were lost, repeated or reordered."""

    code: ClassVar[str] = "sequence-broken"
    found: int
    expected: int

    def __str__(self) -> str:
        return f"a frame has sequence number {self.found}, expected {self.expected}"


@dataclass(eq=False)
class MessageMalformed(ProtocolError):
    """A text message is not a well-formed control message."""

    code: ClassVar[str] = "message-malformed"
    reason: str

    def __str__(self) -> str:
        return f"malformed control message: {self.reason}"


@dataclass(eq=False)
class UnexpectedMessage(ProtocolError):
    """A message that the state machine does not allow now."""

    code: ClassVar[str] = "unexpected-message"
    what: str
    state: str

    def __str__(self) -> str:
        return f"{self.what} is not allowed in state {self.state}"


@dataclass(eq=False)
class HandshakeTimeout(ProtocolError):
    """The device connected but said no hello in time."""

    code: ClassVar[str] = "handshake-timeout"
    seconds: int

    def __str__(self) -> str:
        return f"no hello within {self.seconds} s"


class Refused(WireError):
    """The server refused the session before any hidden state was sent."""


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
class PositionsRefused(Refused):
    """The device asked for more positions than a session may have."""

    code: ClassVar[str] = "positions-refused"
    asked: int
    limit: int

    def __str__(self) -> str:
        return f"{self.asked} positions were asked for, the server allows {self.limit} a session"


@dataclass(eq=False)
class CapacityRefused(Refused):
    """The server is full for now."""

    code: ClassVar[str] = "capacity-refused"
    reason: str
    retry_after_s: int

    def __str__(self) -> str:
        return f"the server is full ({self.reason}): try again in {self.retry_after_s} s"


@dataclass(eq=False)
class Unauthorized(Refused):
    """The upgrade request had no valid bearer token (HTTP 401)."""

    code: ClassVar[str] = "unauthorized"

    def __str__(self) -> str:
        return "the server wants a valid token: pass --token-file"


class RequestError(WireError):
    """One forward was rejected; the session is as it was before it."""


@dataclass(eq=False)
class PositionGap(RequestError):
    """The chunk starts after the positions that the trunk holds."""

    code: ClassVar[str] = "position-gap"
    start: int
    length: int

    def __str__(self) -> str:
        return f"a chunk starts at position {self.start}, the trunk holds {self.length}"


@dataclass(eq=False)
class PositionBeyondEnd(RequestError):
    """The chunk ends after the session's last position."""

    code: ClassVar[str] = "position-beyond-end"
    end: int
    max_positions: int

    def __str__(self) -> str:
        return f"a chunk ends at position {self.end}, the session holds {self.max_positions}"


@dataclass(eq=False)
class ChunkTooLong(RequestError):
    """The chunk has no tokens, or more than a frame may carry, or asks for more than it has."""

    code: ClassVar[str] = "chunk-too-long"
    tokens: int
    limit: int

    def __str__(self) -> str:
        return f"a chunk of {self.tokens} tokens: between 1 and {self.limit} are allowed"


@dataclass(eq=False)
class NonFinite(RequestError):
    """Hidden states hold NaN or infinity."""

    code: ClassVar[str] = "non-finite"
    where: str

    def __str__(self) -> str:
        return f"the {self.where} hidden states hold NaN or infinity"


@dataclass(eq=False)
class CodecOverflow(RequestError):
    """A finite value that the codec cannot hold, even scaled."""

    code: ClassVar[str] = "codec-overflow"
    codec: str

    def __str__(self) -> str:
        return f"a hidden state is too large for {self.codec}: choose fp32"


class ServerError(WireError):
    """The server's own trouble: reconnect (anywhere) and replay."""


@dataclass(eq=False)
class ServerDraining(ServerError):
    """The server is shutting down."""

    code: ClassVar[str] = "server-draining"

    def __str__(self) -> str:
        return "the server is shutting down"


@dataclass(eq=False)
class SessionEvicted(ServerError):
    """The server dropped this session's cache to make room."""

    code: ClassVar[str] = "session-evicted"

    def __str__(self) -> str:
        return "the server dropped this session's cache to make room"


@dataclass(eq=False)
class InternalError(ServerError):
    """A fault in the server; details are in its log only."""

    code: ClassVar[str] = "internal-error"
    incident: str

    def __str__(self) -> str:
        return f"the server failed (incident {self.incident}, see its log)"


@dataclass(eq=False)
class RemoteError(WireError):
    """An error whose code this version does not know."""

    remote_code: str
    message: str

    def __str__(self) -> str:
        return f"the peer reports {self.remote_code}: {self.message}"


# --- the link -----------------------------------------------------------------------------------


class LinkError(LambdaSplitError):
    """The way to the server."""


@dataclass(eq=False)
class AddressUnavailable(LinkError):
    """The server cannot listen at an address."""

    address: str
    reason: str

    def __str__(self) -> str:
        return f"cannot listen on {self.address}: {self.reason}"


@dataclass(eq=False)
class ServerUnreachable(LinkError):
    """No connection within the allowed time."""

    url: str
    reason: str

    def __str__(self) -> str:
        return f"cannot reach {self.url}: {self.reason}"


@dataclass(eq=False)
class ConnectionLost(LinkError):
    """The connection broke (internal: the device replays) or replaying was given up."""

    reason: str

    def __str__(self) -> str:
        return f"the connection was lost: {self.reason}"


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
