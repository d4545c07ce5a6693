"""The report as a page for people who are no experts."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import jinja2

from audit.picture_results import PictureResults
from audit.reporting.cards import picture_cards, text_cards
from audit.reporting.picture_summary import format_sentence, psnr_in_words, ssim_in_words
from audit.reporting.text_summary import defence_sentence
from audit.results_file import AuditResults

__all__ = ["as_html"]


def as_html(results: AuditResults, plots: Mapping[str, bytes]) -> str:
    """One page with everything in it: no other file, no script, no address.

    Args:
        results: What was found, of one model at least.
        plots: PNG files by name, as of :func:`audit.reporting.writing.plots_of`.
    """
    # Texts of the audit stand in the page: escaped, as what they are.
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.PackageLoader("audit.reporting"),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode("ascii")
    environment.filters["psnr"] = psnr_in_words
    environment.filters["ssim"] = ssim_in_words
    text, pictures = results.text, results.pictures
    return environment.get_template("page.html.jinja").render(
        text=text,
        pictures=pictures,
        models=[part.model for part in (text, pictures) if part is not None],
        plots=plots,
        text_cards=[] if text is None else text_cards(text),
        picture_cards=[] if pictures is None else picture_cards(pictures),
        defence_sentence="" if text is None else defence_sentence(text),
        format_sentence="" if pictures is None else format_sentence(pictures),
        sheet=[] if pictures is None else _sheet(pictures),
        sheet_rows=[] if pictures is None else _sheet_rows(pictures),
    )


def _columns(pictures: PictureResults) -> dict[str, tuple[bytes, ...]]:
    samples = pictures.samples
    every = {
        "what you see": samples.shown,
        "tapped, split “whole”": samples.tapped,
        "“deep”, by a linear map": samples.deep_linear,
        "“deep”, by a search": samples.deep_search,
    }
    return {name: files for name, files in every.items() if files}


def _sheet(pictures: PictureResults) -> list[str]:
    """The sheet's columns."""
    return list(_columns(pictures))


def _sheet_rows(pictures: PictureResults) -> list[tuple[str, tuple[bytes, ...]]]:
    """Of each picture its caption, and its PNG files in the columns' order."""
    rows = zip(*_columns(pictures).values(), strict=False)
    return list(zip(pictures.captions, rows, strict=False))
