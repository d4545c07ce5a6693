from __future__ import annotations

import json
import os

import pytest

from audit.results import SCHEMA
from audit.results_file import AuditResults, read_results, write_results
from lambda_split.errors import OutputNotWritable, UsageError
from tests.audit.some_results import SAMPLE, pictures

BOTH = AuditResults(text=SAMPLE, pictures=pictures())


@pytest.mark.parametrize(
    "results", [BOTH, AuditResults(text=SAMPLE), AuditResults(pictures=pictures())]
)
def test_they_are_read_as_they_were_written(tmp_path, results) -> None:
    write_results(tmp_path / "results.json", results)
    assert read_results(tmp_path / "results.json") == results
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_what_is_infinite_is_null(tmp_path) -> None:
    write_results(tmp_path / "results.json", BOTH)
    stored = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    whole, cost = stored["pictures"]["findings"][1], stored["pictures"]["costs"][0]
    assert (whole["likeness"]["psnr"], whole["likeness"]["mean_psnr"]) == ([None, None], None)
    assert cost["likeness"]["psnr"] == [50.0, None]
    assert cost["likeness"]["mean_psnr"] == {"value": 50.0, "low": 50.0, "high": 50.0}


@pytest.mark.parametrize(
    "content",
    ["{", "{}", "[" * 100_000, '{"text": null}', '{"text": {"schema": 1}}', "\udcff"],
    ids=["cut", "empty", "deep", "null", "bare", "no UTF-8"],
)
def test_what_is_no_result(tmp_path, content) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError, match="holds no results"):
        read_results(path)


@pytest.mark.parametrize("part", ["text", "pictures"])
def test_another_version(tmp_path, part) -> None:
    path = tmp_path / "results.json"
    write_results(path, BOTH)
    stored = json.loads(path.read_text())
    stored[part] = {"schema": 99, "new": True}
    path.write_text(json.dumps(stored))
    with pytest.raises(UsageError, match=f"version 99, this program reads {SCHEMA}"):
        read_results(path)


def test_no_file_and_no_folder(tmp_path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_results(tmp_path / "results.json")
    with pytest.raises(OutputNotWritable):
        write_results(tmp_path / "nowhere" / "results.json", BOTH)


def test_what_cannot_be_put_in_its_place_leaves_nothing(tmp_path) -> None:
    (tmp_path / "results.json" / "full").mkdir(parents=True)
    with pytest.raises(OutputNotWritable):
        write_results(tmp_path / "results.json", BOTH)
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_who_lets_nobody_read_his_files_has_a_report_that_nobody_reads(tmp_path) -> None:
    before = os.umask(0o077)
    try:
        write_results(tmp_path / "results.json", BOTH)
    finally:
        os.umask(before)
    assert (tmp_path / "results.json").stat().st_mode & 0o777 == 0o600
