"""How much a long prompt holds up others' decoding, over real sockets.

Eight sessions decode as fast as the server answers. Their p99 time per token is measured first
undisturbed, then while another session's prompt of 4,000 tokens comes in, for two servers: one
with its usual step budget, and one whose budget is so large that the prompt runs in one piece. The
servers take turns; medians of the turns are compared. Width 1024, 6 trunk layers, random weights;
the devices have no model of their own, so that what is measured is the server. Prints Markdown.

    python -m benchmarks.fairness
    python -m benchmarks.fairness --size small --prompt 1000 --seconds 3 --turns 1
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import pathlib
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Coroutine, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.light_device import LightDevice, hello_for
from benchmarks.models import SIZES, Size, write_checkpoint
from lambda_split.wire.messages import Hello
from tests.servers import serving

MIDDLE = Size("width 1024 × 6 layers", 1024, 6, 16, 2752, vocab=256)
DECODING = 8
LENGTHS = range(64, 65 + 7 * 48, 48)  # prompts of the sessions that decode
ROOM = 512  # positions that each may decode before it starts over
ONE_PIECE = "--step-tokens 100000 --prompt-slowdown 1000000 --max-chunk-tokens 4096"


@dataclass(frozen=True)
class Sample:
    """One token: when it was sent and when its answer had come, in seconds."""

    began: float
    ended: float


@dataclass(frozen=True)
class Turn:
    """What one turn found; times of a token in seconds.

    Attributes:
        quiet_p50: Undisturbed, the median.
        quiet_p99: Undisturbed.
        busy_p99: While the prompt ran.
        longest: The longest while the prompt ran.
        prompt_s: Seconds that the prompt took.
        tokens: Tokens decoded while it ran.
    """

    quiet_p50: float
    quiet_p99: float
    busy_p99: float
    longest: float
    prompt_s: float
    tokens: int


@dataclass(frozen=True)
class Row:
    """One line of the table: a server's medians over its turns, milliseconds and seconds."""

    server: str
    quiet_p50_ms: float
    quiet_p99_ms: float
    busy_p99_ms: float
    ratio: float
    longest_ms: float
    prompt_s: float
    tokens: float


async def decode(device: LightDevice, samples: list[Sample]) -> None:
    """Send one token after the other until canceled."""
    start = device.length
    while True:
        began = time.perf_counter()
        await device.token()
        samples.append(Sample(began, time.perf_counter()))
        if device.length == start + ROOM:
            device.cut(start)


async def one_turn(url: str, hellos: tuple[Hello, Hello], prompt: int, quiet_s: float) -> Turn:
    """Undisturbed decoding, then decoding beside a prompt.

    Args:
        url: The server's.
        hellos: Of the sessions that decode, and of the one with the prompt.
        prompt: Its tokens.
        quiet_s: Seconds of undisturbed decoding.
    """
    samples: list[Sample] = []
    async with contextlib.AsyncExitStack() as lifetime:
        devices = [
            await lifetime.enter_async_context(LightDevice.connected(url, hellos[0]))
            for _ in range(DECODING)
        ]
        for device, length in zip(devices, LENGTHS, strict=True):
            await device.prompt(length)
        newcomer = await lifetime.enter_async_context(LightDevice.connected(url, hellos[1]))
        decoders = [asyncio.ensure_future(decode(device, samples)) for device in devices]
        try:
            await _unless_failed(asyncio.sleep(1.0), decoders)  # all of them are under way
            quiet_from = time.perf_counter()
            await _unless_failed(asyncio.sleep(quiet_s), decoders)
            busy_from = time.perf_counter()
            await _unless_failed(newcomer.prompt(prompt), decoders)
            busy_to = time.perf_counter()
            # Tokens that the prompt held up may be answered after it.
            await _unless_failed(asyncio.sleep(1.0), decoders)
        finally:
            for decoder in decoders:
                decoder.cancel()
            await asyncio.gather(*decoders, return_exceptions=True)
    quiet = [s.ended - s.began for s in samples if s.began >= quiet_from and s.ended <= busy_from]
    busy = [s.ended - s.began for s in samples if s.ended > busy_from and s.began < busy_to]
    return Turn(
        quiet_p50=float(np.percentile(quiet, 50)),
        quiet_p99=float(np.percentile(quiet, 99)),
        busy_p99=float(np.percentile(busy, 99)),
        longest=max(busy),
        prompt_s=busy_to - busy_from,
        tokens=len(busy),
    )


async def _unless_failed(
    work: Coroutine[Any, Any, None], decoders: Sequence[asyncio.Future[None]]
) -> None:
    """Wait for something; a session that stops decoding meanwhile is an error."""
    task = asyncio.create_task(work)
    try:
        await asyncio.wait({task, *decoders}, return_when=asyncio.FIRST_COMPLETED)
        for decoder in decoders:
            if decoder.done():
                decoder.result()
        await task
    finally:
        task.cancel()


def summarize(server: str, turns: Sequence[Turn]) -> Row:
    """Medians over the turns."""

    def median(name: str) -> float:
        return statistics.median(getattr(turn, name) for turn in turns)

    return Row(
        server,
        median("quiet_p50") * 1000,
        median("quiet_p99") * 1000,
        median("busy_p99") * 1000,
        median("busy_p99") / median("quiet_p99"),
        median("longest") * 1000,
        median("prompt_s"),
        median("tokens"),
    )


def run(args: argparse.Namespace, folder: pathlib.Path) -> list[Row]:
    """Measure both servers, turn by turn."""
    size = MIDDLE if args.size == "middle" else SIZES[args.size]
    write_checkpoint(size, folder)
    hellos = (
        hello_for(folder, max_positions=LENGTHS[-1] + ROOM),
        hello_for(folder, max_positions=args.prompt),
    )
    common = (
        *(str(folder), "--head-layers", "0", "--tail-layers", "0", "--dtype", args.dtype),
        *("--threads", str(args.threads), "--log-level", "warning"),
    )
    kinds = {"in pieces": shlex.split(args.serve)}
    if not args.skip_one_piece:
        kinds["in one piece"] = shlex.split(args.one_piece)
    turns: dict[str, list[Turn]] = {kind: [] for kind in kinds}
    with contextlib.ExitStack() as lifetime:
        servers = {
            kind: lifetime.enter_context(serving(*common, *more)) for kind, more in kinds.items()
        }
        for number in range(args.turns):
            for kind, server in servers.items():
                turn = asyncio.run(one_turn(server.url, hellos, args.prompt, args.seconds))
                turns[kind].append(turn)
                sys.stderr.write(f"turn {number + 1} of {args.turns}, {kind}: {turn}\n")
    return [summarize(kind, found) for kind, found in turns.items()]


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=("middle", *SIZES), default="middle")
    parser.add_argument("--dtype", default="float32", help="of the trunk (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of the server (%(default)s)")
    parser.add_argument("--prompt", type=int, default=4000, metavar="TOKENS")
    parser.add_argument(
        "--seconds", type=float, default=15.0, help="of undisturbed decoding (%(default)s)"
    )
    parser.add_argument("--turns", type=int, default=5, help="of each server (%(default)s)")
    parser.add_argument(
        "--serve", default="", metavar="ARGUMENTS", help="further ones of the first server"
    )
    parser.add_argument(
        "--one-piece",
        default=ONE_PIECE,
        metavar="ARGUMENTS",
        help="further ones of the second server (%(default)s)",
    )
    parser.add_argument("--skip-one-piece", action="store_true", help="measure the first only")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="also write figures")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = run(args, pathlib.Path(folder))
    print(
        "| prompt runs | undisturbed p50, ms | p99, ms | beside the prompt p99, ms | × undisturbed "
        "| longest, ms | prompt, s | tokens meanwhile |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row.server} | {row.quiet_p50_ms:.1f} | {row.quiet_p99_ms:.1f} "
            f"| {row.busy_p99_ms:.1f} | {row.ratio:.2f} | {row.longest_ms:.0f} "
            f"| {row.prompt_s:.1f} | {row.tokens:.0f} |"
        )
    if args.json is not None:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
