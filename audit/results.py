"""What an audit found: the form of ``results.json``."""

from __future__ import annotations

import math
import pathlib
import tempfile
from typing import Literal

import msgspec

from audit.scores import Estimate
from lambda_split.errors import OutputNotWritable, UsageError

__all__ = [
    "SCHEMA",
    "Adversary",
    "Cost",
    "Finding",
    "SettingRecord",
    "TextAudit",
    "read_results",
    "write_results",
]

SCHEMA = 1

Adversary = Literal["tls-tapper", "open-weights", "trunk-only"]
Target = Literal["prompt", "reply"]


class SettingRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How the device was set up.

    Attributes:
        head_layers: Layers of the head.
        tail_layers: Layers of the tail.
        codec: The wire's layout.
        defence: ``none``, ``gaussian``, ``d_chi``, ``permutation`` …
        strength: Of the defence or the private ends; for noise its length as a share of the
            states'.
        seed: Of noise, secret and training.
        ends: ``public``, or how head and tail were changed.
    """

    head_layers: int
    tail_layers: int
    codec: str
    defence: str = "none"
    strength: float = 0.0
    seed: int = 0
    ends: str = "public"

    @property
    def label(self) -> str:
        """For tables, without the seed."""
        parts = [f"{self.head_layers}+{self.tail_layers} layers", self.codec]
        if self.defence != "none":
            parts.append(f"{self.defence} {self.strength:g}" if self.strength else self.defence)
        if self.ends != "public":
            alone = self.defence == "none"
            parts.append(f"{self.ends} {self.strength:g}" if alone else self.ends)
        return ", ".join(parts)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What one attack found in one setting.

    Attributes:
        setting: How the device was set up.
        adversary: Who can do it: who sees sizes only, who has the open weights, or who has the
            trunk and what crosses, but neither head nor tail.
        attack: Its name.
        target: What it is after.
        recovered: Share of tokens that are exactly right.
        bleu: Likeness of the texts, 0 to 100.
        tokens: Tokens that count.
        texts: Texts attacked.
        seconds: What it took, training included.
        known_positions: What a learned attack was trained on; 0 for others.
        example: A secret text and what was made of it.
    """

    setting: SettingRecord
    adversary: Adversary
    attack: str
    target: Target
    recovered: Estimate
    bleu: float
    tokens: int
    texts: int
    seconds: float
    known_positions: int = 0
    example: tuple[str, str] = ("", "")


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What one setting costs.

    Attributes:
        setting: How the device was set up.
        perplexity: On held-out text, through the wire.
        baseline: The same of the whole model.
        bytes_per_token: One way.
        device_s: Head and tail for one token.
        epsilon: Privacy parameter of the noise for one position; None without noise.
    """

    setting: SettingRecord
    perplexity: float
    baseline: float
    bytes_per_token: int
    device_s: float
    epsilon: float | None = None

    @property
    def rise(self) -> float:
        """How much higher perplexity is, as a share."""
        return self.perplexity / self.baseline - 1 if self.baseline else math.nan


class TextAudit(msgspec.Struct, frozen=True, kw_only=True):
    """All of an audit of a language model.

    Attributes:
        schema: Version of this form.
        producer: Program and version.
        model: Its id or the name of its folder.
        fingerprint: Of the checkpoint.
        layer_count: Its layers.
        hidden_size: Width of the hidden states.
        text: Name of the file that the prompts are from.
        findings: One for each attack and setting.
        costs: One for each setting.
        seconds: What all took.
    """

    schema: int
    producer: str
    model: str
    fingerprint: str
    layer_count: int
    hidden_size: int
    text: str
    findings: tuple[Finding, ...]
    costs: tuple[Cost, ...]
    seconds: float


def write_results(path: pathlib.Path, audit: TextAudit) -> None:
    """Write JSON, whole or not at all.

    Raises:
        OutputNotWritable: the disk is full, or there is no permission.
    """
    encoded = msgspec.json.format(msgspec.json.encode(audit), indent=2)
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
            file.write(encoded + b"\n")
        written = pathlib.Path(file.name)
        written.chmod(0o644)
        written.replace(path)
    except OSError as error:
        raise OutputNotWritable(str(path), error.strerror or str(error)) from error


def read_results(path: pathlib.Path) -> TextAudit:
    """Read them again.

    Raises:
        UsageError: there is no such file, or it is not one of this version.
    """
    try:
        audit = msgspec.json.decode(path.read_bytes(), type=TextAudit)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path} holds no results of an audit: {error}") from error
    if audit.schema != SCHEMA:
        raise UsageError(f"{path} is of version {audit.schema}, this program reads {SCHEMA}")
    return audit
