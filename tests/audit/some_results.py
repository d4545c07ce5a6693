"""Results as audits could give them."""

from __future__ import annotations

import numpy as np

from audit.picture_results import picture_results
from audit.pictures.findings import (
    PictureAttack,
    PicturesAudit,
    PictureSetting,
    Samples,
    Sizes,
)
from audit.pictures.prompts import PromptAttack, PromptFound
from audit.pictures.scores import Likeness
from audit.results import SCHEMA, Cost, Finding, SettingRecord, TextAudit
from audit.scores import Estimate

__all__ = ["SAMPLE", "audit", "cost", "finding", "pictures", "setting"]


def setting(defence="none", strength=0.0, seed=0, ends="public"):
    return SettingRecord(
        head_layers=1,
        tail_layers=1,
        codec="fp16",
        defence=defence,
        strength=strength,
        seed=seed,
        ends=ends,
    )


def finding(share, where, adversary="open-weights", target="prompt", **more):
    fields = {"attack": "vocabulary search", "bleu": 50.0, "tokens": 100, "texts": 4, "seconds": 1}
    return Finding(
        setting=where,
        adversary=adversary,
        target=target,
        recovered=Estimate(share, share - 0.1, share + 0.1),
        **(fields | more),
    )


def cost(perplexity, where, baseline=2.0):
    return Cost(
        setting=where,
        perplexity=perplexity,
        baseline=baseline,
        bytes_per_token=384,
        device_s=0.001,
        epsilon=None,
    )


def audit(findings, costs):
    return TextAudit(
        schema=SCHEMA,
        producer="lambda-split 0",
        model="model",
        fingerprint="0" * 32,
        layer_count=8,
        hidden_size=192,
        text="text.txt",
        findings=tuple(findings),
        costs=tuple(costs),
        seconds=3.0,
    )


WEAK, STRONG = setting("gaussian", 1.0), setting("gaussian", 2.0)
STRONG_TOO = setting("gaussian", 2.0, seed=1)
SAMPLE = audit(
    [
        finding(0.0, setting(), "tls-tapper", attack="guess"),
        finding(1.0, setting(), example=("<b>secret</b>", "secret?")),
        finding(0.97, setting(), target="reply", attack="public tail"),
        finding(0.6, setting(), "trunk-only", attack="learned inverter", known_positions=1000),
        finding(0.9, WEAK),
        finding(0.5, STRONG),
        finding(0.7, STRONG, "trunk-only", attack="learned inverter"),
        finding(0.3, STRONG_TOO),
    ],
    [cost(2.0, setting()), cost(2.06, WEAK), cost(3.0, STRONG), cost(5.0, STRONG_TOO)],
)


def pictures(whole=((np.inf, np.inf), (1.0, 1.0)), deep=((30.0, 40.0), (0.8, 0.9))):
    """Of two captions, the second of which was found in part; PSNR and SSIM of what is tapped."""
    guessed = Likeness((8.0, 10.0), (0.3, 0.5))
    cost = Likeness((50.0, np.inf), (0.99, 1.0))
    shown = np.zeros((2, 12, 12, 3), np.uint8)
    return picture_results(
        PicturesAudit(
            model="painter",
            captions=("a <b>cat</b>", "a dog"),
            steps=4,
            prompts=PromptAttack(
                (
                    PromptFound("a <b>cat</b>", "a <b>cat</b>", 8, 8, 0.0),
                    PromptFound("a dog", "a log", 1, 2, 0.1),
                ),
                600,
                2.5,
            ),
            control=PromptAttack((PromptFound("a <b>cat</b>", "of", 0, 8, 1.0),), 600, 1.5),
            settings=(
                PictureSetting("whole", "fp16", Sizes((100, 28), (28, 540)), cost),
                PictureSetting("deep", "int8-channel", Sizes((100, 900), (28, 900)), cost),
            ),
            attacks=(
                _attack(name="the mean of other pictures", likeness=guessed),
                _attack("whole", "fp16", name="the public decoder", likeness=Likeness(*whole)),
                _attack("deep", "int8-channel", name="a linear map", likeness=Likeness(*deep)),
            ),
            samples=Samples(shown, shown, shown + 1, None),
            seconds=5.0,
        )
    )


def _attack(split="", form="", *, name, likeness):
    nothing = np.zeros((0, 12, 12, 3), np.uint8)
    step, pairs = 4 if split else 0, 8 if split == "deep" else 0
    return PictureAttack(split, form, name, step, pairs, likeness, 0.5, nothing)
