"""Speed of the split system against the same model unsplit, in one run on one machine.

For each model size and prompt length: 64 new tokens, greedy, over loopback with the trunk in a
process of its own, against ``transformers.generate()`` of the whole model in this process. The two
take turns and medians are compared, so that a noisy machine disturbs both. Prints Markdown.

    python -m benchmarks.decode                    both sizes, about ten minutes
    python -m benchmarks.decode --size small
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass

import torch
from transformers import LlamaForCausalLM

from benchmarks.models import SIZES, write_checkpoint
from edge_runtime import RuntimeSettings, TextGenerator
from export import ExportSettings, QuietProgress, export_bundle
from lambda_split.bundle import WeightFormat
from lambda_split.split import Split
from tests.servers import serving

PROMPT_LENGTHS = (34, 513)
NEW_TOKENS = 64
CONTEXTS = (64, 512, 1024, 2048)


@dataclass(frozen=True)
class Speed:
    """One generation: seconds to the first token and decode speed after it."""

    ttft_s: float
    tokens_per_s: float


@dataclass(frozen=True)
class Row:
    """One line of the table: medians, and the ratios to the unsplit model in the same run."""

    model: str
    ends: str
    prompt: int
    ttft_s: float
    tokens_per_s: float
    ttft_ratio: float
    speed_ratio: float


def unsplit(model: LlamaForCausalLM, prompt: list[int]) -> Speed:
    """``generate()`` of the whole model; its first token is timed by a run of one token."""
    ids = torch.tensor([prompt])
    begin = time.perf_counter()
    model.generate(ids, max_new_tokens=1, do_sample=False)
    ttft_s = time.perf_counter() - begin
    begin = time.perf_counter()
    model.generate(ids, max_new_tokens=NEW_TOKENS, do_sample=False)
    total_s = time.perf_counter() - begin
    return Speed(ttft_s, (NEW_TOKENS - 1) / (total_s - ttft_s))


def split(generator: TextGenerator, prompt: list[int]) -> Speed:
    """One generation of the split system, from an empty cache."""
    generator.generate([1], max_new_tokens=1)  # another first token: nothing of the prompt is held
    stats = generator.generate(prompt, max_new_tokens=NEW_TOKENS).stats
    return Speed(stats.ttft_s, stats.tokens_per_s)


def median(speeds: list[Speed]) -> Speed:
    """Medians of both figures."""
    return Speed(
        statistics.median(s.ttft_s for s in speeds),
        statistics.median(s.tokens_per_s for s in speeds),
    )


def compare(size_name: str, repeats: int, folder: pathlib.Path) -> list[Row]:
    """Measure one model size."""
    size = SIZES[size_name]
    write_checkpoint(size, folder / "model")
    model = LlamaForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    formats: tuple[WeightFormat, ...] = ("fp32", "int4")
    for weights in formats:
        settings = ExportSettings(split=Split(1, 1), weights=weights)
        export_bundle(str(folder / "model"), folder / weights, settings, progress=QuietProgress())
    rows: list[Row] = []
    serve = (str(folder / "model"), "--dtype", "float32", "--threads", "2")
    with serving(*serve) as server:
        generators = {
            weights: TextGenerator.open(
                folder / weights, server.url, runtime=RuntimeSettings(threads=2)
            )
            for weights in formats
        }
        for length in PROMPT_LENGTHS:
            prompt = torch.randint(2, size.vocab, (length,)).tolist()
            whole: list[Speed] = []
            ours: dict[str, list[Speed]] = {weights: [] for weights in formats}
            for turn in range(repeats + 1):
                speeds = {name: split(item, prompt) for name, item in generators.items()}
                baseline = unsplit(model, prompt)
                if turn:  # the first turn warms caches and thread pools up
                    whole.append(baseline)
                    for name, speed in speeds.items():
                        ours[name].append(speed)
                sys.stderr.write(f"{size.name}, prompt {length}: turn {turn} of {repeats}\n")
            base = median(whole)
            rows.append(Row(size.name, "unsplit", length, base.ttft_s, base.tokens_per_s, 1, 1))
            for name in formats:
                mine = median(ours[name])
                rows.append(
                    Row(
                        size.name,
                        f"split, {name} ends",
                        length,
                        mine.ttft_s,
                        mine.tokens_per_s,
                        mine.ttft_s / base.ttft_s,
                        mine.tokens_per_s / base.tokens_per_s,
                    )
                )
        growth(generators["int4"], size.name, repeats)
        for generator in generators.values():
            generator.close()
    return rows


def growth(generator: TextGenerator, name: str, repeats: int) -> None:
    """Cost of one more token as the context grows, by part."""
    print(f"\n{name}, int4 ends: milliseconds per token after N positions\n")
    print("| N | head | link | trunk | tail | together |\n|---|---|---|---|---|---|")
    for context in CONTEXTS:
        prompt = torch.randint(2, 30000, (context,)).tolist()
        generator.generate(prompt, max_new_tokens=1)
        runs = []
        for _ in range(repeats):
            # The prompt is held by all three parts: only its last token and the new ones run.
            stats = generator.generate(prompt, max_new_tokens=17).stats
            runs.append(
                [
                    part / 17 * 1000
                    for part in (stats.head_s, stats.link_s, stats.trunk_s, stats.tail_s)
                ]
            )
        parts = [statistics.median(values) for values in zip(*runs, strict=True)]
        cells = " | ".join(f"{value:.2f}" for value in [*parts, sum(parts)])
        print(f"| {context} | {cells} |")


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=sorted(SIZES), action="append", help="default: both")
    parser.add_argument("--repeats", type=int, default=5, help="turns after the warm-up")
    parser.add_argument(
        "--json", type=pathlib.Path, metavar="FILE", help="also write figures there"
    )
    args = parser.parse_args()
    torch.set_num_threads(2)
    rows: list[Row] = []
    for name in args.size or sorted(SIZES, reverse=True):
        with tempfile.TemporaryDirectory() as folder:
            rows += compare(name, args.repeats, pathlib.Path(folder))
    print("\n| model | | prompt | first token, s | × unsplit | tokens/s | × unsplit |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row.model} | {row.ends} | {row.prompt} | {row.ttft_s:.3f} | {row.ttft_ratio:.2f} "
            f"| {row.tokens_per_s:.1f} | {row.speed_ratio:.2f} |"
        )
    if args.json is not None:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
