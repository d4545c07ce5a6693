"""The whole benchmark: a bundle, servers, cases one after another, and the report."""

from __future__ import annotations

import contextlib
import itertools
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from bench.cases import Case
from bench.machine import this_machine
from bench.measuring import Ground, Server, measure
from bench.plan import edge_splits, estimate_s, plan
from bench.progress import BenchProgress, ExportStages
from bench.prompts import make_prompt
from bench.report import remove_report, report, write_report
from bench.request import Request, settings_for
from bench.serving import Service, serve, service_of
from bench.settings import BenchSettings
from bench.source import Source, open_source
from bench.store import Store
from export import ExportSettings, export_bundle
from lambda_split.bundle import load_bundle
from lambda_split.errors import BundleError
from lambda_split.split import Split

__all__ = ["run_benchmark", "splits_of"]

# Until all is measured. A folder of its own, so that what killed exports leave goes with it.
_WORK = ".work"
_BUNDLE = "bundle"
_EXPORT_S = 5.0  # as estimate_s: only for the remaining time


@dataclass(frozen=True)
class _Bench:
    """What all steps need."""

    request: Request
    source: Source
    settings: BenchSettings
    store: Store
    exported: pathlib.Path


def run_benchmark(request: Request) -> tuple[str, pathlib.Path]:
    """Measure what is missing in the output folder and write the report.

    Returns:
        The report, and where it lies.

    Raises:
        UsageError: the request makes no sense for this model, or the folder holds results of
            something else.
        CheckpointError, BundleError: the model cannot be read.
        ExportError: the model cannot be exported.
        ProcessFailed: a server, a device or a link failed, and has said why on stderr.
        OutputNotWritable: the folder cannot be written.
    """
    source = open_source(request)
    settings = settings_for(request, source.model, source.given)
    store = Store.open(request.out, settings, this_machine(), source.model, restart=request.restart)
    work = request.out / _WORK
    if request.restart:
        shutil.rmtree(work, ignore_errors=True)
        remove_report(request.out)
    missing = [case for case in plan(settings) if case not in store.results.finished]
    if missing:
        _measure_all(missing, _Bench(request, source, settings, store, work / _BUNDLE))
    shutil.rmtree(work, ignore_errors=True)
    path = write_report(store.results, request.out)
    return report(store.results), path


def splits_of(cases: Sequence[Case], layer_count: int) -> tuple[Split, ...]:
    """The splits that the cases need, without repeats."""
    needed: list[Split] = []
    for case in cases:
        if case.split is not None:
            needed.append(case.split)
        elif case.link is None:
            needed += edge_splits(layer_count)
    return tuple(dict.fromkeys(needed))


def _measure_all(cases: Sequence[Case], bench: _Bench) -> None:
    settings = bench.settings
    splits = splits_of(cases, bench.source.model.layer_count)
    exports = len(splits) if bench.request.bundle is None else 0
    total = exports * _EXPORT_S + sum(estimate_s(case, settings) for case in cases)
    with contextlib.closing(BenchProgress(total)) as progress:
        bundle = bench.exported
        if bench.request.bundle is not None:
            bundle = pathlib.Path(bench.request.bundle)
        elif splits:
            _export(splits, bench, ExportStages(progress))
            progress.done(exports * _EXPORT_S)
        longest = max(settings.prompt_tokens, settings.max_context)
        ground = Ground(
            settings,
            bench.source.model,
            bundle,
            make_prompt(bench.source.encode, bench.source.decode, longest),
            bench.request.token_file,
        )
        for service, group in itertools.groupby(cases, service_of):
            with _server(bench.request, service, settings) as server:
                for _, turns in itertools.groupby(group, _without_link):
                    together = tuple(turns)
                    progress.begin(together[0].name)
                    bench.store.add(measure(together, ground, server))
                    progress.done(sum(estimate_s(case, settings) for case in together))


def _without_link(case: Case) -> Case:
    return msgspec.structs.replace(case, link=None)


def _export(splits: Sequence[Split], bench: _Bench, stages: ExportStages) -> None:
    """Export a bundle of all splits, unless there is one already: then it is whole."""
    if bench.exported.exists():
        try:
            manifest = load_bundle(bench.exported, check_contents=False).manifest
            # Of another model where somebody has removed the results and nothing else.
            same = manifest.model.fingerprint == bench.source.model.fingerprint
            same = same and manifest.graphs["head"].weights == bench.settings.weights
            if same and set(splits) <= set(manifest.choices):
                return
        except BundleError:
            pass  # it is made anew
    first, *others = splits
    settings = ExportSettings(
        split=first,
        further_splits=tuple(others),
        weights=bench.settings.weights,
        overwrite=True,
    )
    # Here, where torch is loaded already, and not in a process of its own.
    export_bundle(bench.request.checkpoint, bench.exported, settings, progress=stages)


@contextlib.contextmanager
def _server(request: Request, service: Service, settings: BenchSettings) -> Iterator[Server | None]:
    if request.url is not None:
        yield Server(request.url)
        return
    with serve(request.checkpoint, service, settings) as server:
        yield server
