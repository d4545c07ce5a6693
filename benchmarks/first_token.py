"""Time to the first token of long prompts over a slow link, against the slowest stage.

A prompt goes through five stages: head, upload, trunk, download, tail. The device sends pieces as
its head finishes them, so the stages work side by side, and the time to the first token should come
near the slowest one. It is compared with the same stages one after another: all of the head, then
all of the upload, and so on. Both orders take turns; medians count. Prints Markdown.

    python -m benchmarks.first_token
    python -m benchmarks.first_token --size small --prompt 128 --turns 1     a quick try

Device and trunk get one thread each, the emulated link a process of its own. Head, trunk and tail
are timed where they run, in the pipelined turn itself; up- and download are the turn's bytes at the
link's rate. The round-trip time belongs to no stage.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import get_args

import numpy as np

from bench.link import emulated_link
from bench.link_settings import LinkSettings
from benchmarks.models import SIZES, write_checkpoint
from edge_runtime import RuntimeSettings, TextGenerator
from edge_runtime.connection import Endpoint
from edge_runtime.graphs import load_head, load_tail
from edge_runtime.replay import ReplayingTrunk
from edge_runtime.retry import RetryPolicy
from edge_runtime.stats import GenerationStats, Meter
from export import ExportSettings, QuietProgress, export_bundle
from lambda_split.bundle import Bundle, WeightFormat, load_bundle
from lambda_split.split import Split
from lambda_split.wire.frames import Codec
from tests.servers import serving

LINK = "rtt=60ms,up=20Mbit,down=50Mbit"
PROMPT_LENGTHS = (512, 2048)
HEAD_TOKENS = 128  # how many the head and tail take at once in the plain order


@dataclass(frozen=True)
class Turn:
    """Seconds of one prompt: to the first token, and in each stage."""

    ttft: float
    head: float
    up: float
    trunk: float
    down: float
    tail: float

    @property
    def slowest(self) -> float:
        """The stage that nothing can be faster than."""
        return max(self.head, self.up, self.trunk, self.down, self.tail)


def _turn(ttft: float, stats: GenerationStats, link: LinkSettings) -> Turn:
    return Turn(
        ttft=ttft,
        head=stats.head_s,
        up=stats.bytes_up / link.up,
        trunk=stats.trunk_s,
        down=stats.bytes_down / link.down,
        tail=stats.tail_s,
    )


def pipelined(generator: TextGenerator, prompt: Sequence[int], link: LinkSettings) -> Turn:
    """A generation as everyone runs it, from empty caches."""
    generator.generate([1], max_new_tokens=1)  # another first token: nothing of the prompt is held
    result = generator.generate(prompt, max_new_tokens=1)
    return _turn(result.stats.ttft_s, result.stats, link)


class PlainOrder:
    """The same parts, each of which begins when the one before has done everything.

    The prompt goes in as few frames as the server takes, each of which is answered before the next
    one is sent: the trunk does not work while something is on the link.
    """

    def __init__(self, bundle: Bundle, url: str, threads: int, max_positions: int) -> None:
        settings = RuntimeSettings(threads=threads)
        policy = RetryPolicy()
        self._meter = Meter()
        self._trunk = ReplayingTrunk(
            Endpoint(url, None, policy.connect_timeout_s, policy.reply_timeout_s),
            bundle.manifest,
            self._meter,
            codec=Codec.FP16,
            max_positions=max_positions,
            chunk_tokens=max_positions,
            retry=policy,
        )
        self._head, self._tail = load_head(bundle, settings), load_tail(bundle, settings)
        self._head_cache = self._head.new_cache(max_positions)
        self._tail_cache = self._tail.new_cache(max_positions)
        self._trunk.connect()

    def run(self, prompt: Sequence[int], link: LinkSettings) -> Turn:
        """One prompt to its first token's logits."""
        before = self._meter.reading()
        begin = time.perf_counter()
        ids = np.asarray(prompt, dtype=np.int64)
        parts = []
        for start in range(0, len(ids), HEAD_TOKENS):
            with self._meter.head():
                part = self._head.run(ids[start : start + HEAD_TOKENS], start, self._head_cache)
            parts.append(part.copy())  # the next run overwrites it
        hidden = np.concatenate(parts)  # (T, W)
        replies = []
        for start in range(0, len(ids), self._trunk.chunk_tokens):
            rows = hidden[start : start + self._trunk.chunk_tokens]
            self._trunk.send(start, rows, reply=len(rows))
            replies.append(self._trunk.receive())
        output = np.concatenate(replies)  # (T, W)
        for start in range(0, len(ids), HEAD_TOKENS):
            rows = output[start : start + HEAD_TOKENS]
            wanted = [len(rows) - 1] if start + len(rows) == len(ids) else []
            with self._meter.tail():
                logits = self._tail.run(rows, start, self._tail_cache, wanted)
        int(logits.argmax())
        ttft = time.perf_counter() - begin
        return _turn(ttft, self._meter.since(before), link)

    def close(self) -> None:
        """End the session."""
        self._trunk.close()


def _median(turns: Sequence[Turn]) -> Turn:
    return Turn(*(statistics.median(values) for values in zip(*map(astuple, turns), strict=True)))


def _row(prompt: int, order: str, turns: Sequence[Turn]) -> str:
    middle = _median(turns)
    ratio = statistics.median(turn.ttft / turn.slowest for turn in turns)
    seconds = [middle.head, middle.up, middle.trunk, middle.down, middle.tail]
    cells = " | ".join(f"{value:.2f}" for value in [*seconds, middle.ttft])
    return f"| {prompt} | {order} | {cells} | {ratio:.2f} |"


def measure(args: argparse.Namespace, folder: pathlib.Path) -> list[str]:
    """Run all turns; the table's rows."""
    size, link = SIZES[args.size], LinkSettings.parse(args.link)
    write_checkpoint(size, folder / "model")
    settings = ExportSettings(split=Split(1, 1), weights=args.weights)
    export_bundle(str(folder / "model"), folder / "bundle", settings, progress=QuietProgress())
    bundle = load_bundle(folder / "bundle")
    positions = max(args.prompt) + 1
    rows = []
    serve = (str(folder / "model"), "--dtype", args.dtype, "--threads", "1")
    random = np.random.default_rng(0)
    with serving(*serve) as server:
        address = urllib.parse.urlsplit(server.url)
        to = (address.hostname or "", address.port or 0)
        with emulated_link(to, args.link) as emulated:
            url = f"ws://{emulated.address[0]}:{emulated.address[1]}"
            plain = PlainOrder(bundle, url, 1, positions)
            generator = TextGenerator.open(
                bundle, url, max_positions=positions, runtime=RuntimeSettings(threads=1)
            )
            for length in args.prompt:
                prompt = random.integers(2, size.vocab, length).tolist()
                turns: dict[str, list[Turn]] = {"one after another": [], "pipelined": []}
                for number in range(args.turns + 1):
                    once = [plain.run(prompt, link), pipelined(generator, prompt, link)]
                    if number:  # the first turn warms caches and thread pools up
                        for found, turn in zip(turns.values(), once, strict=True):
                            found.append(turn)
                    sys.stderr.write(f"prompt {length}: turn {number} of {args.turns}\n")
                rows += [_row(length, order, found) for order, found in turns.items()]
            generator.close()
            plain.close()
    return rows


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=sorted(SIZES), default="big", help="(%(default)s)")
    parser.add_argument(
        "--weights",
        choices=get_args(WeightFormat),
        default="fp32",
        help="of head and tail (%(default)s)",
    )
    parser.add_argument("--dtype", default="float32", help="of the trunk (%(default)s)")
    parser.add_argument("--link", default=LINK, help="as bench.link has it (%(default)s)")
    parser.add_argument(
        "--prompt", type=int, action="append", metavar="N", help="tokens (default: 512 and 2048)"
    )
    parser.add_argument("--turns", type=int, default=5, help="after the warm-up (%(default)s)")
    args = parser.parse_args()
    args.prompt = args.prompt or list(PROMPT_LENGTHS)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(args, pathlib.Path(folder))
    print(
        f"{SIZES[args.size].name}, {args.weights} ends, {args.dtype} trunk, {args.link}; seconds\n"
    )
    print("| prompt | order | head | up | trunk | down | tail | first token | × slowest stage |")
    print("|---|---|---|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
