"""From findings on texts to sentences and tables: who learns what, and what a defence buys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from audit.results import Adversary, Cost, Finding, SettingRecord, TextAudit

__all__ = [
    "ADVERSARIES",
    "GOAL",
    "CurvePoint",
    "best_point",
    "cost_table",
    "curves",
    "defence_sentence",
    "findings_table",
    "in_words",
    "strongest",
    "verdict",
]

ADVERSARIES: dict[Adversary, str] = {
    "tls-tapper": "Somebody on the network, with TLS",
    "open-weights": "The cloud, or a tapper without TLS, with the model's open weights",
    "trunk-only": "The cloud, or a tapper without TLS, without your head and tail",
}
GOAL = 0.1  # of the prompt's tokens: what a defence would have to keep attacks below


@dataclass(frozen=True)
class CurvePoint:
    """One strength of a defence, over all its seeds.

    Attributes:
        defence: Its name.
        strength: How strong.
        recovered: The prompt tokens that the best attack recovered: mean over seeds.
        spread: The least and the most of any seed.
        rise: How much perplexity rose, as a share: mean over seeds.
        attack: Which attack was best, of the last seed.
    """

    defence: str
    strength: float
    recovered: float
    spread: tuple[float, float]
    rise: float
    attack: str


def strongest(findings: Iterable[Finding], adversary: Adversary, target: str) -> Finding | None:
    """The finding that recovered most where nothing is done against it; None without any."""
    plain = [
        one
        for one in findings
        if one.adversary == adversary
        and one.target == target
        and one.setting.defence == "none"
        and one.setting.ends == "public"
    ]
    return max(plain, key=lambda one: one.recovered.value, default=None)


def verdict(audit: TextAudit, adversary: Adversary) -> str:
    """What an adversary learns, in a sentence or two."""
    prompt = strongest(audit.findings, adversary, "prompt")
    reply = strongest(audit.findings, adversary, "reply")
    if adversary == "tls-tapper":
        guessed = "" if prompt is None else f" Guessing gets {prompt.recovered.value:.0%} right."
        return (
            "Sees when messages are sent and how long they are, so how many tokens prompt and "
            f"reply have, and when the reply is made. Not what they say.{guessed}"
        )
    parts = []
    for what, finding in (("prompt", prompt), ("reply", reply)):
        if finding is not None:
            amount = in_words(finding.recovered.value)
            parts.append(f"{amount} of your {what} ({finding.recovered.value:.1%} of its tokens)")
    if not parts:
        return "Was not tried."
    sentence = f"Can read {' and '.join(parts)}."
    if adversary == "trunk-only" and prompt is not None:
        sentence += (
            f" For that it needs text of yours that it knows already: {prompt.known_positions:,} "
            "tokens in this case."
        )
    return sentence


def in_words(share: float) -> str:
    """A share of a text, as one would say it."""
    steps = ((0.97, "practically all"), (0.75, "most"), (0.4, "about half"), (0.1, "a part"))
    return next((words for least, words in steps if share >= least), "hardly anything")


def findings_table(findings: Sequence[Finding]) -> str:
    """A Markdown table, one attack a line."""
    lines = [
        "| setting | who | attack | on | tokens right | 95 % interval | BLEU | known tokens | s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in findings:
        known = f"{one.known_positions:,}" if one.known_positions else ""
        seed = f", seed {one.setting.seed}" if one.setting.seed else ""
        lines.append(
            f"| {one.setting.label}{seed} | {one.adversary} | {one.attack} | {one.target} | "
            f"{one.recovered.value:.1%} | {one.recovered.low:.0%} to {one.recovered.high:.0%} | "
            f"{one.bleu:.0f} | {known} | {one.seconds:.1f} |"
        )
    return "\n".join(lines)


def cost_table(costs: Sequence[Cost]) -> str:
    """A Markdown table, one setting a line."""
    lines = [
        "| setting | perplexity | higher by | bytes a token, each way | head + tail | ε |",
        "|---|---|---|---|---|---|",
    ]
    for one in costs:
        seed = f", seed {one.setting.seed}" if one.setting.seed else ""
        privacy = "" if one.epsilon is None else f"{one.epsilon:.3g}"
        lines.append(
            f"| {one.setting.label}{seed} | {one.perplexity:.3f} | {one.rise:+.1%} | "
            f"{one.bytes_per_token} | {one.device_s * 1e3:.2f} ms | {privacy} |"
        )
    return "\n".join(lines)


def curves(audit: TextAudit) -> dict[str, list[CurvePoint]]:
    """For each defence, and for none, its points in order of strength."""
    first = audit.costs[0].setting if audit.costs else None
    grouped: dict[tuple[str, float], list[Cost]] = {}
    for cost in audit.costs:
        setting = cost.setting
        if first is None or (setting.head_layers, setting.tail_layers) != (
            first.head_layers,
            first.tail_layers,
        ):
            continue
        grouped.setdefault((_name(setting), setting.strength), []).append(cost)
    points: dict[str, list[CurvePoint]] = {}
    for (name, strength), costs in sorted(grouped.items()):
        best = [_best_attack(audit, cost.setting) for cost in costs]
        found = [one for one in best if one is not None]
        if found:
            shares = [one.recovered.value for one in found]
            points.setdefault(name, []).append(
                CurvePoint(
                    name,
                    strength,
                    sum(shares) / len(shares),
                    (min(shares), max(shares)),
                    sum(cost.rise for cost in costs) / len(costs),
                    found[-1].attack,
                )
            )
    return points


def best_point(audit: TextAudit, most_rise: float = 0.05) -> CurvePoint | None:
    """The defence that leaves least of the prompt at so little higher perplexity."""
    points = [
        point
        for curve in curves(audit).values()
        for point in curve
        if point.defence != "none" and point.rise <= most_rise
    ]
    return min(points, key=lambda point: point.recovered, default=None)


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
    if point.recovered > GOAL:
        return f"{found} That is no protection."
    return f"{found} That helps against the attacks of this page; others may do better."


def _name(setting: SettingRecord) -> str:
    if setting.ends == "public":
        return setting.defence
    return setting.ends if setting.defence == "none" else f"{setting.defence}, {setting.ends}"


def _best_attack(audit: TextAudit, setting: SettingRecord) -> Finding | None:
    found = [one for one in audit.findings if one.setting == setting and one.target == "prompt"]
    return max(found, key=lambda one: one.recovered.value, default=None)
