from __future__ import annotations

import base64
import re

import pytest

from audit.reporting.markdown import as_markdown
from audit.reporting.page import as_html
from audit.reporting.writing import plots_of
from audit.results_file import AuditResults
from tests.audit.some_results import SAMPLE, pictures

TEXT = AuditResults(text=SAMPLE)
PICTURES = AuditResults(pictures=pictures())
BOTH = AuditResults(text=SAMPLE, pictures=pictures())


@pytest.fixture(scope="module")
def page_of():
    plots = plots_of(BOTH)  # drawn once: it takes a second
    return lambda results: as_html(results, plots)


@pytest.mark.parametrize(
    ("results", "cards", "images"), [(TEXT, 3, 2), (PICTURES, 3, 1 + 6), (BOTH, 6, 3 + 6)]
)
def test_the_page_stands_alone_and_takes_texts_as_texts(page_of, results, cards, images) -> None:
    page = page_of(results)
    for outside in ("http://", "https://", "<script", "<link", "@import", "url("):
        assert outside not in page
    assert page.count('class="card') == cards
    sources = re.findall(r'src="([^"]*)"', page)
    assert len(sources) == images
    for source in sources:
        kind, _, data = source.partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data, validate=True).startswith(b"\x89PNG")
    assert ("&lt;b&gt;secret&lt;/b&gt;" in page) == (results.text is not None)
    assert ("a &lt;b&gt;cat&lt;/b&gt;" in page) == (results.pictures is not None)
    assert "<b>secret" not in page
    assert "<b>cat" not in page


def test_the_page_says_only_what_was_audited(page_of) -> None:
    assert "painter" not in page_of(TEXT)
    assert "SSIM" not in page_of(TEXT)
    assert "perplexity" not in page_of(PICTURES).lower()
    assert "hidden states" not in page_of(PICTURES)


def test_the_page_is_made_for_phones_and_the_dark(page_of) -> None:
    page = page_of(BOTH)
    assert "width=device-width" in page
    assert "prefers-color-scheme: dark" in page
    wide = page.count("<table>")
    assert wide == page.count('<div class="scroll"><table>') > 0


def test_the_sheet_has_the_pictures_that_there_are(page_of) -> None:
    page = page_of(PICTURES)
    assert "“deep”, by a linear map" in page
    assert "“deep”, by a search" not in page


def test_the_tables_have_a_line_for_each() -> None:
    text = as_markdown(BOTH)
    assert text.count("\n| 1+1 layers") == len(SAMPLE.findings) + len(SAMPLE.costs)
    found = pictures()
    lines = [line for line in text.splitlines() if line.startswith(("| whole ", "| deep ", "|  |"))]
    assert len(lines) == len(found.findings) + len(found.costs)
    assert "# What can be seen of pictures" not in as_markdown(TEXT)
    assert "# What can be seen of texts" not in as_markdown(PICTURES)
