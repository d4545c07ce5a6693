"""From findings on pictures to sentences and tables: who sees what."""

from __future__ import annotations

from collections.abc import Iterable

from audit.picture_results import LikenessRecord, PictureCost, PictureFinding, PictureResults
from audit.reporting.text_summary import in_words
from audit.results import Adversary

__all__ = [
    "attack_table",
    "best_guess",
    "clearest",
    "format_sentence",
    "picture_verdict",
    "psnr_in_words",
    "setting_table",
    "ssim_in_words",
]

# By mean SSIM, from where on a picture is said to be seen so well; below what guessing gets, not.
_SEEN = (
    (0.95, "practically as you see it"),
    (0.8, "clearly, with small errors"),
    (0.6, "with its main shapes"),
    (0.0, "vaguely"),
)


def picture_verdict(results: PictureResults, adversary: Adversary) -> str:
    """What an adversary learns of prompts and pictures, in a few sentences."""
    if adversary == "tls-tapper":
        return (
            "Sees when messages are sent and how long they are: so how large your picture is, in "
            "how many steps it is made, and how the model was split. Not what you asked for, and "
            "not what the picture shows."
        )
    if adversary == "trunk-only":
        return (
            "Was not tried: all attacks on pictures here use the public text encoders, denoiser or "
            "VAE (the part that turns the model's numbers into pixels). That is no sign of safety: "
            "whoever knows some of your pictures and prompts may learn what these parts do."
        )
    share = results.prompts.recovered.value
    amount = in_words(share)
    parts = [f"Can read {amount} of your pictures' prompts ({share:.1%} of their tokens)."]
    for split in dict.fromkeys(one.split for one in results.costs):
        best = clearest(results, split)
        if best is not None:
            parts.append(f"With the split “{split}”, {_sees(results, best)}.")
    guess = best_guess(results)
    if guess is not None:
        parts.append(
            "Likeness (SSIM) is 1 for the very same picture; "
            f"{guess.attack}, a guess that needs no wire, has "
            f"{guess.likeness.mean_ssim.value:.2f}."
        )
    return " ".join(parts)


def clearest(results: PictureResults, split: str, form: str | None = None) -> PictureFinding | None:
    """The attack on a split, and where given a format, that shows most; None where none did."""
    tried = [one for one in results.findings if one.split == split and form in {None, one.form}]
    return max(tried, key=lambda one: one.likeness.mean_ssim.value, default=None)


def best_guess(results: PictureResults) -> PictureFinding | None:
    """What comes nearest without any wire; None where nothing was guessed."""
    return clearest(results, "")


def format_sentence(results: PictureResults) -> str:
    """Whether any split or format keeps pictures from being seen, said plainly."""
    tried = [(cost, clearest(results, cost.split, cost.form)) for cost in results.costs]
    found = [(cost, best) for cost, best in tried if best is not None]
    if not found:
        return "None was tried in this audit."
    cost, best = min(found, key=lambda pair: pair[1].likeness.mean_ssim.value)
    seen = best.likeness
    amount = "the very same pictures" if seen.all_same else f"SSIM {seen.mean_ssim.value:.2f}"
    sentence = (
        f"Of the {len(found)} settings that were tried, {cost.split} in {cost.form} shows least: "
        f"{amount} all the same, by {best.attack}."
    )
    guess = best_guess(results)
    hidden = guess is not None and seen.mean_ssim.value <= guess.likeness.mean_ssim.high
    if hidden:
        return f"{sentence} That is no more than guessing, for the attacks of this page."
    return f"{sentence} That is no protection."


def psnr_in_words(likeness: LikenessRecord) -> str:
    """Mean and interval in dB, and how many pictures are the very same."""
    mean = likeness.mean_psnr
    if mean is None:
        return "the same"
    same = f", {likeness.same} the same" if likeness.same else ""
    return f"{mean.value:.1f} ({mean.low:.1f} to {mean.high:.1f}){same}"


def ssim_in_words(likeness: LikenessRecord) -> str:
    """Mean and interval."""
    mean = likeness.mean_ssim
    return f"{mean.value:.3f} ({mean.low:.3f} to {mean.high:.3f})"


def attack_table(findings: Iterable[PictureFinding]) -> str:
    """A Markdown table, one attack a line."""
    lines = [
        "| split | format | attack | after steps | own pictures | PSNR, dB | SSIM | s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.split} | {one.form} | {one.attack} | {one.step or ''} | "
        f"{one.own_pictures or ''} | {psnr_in_words(one.likeness)} | "
        f"{ssim_in_words(one.likeness)} | {one.seconds:.1f} |"
        for one in findings
    ]
    return "\n".join(lines)


def setting_table(costs: Iterable[PictureCost]) -> str:
    """A Markdown table, one split and format a line."""
    lines = [
        "| split | format | bytes up, a picture | bytes down | PSNR to fp32, dB | SSIM to fp32 |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.split} | {one.form} | {sum(one.message_bytes_up):,} | "
        f"{sum(one.message_bytes_down):,} | {psnr_in_words(one.likeness)} | "
        f"{ssim_in_words(one.likeness)} |"
        for one in costs
    ]
    return "\n".join(lines)


def _sees(results: PictureResults, best: PictureFinding) -> str:
    likeness, guess = best.likeness, best_guess(results)
    if likeness.all_same:
        return "ends with the very picture that you see, to the last dot"
    value = likeness.mean_ssim.value
    if guess is not None and value <= guess.likeness.mean_ssim.high:
        return f"sees hardly more than by guessing (SSIM {value:.2f})"
    words = next(words for least, words in _SEEN if value >= least or least == 0)
    mean = likeness.mean_psnr
    noise = "" if mean is None else f", PSNR {mean.value:.1f} dB"
    return f"sees your picture {words} (SSIM {value:.2f}{noise})"
