"""The way to the server, and what is wrong with its encryption."""

from __future__ import annotations

from dataclasses import dataclass

from lambda_split.errors.base import LambdaSplitError

__all__ = [
    "AddressUnavailable",
    "CertificateExpired",
    "CertificateNotYetValid",
    "CertificateRejected",
    "CertificateUnknownIssuer",
    "CertificateWrongHost",
    "ClusterUnavailable",
    "ConnectionLost",
    "LinkError",
    "ReplicasMissing",
    "ServerUnreachable",
    "TlsError",
    "TlsMissing",
    "TlsRequired",
]


class LinkError(LambdaSplitError):
    """The way to the server; trying again may help."""


@dataclass(eq=False)
class AddressUnavailable(LinkError):
    """The server cannot listen at an address."""

    address: str
    reason: str

    def __str__(self) -> str:
        return f"cannot listen on {self.address}: {self.reason}"


@dataclass(eq=False)
class ClusterUnavailable(LinkError):
    """A Ray cluster cannot be joined or started, or no replica starts on it."""

    what: str
    reason: str

    def __str__(self) -> str:
        return f"Ray cannot run {self.what}: {self.reason}"


@dataclass(eq=False)
class ReplicasMissing(LinkError):
    """A gateway was to join replicas that nobody has deployed."""

    name: str

    def __str__(self) -> str:
        return (
            f"no replicas of the name {self.name!r} run on this cluster: start them first with "
            "'lambda-split serve MODEL --replicas ray', without --gateway-only"
        )


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


class TlsError(LambdaSplitError):
    """The server is there, but no trusted connection to it; trying again would change nothing."""


@dataclass(eq=False)
class CertificateExpired(TlsError):
    """The server's certificate, or one that vouches for it, is out of date."""

    url: str

    def __str__(self) -> str:
        return (
            f"the certificate of {self.url} has expired: whoever runs the server must renew it "
            "(if it is new, check this device's clock)"
        )


@dataclass(eq=False)
class CertificateNotYetValid(TlsError):
    """The server's certificate begins in this device's future."""

    url: str

    def __str__(self) -> str:
        return f"the certificate of {self.url} is not valid yet: check this device's clock"


@dataclass(eq=False)
class CertificateWrongHost(TlsError):
    """The server's certificate is for another name."""

    url: str

    def __str__(self) -> str:
        return (
            f"the certificate that {self.url} shows is for another host: give the name that "
            "stands in the certificate"
        )


@dataclass(eq=False)
class CertificateUnknownIssuer(TlsError):
    """Nobody whom this device trusts vouches for the server's certificate."""

    url: str

    def __str__(self) -> str:
        return (
            f"the certificate of {self.url} is from an issuer that this device does not know "
            "(or from itself): where that is right, give the issuer's certificate with --ca-file"
        )


@dataclass(eq=False)
class CertificateRejected(TlsError):
    """The server's certificate is unusable for another reason."""

    url: str
    reason: str

    def __str__(self) -> str:
        return f"the certificate of {self.url} cannot be trusted: {self.reason}"


@dataclass(eq=False)
class TlsRequired(TlsError):
    """A plain ``ws://`` address, where the server speaks TLS."""

    url: str

    def __str__(self) -> str:
        return f"{self.url} speaks TLS: the address must begin with wss://"


@dataclass(eq=False)
class TlsMissing(TlsError):
    """A ``wss://`` address, where the server does not speak TLS."""

    url: str

    def __str__(self) -> str:
        return (
            f"{self.url} does not speak TLS: serve with --tls-cert and --tls-key, or use ws:// "
            "where nobody can listen"
        )
