"""The report as Markdown: for a terminal or a repository."""

from __future__ import annotations

from audit.picture_results import PictureResults
from audit.reporting.cards import Card, picture_cards, text_cards
from audit.reporting.picture_summary import attack_table, format_sentence, setting_table
from audit.reporting.text_summary import cost_table, defence_sentence, findings_table
from audit.results import TextAudit
from audit.results_file import AuditResults
from lambda_split.counting import counted

__all__ = ["as_markdown"]


def as_markdown(results: AuditResults) -> str:
    """The sentences and tables of the page, without its images."""
    lines: list[str] = []
    if results.text is not None:
        lines += _text(results.text)
    if results.pictures is not None:
        lines += _pictures(results.pictures)
    return "\n".join(lines)


def _text(audit: TextAudit) -> list[str]:
    return [
        f"# What can be seen of texts: {audit.model}",
        "",
        *_ended_early(audit),
        *_said(text_cards(audit)),
        f"**Defences.** {defence_sentence(audit)}",
        "",
        findings_table(audit.findings),
        "",
        cost_table(audit.costs),
        "",
    ]


def _ended_early(audit: TextAudit) -> list[str]:
    if not audit.left_out:
        return []
    return [f"**Ended early.** Not tried: {'; '.join(audit.left_out)}.", ""]


def _pictures(results: PictureResults) -> list[str]:
    found, control = results.prompts.recovered, results.control.recovered
    prompts = (
        f"**Prompts.** {found.value:.1%} of the tokens of "
        f"{counted(len(results.captions), 'prompt')} were found "
        f"({found.low:.0%} to {found.high:.0%}) in {results.prompts.seconds:.1f} s; from "
        f"noise {control.value:.1%}."
    )
    return [
        f"# What can be seen of pictures: {results.model}",
        "",
        *_said(picture_cards(results)),
        f"**Formats.** {format_sentence(results)}",
        "",
        prompts,
        "",
        attack_table(results.findings),
        "",
        setting_table(results.costs),
        "",
    ]


def _said(cards: list[Card]) -> list[str]:
    return [line for card in cards for line in (f"**{card.title}.** {card.verdict}", "")]
