"""The bundle of a benchmark that was ended: used again where it is the right one."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from bench.cases import LINKS
from bench.request import Request
from bench.running import _Bench, _export, run_benchmark
from bench.source import open_source
from bench.store import Store
from export import ExportSettings, QuietProgress, export_bundle
from lambda_split.split import Split
from tests.bench.figures import MACHINE, settings
from tests.tiny_models import save_tiny


def _request(tmp_path) -> Request:
    save_tiny("llama", tmp_path / "model")
    return Request(
        model=str(tmp_path / "model"),
        links=LINKS,
        prompt_tokens=8,
        max_new_tokens=4,
        repetitions=1,
        codec="fp16",
        out=tmp_path / "out",
    )


def test_what_a_killed_export_left_goes_when_all_is_measured(tmp_path, monkeypatch) -> None:
    def measure(_cases: object, bench: _Bench) -> None:
        for name in (".bundle.abc123.partial", "bundle"):
            (bench.exported.parent / name).mkdir(parents=True)

    monkeypatch.setattr("bench.running._measure_all", measure)
    request = _request(tmp_path)
    _, report = run_benchmark(request)
    assert {path.name for path in request.out.iterdir()} == {"results.json", report.name}


@pytest.mark.parametrize(
    ("other_model", "weights", "splits"),
    [
        (False, "fp32", (Split(1, 1),)),
        (False, "fp32", (Split(1, 1), Split(2, 2))),
        (False, "fp16", (Split(1, 1),)),
        (True, "fp32", (Split(1, 1),)),
    ],
    ids=["the same", "another split", "other weights", "another model"],
)
def test_a_bundle_that_is_there(tmp_path, monkeypatch, other_model, weights, splits) -> None:
    request = _request(tmp_path)
    work = tmp_path / "out" / "bundle"
    there = ExportSettings(split=Split(1, 1), weights="fp32")
    export_bundle(str(tmp_path / "model"), work, there, progress=QuietProgress())
    source = open_source(request)
    model = source.model
    if other_model:
        model = msgspec.structs.replace(model, fingerprint="ab" * 8)
        source = replace(source, model=model)
    wanted = settings(weights=weights)
    store = Store.open(request.out, wanted, MACHINE, model, restart=False)
    made = []
    monkeypatch.setattr("bench.running.export_bundle", lambda *args, **_more: made.append(args))
    _export(splits, _Bench(request, source, wanted, store, work), QuietProgress())
    used_again = (other_model, weights, splits) == (False, "fp32", (Split(1, 1),))
    assert bool(made) != used_again
