"""The report: a page for people who are no experts, and the same tables as Markdown."""

from __future__ import annotations

import base64
import importlib.resources
from dataclasses import dataclass

import jinja2

from audit.plots import attacks_plot, defences_plot
from audit.results import Adversary, TextAudit
from audit.summary import (
    ADVERSARIES,
    best_point,
    cost_table,
    curves,
    findings_table,
    strongest,
    verdict,
)

__all__ = ["as_html", "as_markdown"]

_GOAL = 0.1  # of the prompt's tokens: what a defence would have to keep attacks below


@dataclass(frozen=True)
class _Card:
    """What one adversary learns."""

    title: str
    grade: str
    verdict: str
    attack: str
    example: tuple[str, str] | None


def as_html(audit: TextAudit) -> str:
    """One page with everything in it: no other file, no script, no address."""
    source = importlib.resources.files("audit").joinpath("report.html.jinja")
    # Texts of the audit stand in the page: escaped, as what they are.
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(source.read_text(encoding="utf-8"))
    defended = any(name != "none" for name in curves(audit))
    return template.render(
        audit=audit,
        cards=[_card(audit, adversary) for adversary in ADVERSARIES],
        defence_sentence=defence_sentence(audit),
        attacks_png=base64.b64encode(attacks_plot(audit)).decode("ascii"),
        defences_png=base64.b64encode(defences_plot(audit)).decode("ascii") if defended else "",
    )


def as_markdown(audit: TextAudit) -> str:
    """The same for a terminal or a repository."""
    lines = [f"# What can be seen: {audit.model}", ""]
    for adversary, title in ADVERSARIES.items():
        lines += [f"**{title}.** {verdict(audit, adversary)}", ""]
    lines += [f"**Defences.** {defence_sentence(audit)}", ""]
    lines += [findings_table(audit.findings), "", cost_table(audit.costs), ""]
    return "\n".join(lines)


def defence_sentence(audit: TextAudit) -> str:
    """What the best defence that was tried brings, said plainly."""
    point = best_point(audit)
    if point is None:
        tried = any(name != "none" for name in curves(audit))
        return (
            "None that was tried keeps perplexity within 5 % of what it was."
            if tried
            else "None was tried in this audit."
        )
    strength = f" {point.strength:g}" if point.strength else ""
    found = (
        f"Of those that were tried here and cost at most 5 % of perplexity, {point.defence}"
        f"{strength} is the best: {point.recovered:.0%} of the prompt's tokens are recovered all "
        f"the same, by the {point.attack}."
    )
    if point.recovered > _GOAL:
        return f"{found} That is no protection."
    return f"{found} That helps against the attacks of this page; others may do better."


def _card(audit: TextAudit, adversary: Adversary) -> _Card:
    finding = strongest(audit.findings, adversary, "prompt")
    if adversary == "tls-tapper" or finding is None:
        return _Card(ADVERSARIES[adversary], "good", verdict(audit, adversary), "", None)
    share = finding.recovered.value
    grade = "bad" if share >= 0.5 else "fair" if share >= _GOAL else "good"
    return _Card(
        ADVERSARIES[adversary], grade, verdict(audit, adversary), finding.attack, finding.example
    )
