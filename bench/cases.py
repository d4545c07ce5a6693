"""What is measured: ways to generate, links, and one case for each combination."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from bench.link_settings import LinkSettings
from lambda_split.errors import UsageError
from lambda_split.split import Split

__all__ = ["LINKS", "LOOPBACK", "MODES", "Case", "Link", "Mode", "parse_link"]

Mode = Literal["edge-only", "cloud-only", "split", "split-everything"]
MODES: Final[tuple[Mode, ...]] = ("edge-only", "cloud-only", "split", "split-everything")


class Link(msgspec.Struct, frozen=True):
    """A link between device and cloud.

    Attributes:
        name: For tables.
        description: As :meth:`LinkSettings.parse` takes it; empty where nothing is slowed down.
    """

    name: str
    description: str

    @property
    def settings(self) -> LinkSettings:
        """What the description means."""
        return LinkSettings.parse(self.description)


LOOPBACK: Final = Link("loopback", "")
LINKS: Final = (
    LOOPBACK,
    Link("LAN", "rtt=1ms,up=300Mbit,down=300Mbit"),
    Link("mobile", "rtt=60ms,up=20Mbit,down=50Mbit"),
)


def parse_link(text: str) -> Link:
    """A link from what ``--link`` was given: a known name, or a description.

    Raises:
        UsageError: neither of them.
    """
    if not text.strip(", "):
        raise UsageError("a link is not empty: 'loopback' is as fast as it goes")
    for link in LINKS:
        if text.lower() == link.name.lower():
            return link
    LinkSettings.parse(text)
    return Link(text, text)


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to measure.

    Attributes:
        mode: ``edge-only``: the whole model on the device. ``cloud-only``: prompt and tokens cross,
            the whole model is in the cloud. ``split``: new positions cross. ``split-everything``:
            all positions are computed and sent again for each token.
        split: Where the model is cut, of the split modes.
        link: What lies between; None for ``edge-only``.
        growth: Not a generation, but what the next token costs as the context grows.
    """

    mode: Mode
    split: Split | None = None
    link: Link | None = None
    growth: bool = False

    @property
    def setting(self) -> str:
        """Its name in tables, without the link."""
        if self.split is None:
            return self.mode
        again = ", everything again" if self.mode == "split-everything" else ""
        return f"split {self.split.head_layers} + {self.split.tail_layers}{again}"

    @property
    def name(self) -> str:
        """Its name without the link, for progress."""
        return f"{self.setting}, growing context" if self.growth else self.setting
