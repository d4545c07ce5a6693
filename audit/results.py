"""What an audit of a language model found: the part ``text`` of ``results.json``."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from audit.scores import Estimate

__all__ = [
    "SCHEMA",
    "Adversary",
    "Cost",
    "Finding",
    "SettingRecord",
    "TextAudit",
]

SCHEMA = 1  # of each part

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
        weights: The format of the weights that the device runs.
    """

    head_layers: int
    tail_layers: int
    codec: str
    defence: str = "none"
    strength: float = 0.0
    seed: int = 0
    ends: str = "public"
    weights: str = "fp32"

    @property
    def label(self) -> str:
        """For tables, without the seed."""
        parts = [f"{self.head_layers}+{self.tail_layers} layers", self.codec]
        if self.weights != "fp32":
            parts.append(f"{self.weights} weights")
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
        left_out: Parts that were not tried, because somebody ended the audit early.
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
    left_out: tuple[str, ...] = ()
