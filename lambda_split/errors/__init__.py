"""Every error that Λ-Split raises on purpose, in one tree.

    LambdaSplitError
    ├── ProcessFailed              a process that a command started failed
    ├── UsageError                 the caller asked for something that makes no sense
    │   ├── MissingExtra           an optional dependency is not installed
    │   ├── PromptEmpty            nothing to continue
    │   ├── PromptTooLong          the prompt leaves no room in the model's positions
    │   ├── ChatTemplateError      the chat template refused the messages, or failed on them
    │   ├── TokenFileInvalid       a line of the server's token file is malformed
    │   └── TlsFileInvalid         a certificate or key file cannot be used
    ├── BundleError                the folder that a device runs
    │   ├── BundleNotFound         no manifest there
    │   ├── ManifestInvalid        the manifest is not what the schema says
    │   ├── BundleKindWrong        a model for text where pictures are made, or the other way round
    │   ├── SchemaUnsupported      written by a newer (or foreign) version
    │   ├── PathOutsideBundle      a listed path leaves the folder
    │   ├── BundleFileMissing      a listed file is not there
    │   ├── BundleFileUnreadable   a listed file cannot be read
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
    │   ├── SchedulerUnsupported   its scheduler_config.json asks for what no solver does
    │   └── AdapterError           a LoRA adapter that cannot be merged
    ├── ApiError                   what the local API refuses, with an HTTP status
    │   ├── ParameterInvalid       missing, of another type, out of range
    │   ├── ParameterUnsupported   would change the answer, and cannot be honoured
    │   ├── BodyInvalid            ├── BodyTypeUnsupported ├── BodyTooLarge
    │   ├── BodyTooSlow            ├── KeyRefused          ├── HostRefused
    │   ├── OriginRefused          ├── ModelUnknown        ├── Overloaded
    │   ├── Stopping               └── TooManyConnections
    ├── ExportError                checkpoint -> bundle
    │   ├── OutputExists           the output folder is there already
    │   ├── OutputNotWritable      disk full, no permission …
    │   └── VerificationFailed     the graphs differ too much from PyTorch
    ├── WireError                  crosses the wire as an error message; has a ``code``
    │   ├── ProtocolError          the peer broke the protocol; the connection ends
    │   │   ├── FrameTruncated     ├── FrameOversized      ├── FrameLengthMismatch
    │   │   ├── FrameUnknownKind   ├── FrameUnknownFlags   ├── FrameUnknownCodec
    │   │   ├── FrameVersion       ├── SequenceBroken      ├── MessageMalformed
    │   │   ├── UnexpectedMessage  ├── HandshakeTimeout    └── FramePadding
    │   ├── Refused                the server does not want the session
    │   │   ├── VersionRefused     ├── FingerprintRefused  ├── SplitRefused
    │   │   ├── WidthRefused       ├── CodecRefused        ├── PositionsRefused
    │   │   ├── CapacityRefused    ├── Unauthorized        ├── TokenMissing
    │   │   ├── TokenRevoked       ├── KindRefused         ├── DenoiserSplitRefused
    │   │   └── PictureRefused
    │   ├── RequestError           one forward was rejected; the session goes on unchanged
    │   │   ├── PositionGap        ├── PositionBeyondEnd   ├── ChunkTooLong
    │   │   ├── NonFinite          ├── CodecOverflow       ├── StateMismatch
    │   │   └── PictureImpossible
    │   ├── ServerError            the server's own trouble; reconnect and replay
    │   │   ├── ServerDraining     ├── SessionEvicted      └── InternalError
    │   └── RemoteError            a code that this version does not know
    ├── LinkError                  the way to the server; trying again may help
    │   ├── AddressUnavailable     the server cannot listen there
    │   ├── ClusterUnavailable     no Ray cluster, or no replica starts on it
    │   ├── ReplicasMissing        nobody has deployed the replicas to join
    │   ├── ServerUnreachable      no connection within the allowed time
    │   └── ConnectionLost         it broke; raised only after replaying was given up
    └── TlsError                   no trusted connection; trying again would change nothing
        ├── CertificateExpired         out of date
        ├── CertificateNotYetValid     begins in the future
        ├── CertificateWrongHost       for another name
        ├── CertificateUnknownIssuer   nobody vouches for it
        ├── CertificateRejected        unusable for another reason
        ├── TlsRequired                ws:// where the server speaks TLS
        └── TlsMissing                 wss:// where it does not

Errors are dataclasses: they hold the facts as fields and compose their sentence from them.
A sentence says what is wrong and, where there is something to do, what to do.
"""

from lambda_split.errors.api import (
    ApiError,
    BodyInvalid,
    BodyTooLarge,
    BodyTooSlow,
    BodyTypeUnsupported,
    HostRefused,
    KeyRefused,
    ModelUnknown,
    OriginRefused,
    Overloaded,
    ParameterInvalid,
    ParameterUnsupported,
    Stopping,
    TooManyConnections,
)
from lambda_split.errors.base import (
    LambdaSplitError,
    ProcessFailed,
)
from lambda_split.errors.bundle import (
    BundleError,
    BundleFileAltered,
    BundleFileMissing,
    BundleFileUnreadable,
    BundleKindWrong,
    BundleNotFound,
    ChatTemplateInvalid,
    GraphInvalid,
    LogitsInvalid,
    ManifestInvalid,
    PathOutsideBundle,
    SchemaUnsupported,
    TokenizerInvalid,
)
from lambda_split.errors.checkpoint import (
    AdapterError,
    CheckpointError,
    CheckpointInvalid,
    CheckpointNotFound,
    SchedulerUnsupported,
    SplitImpossible,
    TensorMismatch,
    TensorMissing,
    UnsafeWeights,
    UnsupportedFamily,
)
from lambda_split.errors.export import (
    ExportError,
    OutputExists,
    OutputNotWritable,
    VerificationFailed,
)
from lambda_split.errors.link import (
    AddressUnavailable,
    CertificateExpired,
    CertificateNotYetValid,
    CertificateRejected,
    CertificateUnknownIssuer,
    CertificateWrongHost,
    ClusterUnavailable,
    ConnectionLost,
    LinkError,
    ReplicasMissing,
    ServerUnreachable,
    TlsError,
    TlsMissing,
    TlsRequired,
)
from lambda_split.errors.protocol import (
    FrameLengthMismatch,
    FrameOversized,
    FramePadding,
    FrameTruncated,
    FrameUnknownCodec,
    FrameUnknownFlags,
    FrameUnknownKind,
    FrameVersion,
    HandshakeTimeout,
    MessageMalformed,
    ProtocolError,
    SequenceBroken,
    UnexpectedMessage,
)
from lambda_split.errors.refusals import (
    CapacityRefused,
    CodecRefused,
    DenoiserSplitRefused,
    FingerprintRefused,
    KindRefused,
    PictureRefused,
    PositionsRefused,
    Refused,
    SplitRefused,
    TokenMissing,
    TokenRevoked,
    Unauthorized,
    VersionRefused,
    WidthRefused,
)
from lambda_split.errors.requests import (
    ChunkTooLong,
    CodecOverflow,
    InternalError,
    NonFinite,
    PictureImpossible,
    PositionBeyondEnd,
    PositionGap,
    RequestError,
    ServerDraining,
    ServerError,
    SessionEvicted,
    StateMismatch,
)
from lambda_split.errors.usage import (
    ChatTemplateError,
    MissingExtra,
    PromptEmpty,
    PromptTooLong,
    TlsFileInvalid,
    TokenFileInvalid,
    UsageError,
)
from lambda_split.errors.wire import (
    RemoteError,
    WireError,
    error_from_wire,
)

__all__ = [
    "AdapterError",
    "AddressUnavailable",
    "ApiError",
    "BodyInvalid",
    "BodyTooLarge",
    "BodyTooSlow",
    "BodyTypeUnsupported",
    "BundleError",
    "BundleFileAltered",
    "BundleFileMissing",
    "BundleFileUnreadable",
    "BundleKindWrong",
    "BundleNotFound",
    "CapacityRefused",
    "CertificateExpired",
    "CertificateNotYetValid",
    "CertificateRejected",
    "CertificateUnknownIssuer",
    "CertificateWrongHost",
    "ChatTemplateError",
    "ChatTemplateInvalid",
    "CheckpointError",
    "CheckpointInvalid",
    "CheckpointNotFound",
    "ChunkTooLong",
    "ClusterUnavailable",
    "CodecOverflow",
    "CodecRefused",
    "ConnectionLost",
    "DenoiserSplitRefused",
    "ExportError",
    "FingerprintRefused",
    "FrameLengthMismatch",
    "FrameOversized",
    "FramePadding",
    "FrameTruncated",
    "FrameUnknownCodec",
    "FrameUnknownFlags",
    "FrameUnknownKind",
    "FrameVersion",
    "GraphInvalid",
    "HandshakeTimeout",
    "HostRefused",
    "InternalError",
    "KeyRefused",
    "KindRefused",
    "LambdaSplitError",
    "LinkError",
    "LogitsInvalid",
    "ManifestInvalid",
    "MessageMalformed",
    "MissingExtra",
    "ModelUnknown",
    "NonFinite",
    "OriginRefused",
    "OutputExists",
    "OutputNotWritable",
    "Overloaded",
    "ParameterInvalid",
    "ParameterUnsupported",
    "PathOutsideBundle",
    "PictureImpossible",
    "PictureRefused",
    "PositionBeyondEnd",
    "PositionGap",
    "PositionsRefused",
    "ProcessFailed",
    "PromptEmpty",
    "PromptTooLong",
    "ProtocolError",
    "Refused",
    "RemoteError",
    "ReplicasMissing",
    "RequestError",
    "SchedulerUnsupported",
    "SchemaUnsupported",
    "SequenceBroken",
    "ServerDraining",
    "ServerError",
    "ServerUnreachable",
    "SessionEvicted",
    "SplitImpossible",
    "SplitRefused",
    "StateMismatch",
    "Stopping",
    "TensorMismatch",
    "TensorMissing",
    "TlsError",
    "TlsFileInvalid",
    "TlsMissing",
    "TlsRequired",
    "TokenFileInvalid",
    "TokenMissing",
    "TokenRevoked",
    "TokenizerInvalid",
    "TooManyConnections",
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
