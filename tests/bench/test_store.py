"""Results in a folder: stored at once, gone on with, and never mixed with others."""

import json

import msgspec
import pytest

from bench.store import RESULTS_NAME, Store
from lambda_split.errors import OutputNotWritable, UsageError
from tests.bench.figures import LAN, MACHINE, MODEL, growth, measurement, settings


def _open(folder, *, restart=False, **changes):
    wanted = {"settings": settings(), "machine": MACHINE, "model": MODEL, **changes}
    return Store.open(folder, **wanted, restart=restart)


def test_a_run_that_was_ended_goes_on(tmp_path):
    folder = tmp_path / "a" / "b"
    store = _open(folder)
    assert store.results.finished == frozenset()
    store.add([measurement(), measurement(LAN)])
    store.add([growth()])
    again = _open(folder)
    assert again.results == store.results
    assert again.results.finished == {
        measurement().case,
        measurement(LAN).case,
        growth().case,
    }
    assert [path.name for path in folder.iterdir()] == [RESULTS_NAME]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"settings": settings(repetitions=9, codec="fp32")}, r"other settings \(repetitions, co"),
        ({"machine": msgspec.structs.replace(MACHINE, cores=4)}, r"another machine \(cores\)"),
        ({"model": msgspec.structs.replace(MODEL, fingerprint="cd" * 8)}, r"another model \(fin"),
    ],
)
def test_figures_of_something_else_are_not_mixed(tmp_path, changes, complaint):
    _open(tmp_path).add([measurement()])
    before = (tmp_path / RESULTS_NAME).read_bytes()
    with pytest.raises(UsageError, match=f"{complaint}.*--restart"):
        _open(tmp_path, **changes)
    assert (tmp_path / RESULTS_NAME).read_bytes() == before
    assert _open(tmp_path, restart=True, **changes).results.finished == frozenset()


@pytest.mark.parametrize("content", [b"", b"{}", b'{"schema": 1}', b"\xff", b"[" * 100_000])
def test_a_file_that_holds_no_results(tmp_path, content):
    (tmp_path / RESULTS_NAME).write_bytes(content)
    with pytest.raises(UsageError, match="holds no results of a benchmark"):
        _open(tmp_path)
    assert (tmp_path / RESULTS_NAME).read_bytes() == content


def test_results_of_another_version(tmp_path):
    _open(tmp_path)
    found = json.loads((tmp_path / RESULTS_NAME).read_bytes())
    (tmp_path / RESULTS_NAME).write_text(json.dumps({**found, "schema": 2}))
    with pytest.raises(UsageError, match="is of version 2, this program's is 1"):
        _open(tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputNotWritable, match="file"):
        _open(tmp_path / "file" / "out")
    with pytest.raises(UsageError, match="File name too long"):
        _open(tmp_path / ("x" * 300))
    (tmp_path / "taken" / RESULTS_NAME).mkdir(parents=True)
    with pytest.raises(UsageError, match=RESULTS_NAME):
        _open(tmp_path / "taken")
