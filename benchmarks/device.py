"""What the device side costs: install size, import time, memory with a 7B-width head and tail.

Installs the base package into a fresh environment, then runs a generation in a process that has
only that, against a trunk of one layer, and compares its peak memory with the bound
80 MB + 1.3 × weight files + KV cache. Prints Markdown.

    python -m benchmarks.device
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import venv

from benchmarks.models import LLAMA_2_7B, write_checkpoint
from export import ExportSettings, QuietProgress, export_bundle
from lambda_split.split import Split
from tests.servers import serving

ROOT = pathlib.Path(__file__).parents[1]
POSITIONS = 512

_GENERATE = """
import json, pathlib, re, sys
from edge_runtime import RuntimeSettings, TextGenerator
bundle, url, positions = sys.argv[1], sys.argv[2], int(sys.argv[3])
def memory(field):
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(field + r":\\s+(\\d+) kB", status)[1]) * 1024
with TextGenerator.open(bundle, url, max_positions=positions,
                        runtime=RuntimeSettings(threads=2)) as generator:
    generator.generate(list(range(3, 131)), max_new_tokens=32)
    after = memory("VmRSS")
print(json.dumps({"rss": after, "peak": memory("VmHWM")}))
"""
_IMPORT = (
    "import time; t = time.perf_counter(); import edge_runtime; print(time.perf_counter() - t)"
)


def folder_bytes(folder: pathlib.Path) -> int:
    """Size of all files below."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Run the benchmark and print its table."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        venv.create(folder / "venv", with_pip=True)
        python = folder / "venv" / "bin" / "python"
        empty = folder_bytes(folder / "venv")
        subprocess.run(
            [
                *(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
                *("--constraint", str(ROOT / "constraints.txt"), str(ROOT)),
            ],
            check=True,
        )
        installed = folder_bytes(folder / "venv")
        seconds = []
        for _ in range(7):
            done = subprocess.run(
                [python, "-c", _IMPORT], check=True, capture_output=True, text=True, cwd=folder
            )
            seconds.append(float(done.stdout))
        print("| | |\n|---|---|")
        print(f"| base install | {(installed - empty) / 1e6:.0f} MB |")
        print(f"| with pip and the environment | {installed / 1e6:.0f} MB |")
        print(f"| `import edge_runtime`, median of 7 | {statistics.median(seconds):.2f} s |")
        write_checkpoint(LLAMA_2_7B.with_layers(3), folder / "model")
        settings = ExportSettings(split=Split(1, 1), weights="int4")
        export_bundle(str(folder / "model"), folder / "bundle", settings, progress=QuietProgress())
        weights = (folder / "bundle" / "weights.data").stat().st_size
        with serving(str(folder / "model"), "--dtype", "bfloat16", "--threads", "2") as server:
            done = subprocess.run(
                [python, "-c", _GENERATE, folder / "bundle", server.url, str(POSITIONS)],
                check=True,
                capture_output=True,
                text=True,
                cwd=folder,
            )
        found = json.loads(done.stdout)
        kv = 2 * 2 * POSITIONS * LLAMA_2_7B.width * 4  # two layers, keys and values, float32
        bound = 80e6 + 1.3 * weights + kv
        print(f"| weight files, int4, 7B width, 1 + 1 layers | {weights / 1e6:.0f} MB |")
        print(f"| RSS after 128 + 32 tokens | {found['rss'] / 1e6:.0f} MB |")
        print(f"| peak RSS | {found['peak'] / 1e6:.0f} MB |")
        print(f"| 80 MB + 1.3 × weight files + KV | {bound / 1e6:.0f} MB |")


if __name__ == "__main__":
    sys.exit(main())
