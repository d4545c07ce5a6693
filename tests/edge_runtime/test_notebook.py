"""What a notebook shows: read back with a parser of HTML, whatever the model said."""

from __future__ import annotations

import base64
import dataclasses
import html.parser
import io
import re

import numpy as np
import PIL.Image
import pytest

from edge_runtime import (
    GenerationResult,
    GenerationStats,
    ImageResult,
    ImageStats,
    ImageStep,
    PictureSpec,
)
from edge_runtime.notebook import Share, as_duration, card, plain, shares_bar

HOSTILE = [
    "<script>alert('x')</script>",
    '"><img src=x onerror="alert(1)">',
    "</div></div><h1>out of the card</h1>",
    "&lt;b&gt; stays as it is &amp; so on",
    "two\nlines  and   blanks\t.",
    "ein Füchslein 🦊, ثعلب",
    "",
]
STATS = GenerationStats(
    prompt_tokens=12,
    cached_tokens=3,
    completion_tokens=5,
    ttft_s=0.05,
    total_s=1.5,
    head_s=0.1,
    link_s=0.6,
    trunk_s=0.45,
    tail_s=0.05,
    bytes_up=12_345,
    bytes_down=1,
    round_trips=5,
    reconnects=2,
)
VOID = {"img"}


class Page(html.parser.HTMLParser):
    """Reads a piece of HTML; fails where it is not well nested.

    Attributes:
        tags: All elements, with their attributes.
        texts: The text within each kind of element that has a direction (the model's).
    """

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.said: list[str] = []
        self.all = ""
        self._open: list[tuple[str, bool]] = []
        self.feed(markup)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            said = dict(attrs).get("dir") == "auto"
            self._open.append((tag, said))
            if said:
                self.said.append("")

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag

    def handle_data(self, data):
        self.all += data
        if self._open and self._open[-1][1]:
            self.said[-1] += data


def _check(markup: str) -> Page:
    """It stands alone, and has nothing that a page would run."""
    page = Page(markup)
    assert {tag for tag, _ in page.tags} <= {"div", "span", "b", "img"}
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert "href" not in attributes
        assert attributes.get("src", "data:image/png;base64,").startswith("data:image/png;base64,")
        style = attributes.get("style", "")
        assert "url(" not in style
        assert "expression" not in style
        # The page's own colours: nothing is black on black.
        assert not re.search(r"(^|;)(color|background):", style)
    return page


def _result(text: str) -> GenerationResult:
    return GenerationResult(text, (1, 2, 3, 4, 5), (0,) * 12, "length", STATS)


def _pictures(images: np.ndarray, **stats: float) -> ImageResult:
    return ImageResult(
        images, np.zeros((1, 4, 2, 2), np.float32), 7, PictureSpec(steps=9), ImageStats(**stats)
    )


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (2, 6, 10, 3), dtype=np.uint8)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_is_shown_as_the_model_said_it(text) -> None:
    page = _check(_result(text)._repr_html_())
    assert page.said == [text]
    assert "length" in page.all
    for fact in ("12 tokens (3 held)", "5 tokens", "50 ms", "12,345 bytes", "1 byte", "2 connect"):
        assert fact in page.all


def test_what_it_cost_is_a_bar_with_a_legend() -> None:
    page = _check(STATS._repr_html_())
    for told in ("head 100 ms (7%)", "link 600 ms (40%)", "trunk 450 ms (30%)", "tail 50 ms (3%)"):
        assert told in page.all
    assert "rest 300 ms (20%)" in page.all
    bar = next(attributes for _, attributes in page.tags if attributes.get("role") == "img")
    assert bar["aria-label"] == "head 7%, link 40%, trunk 30%, tail 3%, rest 20%"
    styles = [attributes.get("style", "") for _, attributes in page.tags]
    widths = [float(style.split("width:")[1].split("%")[0]) for style in styles if "%;" in style]
    assert sum(widths) == pytest.approx(100, abs=0.1)


def test_parts_that_work_at_the_same_time_share_their_sum() -> None:
    busy = dataclasses.replace(STATS, total_s=0.4)
    page = _check(busy._repr_html_())
    assert "link 600 ms (50%)" in page.all
    assert "rest" not in page.all


def test_nothing_measured_is_no_bar() -> None:
    assert shares_bar([Share("head", 0.0)], 0.0) == ""
    page = _check(GenerationStats()._repr_html_())
    assert "0 tokens" in page.all
    assert "tokens/s" not in page.all


def test_pictures_stand_in_the_page_as_they_are(images) -> None:
    markup = _pictures(images, total_s=2.0, encode_s=0.5, trunk_s=1.0, blocks_s=0.2)._repr_html_()
    page = _check(markup)
    shown = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [one["alt"] for one in shown] == [
        f"picture made with seed 7, {number} of 2" for number in (1, 2)
    ]
    for attributes, image in zip(shown, images, strict=True):
        assert (attributes["width"], attributes["height"]) == ("10", "6")
        data = base64.b64decode(attributes["src"].removeprefix("data:image/png;base64,"))
        assert np.array_equal(np.asarray(PIL.Image.open(io.BytesIO(data))), image)
    for told in (
        "seed 7",
        "steps 9",
        "2.00 s",
        "denoiser 1.00 s (50%)",
        "blocks here 200 ms (10%)",
    ):
        assert told in page.all
    assert "decoder" not in page.all  # it took nothing
    assert _check(ImageStats(total_s=1.0, reconnects=1)._repr_html_()).all.count("connection") == 1


def test_a_step_shows_its_preview_where_there_is_one(images) -> None:
    noise = np.zeros((2, 4, 2, 2), np.float32)
    plain_step, shown = ImageStep(3, 9, noise), ImageStep(3, 9, noise, images)
    assert [tag for tag, _ in _check(plain_step._repr_html_()).tags].count("img") == 0
    assert [tag for tag, _ in _check(shown._repr_html_()).tags].count("img") == 2
    assert repr(shown) == "<ImageStep: number 3 of 9>"


def test_what_a_bundle_says_of_itself_is_escaped() -> None:
    page = _check(card("Kind", [("model", "<script>x</script>"), ("<b>", "&")]))
    assert page.all == "Kindmodel <script>x</script> · <b> &"


def test_one_line_where_there_is_no_html(images) -> None:
    line = repr(_result("a <b>\nfox"))
    assert line == (
        r"<GenerationResult: text 'a <b>\nfox', of 5 tokens, finish_reason 'length', at 2.8/s>"
    )
    assert len(repr(_result("x" * 10_000))) < 300
    assert repr(_result("x" * 200)).count("x") == 201  # and that of the word text
    found = repr(_pictures(images, total_s=0.25))
    assert found == "<ImageResult: images 2 of 10 × 6, seed 7, steps 9, all after 250 ms>"
    assert plain("Kind", [("name", "value")]) == "<Kind: name value>"
    assert [as_duration(seconds) for seconds in (0, 0.0454, 1.5)] == ["0 ms", "45 ms", "1.50 s"]


def test_rich_is_told_what_matters(images) -> None:
    result = _result("a fox")
    assert dict(result.__rich_repr__()) == {
        "text": "a fox",
        "finish_reason": "length",
        "stats": STATS,
    }
    told = dict(_pictures(images).__rich_repr__())
    assert told["seed"] == "7"
    assert told["spec"] == PictureSpec(steps=9)
