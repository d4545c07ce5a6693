"""A load run: servers, bundles, clients, and the comparison at the end."""

from __future__ import annotations

import contextlib
import pathlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from export import ExportSettings, QuietProgress, export_bundle
from lambda_split.bundle import Bundle, load_bundle
from lambda_split.split import Split
from tests.cutting_proxy import cutting_proxy
from tests.load.clients import Client, counted_evictions
from tests.load.plan import draw_errands, draw_families
from tests.load.reference import WholeModel
from tests.load.report import Report
from tests.servers import TrunkServer, serving
from tests.tiny_models import save_tiny

__all__ = ["SPLITS", "LoadSettings", "Prepared", "prepare", "run_load"]

# One server holds every layer; devices leave it different parts.
SPLITS = (Split(1, 1), Split(0, 0), Split(2, 1))
_ENDLESS = 10**9


@dataclass(frozen=True, kw_only=True)
class LoadSettings:
    """One run.

    Attributes:
        clients: Devices at a time.
        generations: All clients and all models together.
        chunk_tokens: Prompts go in pieces of that many tokens.
        kv_memory: The server's ``--kv-memory``; its default where None.
        seed: Of everything random.
        longest_prompt: In tokens.
        new_tokens: The most of a generation.
        families: Prompts to draw from for each model, each with its edited versions.
        cut_share: The share of the clients whose connections are cut again and again.
        cut_bytes: How much a connection carries, both ways together, before it breaks: drawn
            between these two. The second must exceed what replaying the longest session takes.
        serve_arguments: Further arguments of ``lambda-split serve``.
        within_s: A model's clients must be done by then.
    """

    clients: int = 32
    generations: int = 2000
    chunk_tokens: int = 64
    kv_memory: str | None = None
    seed: int = 0
    longest_prompt: int = 160
    new_tokens: int = 24
    families: int = 40
    cut_share: float = 0.5
    cut_bytes: tuple[int, int] = (4_000, 120_000)
    serve_arguments: tuple[str, ...] = ()
    within_s: float = 3600.0

    @property
    def max_positions(self) -> int:
        """What a session needs at most."""
        return self.longest_prompt + self.new_tokens


@dataclass(frozen=True)
class Prepared:
    """A tiny model's checkpoint and its bundles, one for each split."""

    variant: str
    folder: pathlib.Path
    bundles: tuple[Bundle, ...]


def prepare(variant: str, folder: pathlib.Path, splits: tuple[Split, ...] = SPLITS) -> Prepared:
    """Write a tiny model's checkpoint below ``folder`` and export it with every split."""
    checkpoint = folder / variant
    save_tiny(variant, checkpoint)
    bundles = []
    for split in splits:
        out = folder / f"{variant}-{split.head_layers}-{split.tail_layers}"
        settings = ExportSettings(split=split, weights="fp32")
        export_bundle(str(checkpoint), out, settings, progress=QuietProgress())
        bundles.append(load_bundle(out))
    return Prepared(variant, checkpoint, tuple(bundles))


def run_load(
    models: list[Prepared], settings: LoadSettings, say: Callable[[str], object] = lambda _: None
) -> Report:
    """Run all clients against one server for each model in turn, then compare every output.

    Args:
        models: What is served, one after the other.
        settings: How much, and how.
        say: Told what goes on.
    """
    torch.set_num_threads(1)
    report = Report()
    for number, model in enumerate(models):
        share = settings.generations // len(models)
        if number < settings.generations % len(models):
            share += 1
        report.add(_run_model(model, share, settings, say))
    return report


def _run_model(
    model: Prepared, generations: int, settings: LoadSettings, say: Callable[[str], object]
) -> Report:
    order = random.Random(f"{settings.seed} {model.variant}")
    families = draw_families(
        settings.families,
        longest_prompt=settings.longest_prompt,
        new_tokens=settings.new_tokens,
        order=order,
    )
    counts = [
        generations // settings.clients + (number < generations % settings.clients)
        for number in range(settings.clients)
    ]
    errands = [
        draw_errands(families, count, splits=len(model.bundles), order=order) for count in counts
    ]
    report = Report()
    say(f"{model.variant}: {generations} generations\n")
    with _server(model, settings) as server, counted_evictions() as evictions:
        port = int(server.url.rsplit(":", 1)[1])
        low, high = settings.cut_bytes
        with cutting_proxy(port, seed=settings.seed, low=low, high=high) as proxy:
            proxy.arm(_ENDLESS)
            clients = [
                Client(
                    proxy.url if number < settings.cut_share * settings.clients else server.url,
                    model.bundles,
                    chunk_tokens=settings.chunk_tokens,
                    max_positions=settings.max_positions,
                )
                for number in range(settings.clients)
            ]
            began = time.monotonic()
            threads = [
                threading.Thread(target=client.run, args=(own,), daemon=True)
                for client, own in zip(clients, errands, strict=True)
            ]
            for thread in threads:
                thread.start()
            hanging = _watch(threads, clients, within_s=settings.within_s, say=say)
            if hanging:
                report.failures.append(
                    f"{hanging} clients were not done in {settings.within_s:g} s"
                )
            report.seconds = time.monotonic() - began
        report.evictions = evictions.count
        log = server.log()
        report.failures += [
            f"the server's log: {line}"
            for line in log.splitlines()
            if "Traceback" in line or " ERROR " in line
        ]
    for client in clients:
        report.add(client.report)
    say(f"{model.variant}: comparing\n")
    text = model.bundles[0].manifest.text
    assert text is not None
    whole = WholeModel(model.folder, frozenset(text.stop_token_ids))
    for output in (output for client in clients for output in client.outputs):
        deviation = whole.judge(output.case, output.tokens, whole=output.whole)
        if deviation is not None:
            report.deviations.append(deviation)
    return report


@contextlib.contextmanager
def _server(model: Prepared, settings: LoadSettings) -> Iterator[TrunkServer]:
    arguments = [
        *(str(model.folder), "--head-layers", "0", "--tail-layers", "0", "--dtype", "float32"),
        # A cut session stays until the server has seen the cut: leave room for a few.
        *("--max-sessions", str(2 * settings.clients)),
        *("--max-positions", str(settings.max_positions)),
    ]
    if settings.kv_memory is not None:
        arguments += ["--kv-memory", settings.kv_memory]
    with serving(*arguments, *settings.serve_arguments) as server:
        yield server


def _watch(
    threads: list[threading.Thread],
    clients: list[Client],
    *,
    within_s: float,
    say: Callable[[str], object],
) -> int:
    """Wait for the clients; returns how many were not done in time."""
    deadline = time.monotonic() + within_s
    told = time.monotonic()
    while any(thread.is_alive() for thread in threads) and time.monotonic() < deadline:
        for thread in threads:
            thread.join(0.05)
        if time.monotonic() > told + 10:
            told = time.monotonic()
            say(f"{sum(len(client.outputs) for client in clients)} generations done\n")
    return sum(thread.is_alive() for thread in threads)
