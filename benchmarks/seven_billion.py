"""A checkpoint of Llama-2-7B's real dimensions through export, serve and generate, once.

Random bf16 weights for all 32 layers are written to a temporary folder (13.5 GB of disk), exported
with int4 ends, served in bf16 and used for a short generation; then all is deleted. Prints
Markdown.

    python -m benchmarks.seven_billion --folder /a/disk/with/space
"""

from __future__ import annotations

import argparse
import pathlib
import re
import sys
import tempfile
import time

import torch

from benchmarks.models import LLAMA_2_7B, write_checkpoint
from benchmarks.processes import measure
from edge_runtime import RuntimeSettings, TextGenerator
from tests.servers import TrunkServer

PROMPT_TOKENS = 34
NEW_TOKENS = 16


def peak_rss(pid: int | str) -> int:
    """The most resident memory that a running process had, in bytes."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


def run(folder: pathlib.Path) -> None:
    """All steps, printing as it goes."""
    print("| step | seconds | peak RSS | |\n|---|---|---|---|")
    begin = time.perf_counter()
    if not (folder / "model").exists():
        write_checkpoint(LLAMA_2_7B, folder / "model", dtype=torch.bfloat16)
    size = sum(path.stat().st_size for path in (folder / "model").iterdir())
    print(f"| make | {time.perf_counter() - begin:.0f} | | {size / 1e9:.1f} GB checkpoint |")

    command = (
        "export",
        str(folder / "model"),
        "--out",
        str(folder / "bundle"),
        "--weights",
        "int4",
    )
    cost = measure(sys.executable, "-m", "lambda_split.cli", *command, "--quiet")
    size = sum(path.stat().st_size for path in (folder / "bundle").iterdir())
    print(
        f"| export, int4 | {cost.seconds:.0f} | {cost.peak_rss / 1e9:.2f} GB "
        f"| {size / 1e6:.0f} MB bundle |"
    )

    begin = time.perf_counter()
    server = TrunkServer(str(folder / "model"), "--dtype", "bfloat16", "--threads", "2")
    try:
        server.start()
        ready = time.perf_counter() - begin
        with TextGenerator.open(
            folder / "bundle", server.url, runtime=RuntimeSettings(threads=2)
        ) as generator:
            prompt = list(range(3, 3 + PROMPT_TOKENS))
            stats = generator.generate(prompt, max_new_tokens=NEW_TOKENS).stats
        print(f"| serve, bf16 | {ready:.0f} to ready | {peak_rss(server.pid) / 1e9:.2f} GB | |")
    finally:
        server.close()
    print(
        f"| generate {NEW_TOKENS} | {stats.total_s:.1f} | "
        f"| {stats.tokens_per_s:.2f} tokens/s, first token after {stats.ttft_s:.1f} s |"
    )
    print(f"\n{stats.summary()}")


def main() -> None:
    """Parse arguments and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=pathlib.Path, help="where 15 GB may be written")
    parser.add_argument("--keep", type=pathlib.Path, help="a folder to use, and use again, instead")
    args = parser.parse_args()
    if args.keep is not None:
        run(args.keep)
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        run(pathlib.Path(folder))


if __name__ == "__main__":
    main()
