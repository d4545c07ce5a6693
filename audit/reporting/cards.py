"""What each adversary learns, as a card of the page."""

from __future__ import annotations

from dataclasses import dataclass

from audit.picture_results import PictureResults
from audit.reporting.picture_summary import picture_verdict
from audit.reporting.text_summary import ADVERSARIES, strongest, verdict
from audit.results import Adversary, TextAudit

__all__ = ["Card", "picture_cards", "text_cards"]


@dataclass(frozen=True)
class Card:
    """What one adversary learns.

    Attributes:
        title: Who it is.
        grade: How bad that is: ``good``, ``fair`` or ``bad``; empty where it was not tried.
        verdict: What is learned.
        attack: What made the example.
        example: A secret text and what was made of it.
    """

    title: str
    grade: str
    verdict: str
    attack: str = ""
    example: tuple[str, str] | None = None


def text_cards(audit: TextAudit) -> list[Card]:
    """One for each adversary, on texts."""
    return [_text_card(audit, adversary) for adversary in ADVERSARIES]


def picture_cards(results: PictureResults) -> list[Card]:
    """One for each adversary, on pictures and their prompts."""
    prompt = next(iter(results.prompts.prompts), None)
    open_weights = Card(
        ADVERSARIES["open-weights"],
        _grade(results.prompts.recovered.value),
        picture_verdict(results, "open-weights"),
        "a search through the public text encoders",
        None if prompt is None else (prompt.wanted, prompt.found),
    )
    return [
        Card(ADVERSARIES["tls-tapper"], "good", picture_verdict(results, "tls-tapper")),
        open_weights,
        Card(
            "The cloud, or a tapper without TLS, without the model's text encoders and VAE",
            "",
            picture_verdict(results, "trunk-only"),
        ),
    ]


def _text_card(audit: TextAudit, adversary: Adversary) -> Card:
    finding = strongest(audit.findings, adversary, "prompt")
    if adversary == "tls-tapper":
        return Card(ADVERSARIES[adversary], "good", verdict(audit, adversary))
    if finding is None:
        return Card(ADVERSARIES[adversary], "", verdict(audit, adversary))
    return Card(
        ADVERSARIES[adversary],
        _grade(finding.recovered.value),
        verdict(audit, adversary),
        finding.attack,
        finding.example,
    )


def _grade(share: float) -> str:
    """Never good: that an attack found little says nothing about a better one."""
    return "bad" if share >= 0.5 else "fair"
