"""A folder with all files of a report."""

from __future__ import annotations

import pathlib

from audit.reporting.markdown import as_markdown
from audit.reporting.page import as_html
from audit.reporting.picture_plots import pictures_plot
from audit.reporting.text_plots import attacks_plot, defences_plot
from audit.reporting.text_summary import curves
from audit.results_file import AuditResults, write_results
from lambda_split.errors import OutputNotWritable
from lambda_split.whole_file import write_whole

__all__ = ["PLOTS", "plots_of", "write_report"]

PLOTS = ("attacks.png", "defences.png", "pictures.png")


def plots_of(results: AuditResults) -> dict[str, bytes]:
    """The plots that there is something to draw in, by the names of their files."""
    plots: dict[str, bytes] = {}
    if results.text is not None:
        plots["attacks.png"] = attacks_plot(results.text)
        if any(name != "none" for name in curves(results.text)):
            plots["defences.png"] = defences_plot(results.text)
    if results.pictures is not None:
        plots["pictures.png"] = pictures_plot(results.pictures)
    return plots


def write_report(folder: pathlib.Path, results: AuditResults) -> pathlib.Path:
    """Write ``results.json``, ``report.md``, plots and ``report.html``.

    Plots of an earlier audit in the same folder that this one has not are removed.

    Args:
        folder: It exists.
        results: What was found.

    Returns:
        Where the page is.

    Raises:
        OutputNotWritable: the disk is full, or there is no permission.
    """
    write_results(folder / "results.json", results)  # first: all others can be made of it again
    write_whole(folder / "report.md", as_markdown(results).encode("utf-8"))
    plots = plots_of(results)
    for name in PLOTS:
        if name in plots:
            write_whole(folder / name, plots[name])
        else:
            _remove(folder / name)
    page = folder / "report.html"
    write_whole(page, as_html(results, plots).encode("utf-8"))
    return page


def _remove(path: pathlib.Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputNotWritable(str(path), error.strerror or str(error)) from error
