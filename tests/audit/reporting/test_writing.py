from __future__ import annotations

import pytest

from audit.reporting.writing import plots_of, write_report
from audit.results_file import AuditResults, read_results
from lambda_split.errors import OutputNotWritable
from tests.audit.some_results import SAMPLE, audit, pictures

REPORT = {"results.json", "report.md", "report.html"}


def names_in(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_folder_holds_the_report_of_the_last_audit(tmp_path) -> None:
    both = AuditResults(text=SAMPLE, pictures=pictures())
    assert write_report(tmp_path, both) == tmp_path / "report.html"
    assert names_in(tmp_path) == REPORT | {"attacks.png", "defences.png", "pictures.png"}
    assert (tmp_path / "pictures.png").read_bytes().startswith(b"\x89PNG")
    assert read_results(tmp_path / "results.json") == both
    write_report(tmp_path, AuditResults(pictures=pictures()))
    assert names_in(tmp_path) == REPORT | {"pictures.png"}


def test_without_defences_there_is_no_plot_of_them() -> None:
    plain = audit(SAMPLE.findings[:4], SAMPLE.costs[:1])
    assert set(plots_of(AuditResults(text=plain))) == {"attacks.png"}


def test_a_plot_that_cannot_be_removed(tmp_path) -> None:
    (tmp_path / "attacks.png" / "in-the-way").mkdir(parents=True)
    with pytest.raises(OutputNotWritable, match=r"attacks\.png"):
        write_report(tmp_path, AuditResults(pictures=pictures()))
