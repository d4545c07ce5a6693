"""Names that a server goes by, and pages that may use it, in the one form that requests have.

Browsers write both in a form of their own: in lower case, without a usual port, addresses in their
shortest form. What a user allows is brought into it, or else it would never be met.
"""

from __future__ import annotations

import ipaddress
import re
import urllib.parse

from lambda_split.errors import UsageError

__all__ = ["allowed_host", "host_name", "page_origin"]

_HOST = re.compile(r"[A-Za-z0-9._-]+(:[0-9]+)?|\[[0-9A-Fa-f:.]+\](:[0-9]+)?")
_USUAL_PORTS = {"http": 80, "https": 443}


def host_name(text: str) -> str:
    """The name or address in a ``Host`` header (RFC 9110, section 7.2); empty where there is none.

    Args:
        text: With or without a port; an IPv6 address may go without brackets where it has none.
    """
    if address := _address(text):
        return address
    try:
        name = urllib.parse.urlsplit(f"//{text}").hostname or ""
    except ValueError:
        return ""
    return _address(name) or name.removesuffix(".")


def allowed_host(text: str) -> str:
    """A host that ``--allowed-host`` allows.

    Raises:
        UsageError: no request could be for it.
    """
    name = host_name(text) if _address(text) or _HOST.fullmatch(text) else ""
    if not name:
        raise UsageError(
            f"--allowed-host {text!r} is no host's name or address, such as my.box or 192.168.1.5"
        )
    return name


def page_origin(text: str) -> str:
    """An origin (RFC 6454) that ``--cors-origin`` allows.

    Raises:
        UsageError: no page has it, or any page can say that it is its own (``null``).
    """
    refusal = UsageError(
        f"--cors-origin {text!r} is no web page's origin, such as http://localhost:3000 (and none "
        "stands for all)"
    )
    try:
        parts = urllib.parse.urlsplit(text)
        name, port = parts.hostname, parts.port
    except ValueError as error:
        raise refusal from error
    # A lone slash is what people copy from the browser; more than that is one page's address.
    more = parts.path.removeprefix("/") or parts.query or parts.fragment or "@" in parts.netloc
    if not parts.scheme or not name or more or "*" in name or not text.isascii():
        raise refusal
    host = _address(name) or name
    bracketed = f"[{host}]" if ":" in host else host
    usual = port is None or port == _USUAL_PORTS.get(parts.scheme)
    return f"{parts.scheme}://{bracketed}" + ("" if usual else f":{port}")


def _address(text: str) -> str:
    """An IP address in its shortest form; empty where it is none."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""
