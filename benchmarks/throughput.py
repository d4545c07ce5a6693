"""Decode tokens per second of the trunk with several sessions, against one session's, in one run.

Width 2048, 6 trunk layers, random weights; sessions of mixed lengths from 17 to 400 positions; each
step gives every session one token. Straight on the engine, without sockets. Numbers of sessions
and dtypes take turns and medians are compared, so that a noisy machine disturbs all alike. Prints
Markdown.

    python -m benchmarks.throughput --plot docs/images/throughput.png
    python -m benchmarks.throughput --size small --turns 2     a quick look
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from benchmarks.trunks import Decoding
    from cloud.engine import Engine

COUNTS = (1, 4, 8, 16, 32)
SHORTEST, LONGEST = 17, 400
HEADINGS = "tokens/s | step, ms | × one | × one, not packed"
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        dtype: Of the weights.
        sessions: How many decode at a time.
        tokens_per_s: Of all sessions together, the median of the turns.
        step_ms: Milliseconds of one step, the median.
        times_one: ``tokens_per_s`` over that of one session.
        times_plain: The same over one session whose weights are not packed for the processor.
    """

    dtype: str
    sessions: int
    tokens_per_s: float
    step_ms: float
    times_one: float
    times_plain: float


@dataclass(frozen=True)
class Contest:
    """An engine and its groups of sessions, by their number."""

    engine: Engine
    groups: dict[int, list[Decoding]]

    def seconds(self, count: int, steps: int) -> float:
        """How long so many steps of a group take."""
        from benchmarks.trunks import decode_step

        begin = time.perf_counter()
        for _ in range(steps):
            decode_step(self.engine, self.groups[count])
        return time.perf_counter() - begin


def prepare(
    size_name: str, dtype: torch.dtype, room: int, counts: Sequence[int], *, packed: bool
) -> Contest:
    """A trunk of random weights in memory, and its sessions with their prompts run."""
    import torch

    from benchmarks.models import SIZES
    from benchmarks.trunks import make_engine, open_at, random_llama, spread

    size = replace(SIZES[size_name], vocab=1)  # embedding and LM head are not needed
    layers = range(size.layers)
    torch.manual_seed(0)
    model = random_llama(size, dtype=dtype, device=torch.device("cpu"))
    lengths = {count: spread(count, SHORTEST, LONGEST) for count in counts}
    engine = make_engine(
        model,
        layers,
        sessions=sum(counts),
        positions=sum(length + room for group in lengths.values() for length in group),
        packed=packed,
    )
    groups = {
        count: [open_at(engine, layers, length, room=room) for length in group]
        for count, group in lengths.items()
    }
    return Contest(engine, groups)


def measure(size_name: str, turns: int, steps: int) -> list[Row]:
    """All of it."""
    import torch

    room = (turns + 1) * steps
    contests = {
        name: prepare(size_name, getattr(torch, dtype), room, COUNTS, packed=True)
        for name, dtype in DTYPES.items()
    }
    plain = {
        name: prepare(size_name, getattr(torch, dtype), room, (1,), packed=False)
        for name, dtype in DTYPES.items()
    }
    seconds: dict[tuple[str, int], list[float]] = {}
    for turn in range(turns + 1):
        for count in COUNTS:
            for name, contest in contests.items():
                taken = contest.seconds(count, steps) / steps
                if turn:  # the first turn warms up
                    seconds.setdefault((name, count), []).append(taken)
        for name, contest in plain.items():
            taken = contest.seconds(1, steps) / steps
            if turn:
                seconds.setdefault((name, 0), []).append(taken)
        sys.stderr.write(f"turn {turn} of {turns}\n")
    rows = []
    for name in DTYPES:
        one, unpacked = (1 / statistics.median(seconds[name, key]) for key in (1, 0))
        for count in COUNTS:
            step = statistics.median(seconds[name, count])
            speed = count / step
            rows.append(Row(name, count, speed, step * 1000, speed / one, speed / unpacked))
    return rows


def draw(rows: list[Row], path: pathlib.Path, title: str) -> None:
    """Tokens per second over the number of sessions."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.0))
    for name in DTYPES:
        own = [row for row in rows if row.dtype == name]
        counts = [row.sessions for row in own]
        (line,) = axes.plot(counts, [row.tokens_per_s for row in own], marker="o", label=name)
        alone = own[0].tokens_per_s
        axes.plot(
            counts,
            [alone] * len(counts),
            color=line.get_color(),
            linestyle=":",
            label=f"{name}, one session",
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(COUNTS, [str(count) for count in COUNTS])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("sessions that decode")
    axes.set_ylabel("tokens/s, all together")
    axes.set_title(title)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="big", help="of benchmarks.models.SIZES (%(default)s)")
    parser.add_argument("--turns", type=int, default=7, help="after the warm-up (%(default)s)")
    parser.add_argument("--steps", type=int, default=4, help="of each turn (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of torch (%(default)s)")
    parser.add_argument("--plot", type=pathlib.Path, metavar="FILE", help="draw a PNG there")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="also write figures")
    args = parser.parse_args()
    # As the server does, and like it before torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the server has it
    import torch

    from benchmarks.models import SIZES

    torch.set_num_threads(args.threads)
    rows = measure(args.size, args.turns, args.steps)
    print("| sessions | " + " | ".join(f"{n}, {HEADINGS}" for n in DTYPES) + " |")
    print("|---|" + "---|---|---|---|" * len(DTYPES))
    for count in COUNTS:
        own = [row for row in rows if row.sessions == count]
        cells = [
            f"{r.tokens_per_s:.1f} | {r.step_ms:.1f} | {r.times_one:.2f} | {r.times_plain:.2f}"
            for r in own
        ]
        print(f"| {count} | " + " | ".join(cells) + " |")
    if args.json is not None:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    if args.plot is not None:
        draw(rows, args.plot, f"One trunk, {SIZES[args.size].name}")


if __name__ == "__main__":
    main()
