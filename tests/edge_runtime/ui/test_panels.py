"""The panel: what it says, and that nothing in it is taken for markup."""

from __future__ import annotations

import base64
import re

import numpy as np
import pytest

from edge_runtime.pictures.png import encode_png
from edge_runtime.pictures.stream import ImageStats
from edge_runtime.stats import GenerationStats
from edge_runtime.ui.heat_map import heat_map
from edge_runtime.ui.markup import as_typed, picture, quote, status
from edge_runtime.ui.panels import PictureWire, TextWire, picture_panel, text_panel
from lambda_split.split import Split

ATTACK = '<img src="http://192.0.2.1/a.png" onerror="alert(1)">&'
STATES = np.random.default_rng(0).normal(size=(7, 32)).astype(np.float32)
STATS = GenerationStats(
    prompt_tokens=5,
    cached_tokens=3,
    completion_tokens=4,
    ttft_s=0.25,
    total_s=1.0,
    head_s=0.1,
    link_s=0.2,
    trunk_s=0.4,
    tail_s=0.004,
    bytes_up=12345,
    bytes_down=678,
    round_trips=4,
    reconnects=1,
)
PICTURE_STATS = ImageStats(
    total_s=3.5, encode_s=0.25, link_s=0.5, trunk_s=2.0, decode_s=0.75, bytes_up=999, bytes_down=1
)


def text_of(markup: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", markup).split())


def test_a_text_s_panel_says_what_crossed_and_what_did_not() -> None:
    wire = TextWire(Split(1, 2), 8, "fp16", "a question", "an answer", STATS, STATES)
    markup = text_panel(wire)
    said = text_of(markup)
    for told in (
        "head 1 layer, here trunk 5 layers, in the cloud tail 2 layers, here",
        "12,345 bytes up 678 bytes down 4 round trips",
        "32 numbers as fp16, the newest at the bottom: 7 positions.",
        "a question an answer",
        "head 25.0 ms link 50.0 ms trunk 100.0 ms tail 1.0 ms",
        "first token after 250 ms; 4.0 tokens/s; 3 prompt tokens still held",
        "1 reconnect, nothing lost",
        "no encryption",
    ):
        assert told in said, told
    (source,) = re.findall(r'src="data:image/png;base64,([^"]*)"', markup)
    assert base64.b64decode(source) == encode_png(heat_map(STATES))


def test_before_anything_was_sent() -> None:
    assert "Nothing yet" in text_panel(TextWire(None, 8, "fp16"))
    assert "when the session begins" in text_panel(TextWire(None, 8, "fp16"))
    nothing = np.zeros((0, 32), np.float32)
    empty = TextWire(Split(0, 0), 8, "fp16", "q", "", GenerationStats(), nothing)
    assert "Nothing yet" in text_panel(empty)
    assert "0 layers, here" in text_panel(empty)
    assert "Nothing yet" in picture_panel(PictureWire("whole", "fp16"))


@pytest.mark.parametrize(
    ("split", "told"), [("whole", "predicted noise comes back"), ("deep", "features go both ways")]
)
def test_a_picture_s_panel(split, told) -> None:
    wire = PictureWire(split, "nf4-delta", "a cat", "", PICTURE_STATS, STATES[None])
    said = text_of(picture_panel(wire))
    assert f"{told}, as nf4-delta" in said
    assert "The prompt's encoding, 7 rows of 32 numbers" in said
    assert "away" not in said
    assert ("with seed and settings" in said) == (split == "whole")  # a deep one keeps them
    assert "999 bytes up 1 bytes down" in said
    assert "text encoders 0.25 s link 0.50 s denoiser 2.00 s decoder 0.75 s" in said
    assert "a cat" in said
    assert ("first and last blocks" in said) == (split == "deep")


def test_what_to_lead_away_from_has_left_the_device_too() -> None:
    both = np.stack([STATES, -STATES])
    markup = picture_panel(PictureWire("deep", "fp16", "a cat", "dogs", PICTURE_STATS, both))
    said = text_of(markup)
    assert "7 rows of 32 numbers, and as many of what to lead away from; then" in said
    assert "a cat dogs" in said
    (source,) = re.findall(r'src="data:image/png;base64,([^"]*)"', markup)
    assert base64.b64decode(source) == encode_png(heat_map(np.concatenate([STATES, -STATES])))


def test_what_was_sent_unseen_is_not_nothing() -> None:
    said = text_of(text_panel(TextWire(Split(1, 1), 8, "fp16", "a question", unseen=True)))
    assert "Nothing" not in said
    assert "Hidden states of what was said may have been sent" in said
    assert "a question" in said


def test_what_a_person_or_a_model_writes_is_no_markup() -> None:
    wire = TextWire(Split(1, 1), 8, "fp16", ATTACK, ATTACK, STATS, STATES)
    pixels = np.zeros((2, 2, 3), np.uint8)
    for markup in (
        text_panel(wire),
        picture_panel(PictureWire("whole", "fp16", ATTACK, ATTACK, PICTURE_STATS, STATES[None])),
        text_panel(TextWire(Split(1, 1), 8, "fp16", ATTACK, unseen=True)),
        quote(ATTACK),
        status(ATTACK),
        picture(pixels, ATTACK, download=ATTACK),
    ):
        assert "onerror=&quot;" in markup
        assert '<img src="http' not in markup
        assert 'onerror="' not in markup


def test_long_texts_end_where_they_end() -> None:
    shown = text_of(quote("x" * 1000 + " the end"))
    assert shown.startswith("… x")
    assert shown.endswith("the end")
    assert len(shown) < 300
    assert quote("short") == '<div class="ls-quote" dir="auto">short</div>'


@pytest.mark.parametrize(
    ("typed", "markdown"),
    [
        ("plain words, 2 of them; (maybe)", r"plain words, 2 of them; \(maybe\)"),
        ("# no title", r"\# no title"),
        ("<b>&amp;</b>", r"\<b\>\&amp;\</b\>"),
        ("![x](http://a.example/b.png)", r"\!\[x\]\(http\://a\.example/b\.png\)"),
        (
            "a\n    indented\n\tby a tab",
            "a\n" + "&nbsp;" * 4 + "indented\n" + "&nbsp;" * 4 + "by a tab",
        ),
        ("- 1\n- 2", "\\- 1\n\\- 2"),
        ("back\\slash `code` $x$", r"back\\slash \`code\` \$x\$"),
    ],
)
def test_what_was_typed_is_no_markdown(typed, markdown) -> None:
    assert as_typed(typed) == markdown


def test_nothing_to_say() -> None:
    assert status("") == ""
    assert 'class="ls-status ls-trouble" role="status"' in status("no", trouble=True)
