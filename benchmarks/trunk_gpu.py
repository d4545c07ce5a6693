"""The trunk on a GPU: Llama-2-7B's dimensions, random fp16 weights made on the card.

Prints three Markdown tables. How long the attention of one layer's decode step takes with what the
installed PyTorch offers for sessions of different lengths. What ``transformers.generate()`` of the
whole model does. And the trunk's decode step (split (1, 1)) for several numbers of sessions,
against its floor: the bytes of its weights over the bandwidth of a copy on the same card.

    python -m benchmarks.trunk_gpu
    python -m benchmarks.trunk_gpu --device cpu --size small --sessions 1,4    does it work?
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from transformers import LlamaForCausalLM

from benchmarks.models import LLAMA_2_7B, SIZES, Size
from benchmarks.paged_attention import CANDIDATES, make_pages, reference
from benchmarks.trunks import (
    decode_step,
    make_engine,
    open_at,
    random_llama,
    spread,
    trunk_bytes,
)

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Plan:
    """What is measured, and how.

    Attributes:
        size: The whole model's measures; the trunk is all layers but the first and the last.
        device: Where.
        dtype: Of weights and computation.
        sessions: Numbers of sessions, rising.
        shortest: Positions of the shortest session.
        longest: Of the longest; the others are evenly spread between them.
        repeats: Timed runs of each figure, of which the median counts.
        new_tokens: Of each ``generate()``.
        block_positions: Of the attention candidates' pages.
    """

    size: Size
    device: torch.device
    dtype: torch.dtype
    sessions: tuple[int, ...]
    shortest: int
    longest: int
    repeats: int
    new_tokens: int
    block_positions: int

    @property
    def trunk(self) -> range:
        """The trunk's layers."""
        return range(1, self.size.layers - 1)

    @property
    def position_bytes(self) -> int:
        """Keys and values of one position in the trunk."""
        return 2 * len(self.trunk) * self.size.width * self.dtype.itemsize


@dataclass(frozen=True)
class AttentionRow:
    """One candidate: microseconds for one layer, also as a CUDA graph; or why it cannot do so."""

    candidate: str
    sessions: int
    micros: float | None
    graph_micros: float | None
    worst_error: float | None
    trouble: str = ""


@dataclass(frozen=True)
class GenerateRow:
    """``generate()`` with one batch size."""

    batch: int
    tokens_per_s: float


@dataclass(frozen=True)
class StepRow:
    """The trunk's decode step.

    Attributes:
        sessions: How many.
        step_ms: The median.
        floor_ms: Weight bytes over copy bandwidth.
        with_kv_ms: The same with the bytes of the sessions' keys and values.
        tokens_per_s: Of all sessions.
    """

    sessions: int
    step_ms: float
    floor_ms: float
    with_kv_ms: float
    tokens_per_s: float


def seconds_of(work: Callable[[], object], plan: Plan, *, runs: int = 1) -> float:
    """Median seconds of one run; what the device still has to do is waited for.

    Args:
        work: What to time.
        plan: Where, and how often.
        runs: How many at a time, so that launches overlap as they do in a model.
    """
    for _ in range(3):
        work()
    found = []
    for _ in range(plan.repeats):
        _wait(plan.device)
        begin = time.perf_counter()
        for _ in range(runs):
            work()
        _wait(plan.device)
        found.append((time.perf_counter() - begin) / runs)
    return statistics.median(found)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def copy_bandwidth(plan: Plan) -> float:
    """Bytes per second of a copy within the device's memory, read and written ones together."""
    count = 2**31 if plan.device.type == "cuda" else 2**28  # far beyond any cache
    source = torch.zeros(count, dtype=torch.uint8, device=plan.device)
    target = torch.empty_like(source)
    return 2 * count / seconds_of(lambda: target.copy_(source), plan)


def attention_rows(plan: Plan) -> list[AttentionRow]:
    """Every candidate, with every number of sessions."""
    rows = []
    for sessions in plan.sessions:
        for name, (make, side_by_side) in CANDIDATES.items():
            pages = make_pages(
                spread(sessions, plan.shortest, plan.longest),
                heads=plan.size.heads,
                head_dim=plan.size.width // plan.size.heads,
                block_positions=plan.block_positions,
                dtype=plan.dtype,
                device=plan.device,
                scattered=not side_by_side,
            )
            sys.stderr.write(f"attention: {name}, {sessions} sessions\n")
            try:
                attend = make(pages)
                error = float((attend().float() - reference(pages)).abs().max())
                micros = seconds_of(attend, plan, runs=10) * 1e6
            except Exception as trouble:  # noqa: BLE001 - what a candidate cannot do is a result
                rows.append(AttentionRow(name, sessions, None, None, None, _shortly(trouble)))
                continue
            graph, why = None, ""
            if plan.device.type == "cuda":
                try:
                    graph = _graph_micros(attend, plan)
                except Exception as trouble:  # noqa: BLE001 - as above
                    why = _shortly(trouble)
            rows.append(AttentionRow(name, sessions, micros, graph, error, why))
    return rows


def _shortly(trouble: Exception) -> str:
    """The beginning of an error's message; PyTorch's go on for pages."""
    lines = str(trouble).strip().splitlines() or [type(trouble).__name__]
    return lines[0][:120]


def _graph_micros(attend: Callable[[], object], plan: Plan) -> float:
    """The same captured as a CUDA graph: what is left without launches."""
    graph = torch.cuda.CUDAGraph()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # warmed up beside, as capturing demands
        attend()
    torch.cuda.current_stream().wait_stream(side)
    with torch.cuda.graph(graph):
        attend()
    return seconds_of(graph.replay, plan, runs=10) * 1e6


def generate_rows(model: LlamaForCausalLM, plan: Plan) -> list[GenerateRow]:
    """Decode speed of the library's own loop, prompts of the sessions' mean length."""
    config: Any = model.config
    config._attn_implementation = "sdpa"  # noqa: SLF001 - how the library spells this setting
    length = spread(1, plan.shortest, plan.longest)[0]
    rows = []
    for batch in plan.sessions:
        sys.stderr.write(f"generate(): batch of {batch}\n")
        ids = torch.randint(plan.size.vocab, (batch, length), device=plan.device)

        def seconds(tokens: int, ids: torch.Tensor = ids) -> float:
            _wait(plan.device)
            begin = time.perf_counter()
            model.generate(ids, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
            _wait(plan.device)
            return time.perf_counter() - begin

        seconds(2)
        # What the prompt takes is taken off.
        decode = [seconds(plan.new_tokens + 1) - seconds(1) for _ in range(3)]
        rows.append(GenerateRow(batch, batch * plan.new_tokens / statistics.median(decode)))
    return rows


def step_rows(model: LlamaForCausalLM, plan: Plan, bandwidth: float) -> list[StepRow]:
    """The engine's decode step for every number of sessions."""
    room = plan.repeats + 3  # three warm up
    lengths = {count: spread(count, plan.shortest, plan.longest) for count in plan.sessions}
    engine = make_engine(
        model,
        plan.trunk,
        sessions=max(plan.sessions),
        positions=max(sum(group) + len(group) * room for group in lengths.values()),
    )
    weights = trunk_bytes(model, plan.trunk)
    rows = []
    for count, group in lengths.items():
        sys.stderr.write(f"trunk: {count} sessions\n")
        sessions = [open_at(engine, plan.trunk, length, room=room) for length in group]
        taken = seconds_of(lambda sessions=sessions: decode_step(engine, sessions), plan)
        read = weights + sum(each.length for each in sessions) * plan.position_bytes
        rows.append(
            StepRow(
                count,
                taken * 1000,
                weights / bandwidth * 1000,
                read / bandwidth * 1000,
                count / taken,
            )
        )
        for each in sessions:
            engine.close(each.session)
    return rows


def show(
    plan: Plan,
    bandwidth: float,
    attention: list[AttentionRow],
    generated: list[GenerateRow],
    steps: list[StepRow],
) -> None:
    """Print the tables."""
    name = torch.cuda.get_device_name(plan.device) if plan.device.type == "cuda" else "CPU"
    print(
        f"{name}, PyTorch {torch.__version__}, {plan.size.name}, "
        f"{str(plan.dtype).removeprefix('torch.')}; sessions of {plan.shortest} to {plan.longest} "
        f"positions; a copy moves {bandwidth / 1e9:.0f} GB/s\n"
    )
    if attention:
        print("| attention of one layer | sessions | µs | µs in a CUDA graph | largest error |")
        print("|---|---|---|---|---|")
        for row in attention:
            if row.micros is None:
                print(f"| {row.candidate} | {row.sessions} | cannot: {row.trouble} | | |")
                continue
            graph = row.trouble if row.graph_micros is None else f"{row.graph_micros:.1f}"
            print(
                f"| {row.candidate} | {row.sessions} | {row.micros:.1f} | {graph} "
                f"| {row.worst_error:.1e} |"
            )
        print()
    speeds = {row.batch: row.tokens_per_s for row in generated}
    print(
        f"| sessions | step of {len(plan.trunk)} layers, ms | floor, ms | × floor "
        "| floor with keys and values, ms | tokens/s | × one session | generate(), tokens/s "
        f"({plan.size.layers} layers, LM head) | × generate() |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for step in steps:
        peer = speeds.get(step.sessions)
        versus = "| | |" if peer is None else f"| {peer:.1f} | {step.tokens_per_s / peer:.2f} |"
        print(
            f"| {step.sessions} | {step.step_ms:.2f} | {step.floor_ms:.2f} "
            f"| {step.step_ms / step.floor_ms:.2f} | {step.with_kv_ms:.2f} "
            f"| {step.tokens_per_s:.1f} | {step.tokens_per_s / steps[0].tokens_per_s:.2f} {versus}"
        )


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", choices=("7b", *SIZES), default="7b")
    parser.add_argument("--dtype", choices=sorted(DTYPES), help="default: float16, CPU float32")
    parser.add_argument("--sessions", default="1,8,32,128", metavar="N,N,…")
    parser.add_argument("--shortest", type=int, default=17, metavar="POSITIONS")
    parser.add_argument("--longest", type=int, default=400, metavar="POSITIONS")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--new-tokens", type=int, default=64, help="of each generate()")
    parser.add_argument("--block-positions", type=int, default=256, help="of the candidates' pages")
    parser.add_argument("--skip-attention", action="store_true", help="no attention candidates")
    parser.add_argument("--skip-generate", action="store_true", help="no generate()")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="also write figures")
    args = parser.parse_args()
    device = torch.device(args.device)
    default_dtype = "float32" if device.type == "cpu" else "float16"
    plan = Plan(
        size=LLAMA_2_7B if args.size == "7b" else SIZES[args.size],
        device=device,
        dtype=DTYPES[args.dtype or default_dtype],
        sessions=tuple(sorted(int(count) for count in args.sessions.split(","))),
        shortest=args.shortest,
        longest=args.longest,
        repeats=args.repeats,
        new_tokens=args.new_tokens,
        block_positions=args.block_positions,
    )
    torch.manual_seed(0)
    with torch.inference_mode():
        bandwidth = copy_bandwidth(plan)
        attention = [] if args.skip_attention else attention_rows(plan)
    model = random_llama(plan.size, dtype=plan.dtype, device=plan.device)
    generated = [] if args.skip_generate else generate_rows(model, plan)
    steps = step_rows(model, plan, bandwidth)
    show(plan, bandwidth, attention, generated, steps)
    if args.json is not None:
        figures = {
            "copy_bytes_per_s": bandwidth,
            "attention": [asdict(row) for row in attention],
            "generate": [asdict(row) for row in generated],
            "steps": [asdict(row) for row in steps],
        }
        args.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
