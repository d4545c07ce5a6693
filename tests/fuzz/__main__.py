"""Fuzz what parses, guided by coverage; needs the extra "fuzz".

python -m tests.fuzz frames --minutes 10
python -m tests.fuzz all --minutes 2

An input that breaks a target is left in the working directory as crash-…, timeout-… or oom-…: keep
it in tests/fuzz/corpus/TARGET/, where the tests replay it, and mend what it broke.
"""

from __future__ import annotations

import argparse
import pathlib
import subprocess
import sys
import tempfile

from tests.fuzz.inputs import found, seeds
from tests.fuzz.targets import TARGETS


def main() -> int:
    """Fuzz one target or all, one after another; 1 where any broke."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", choices=(*TARGETS, "all"))
    parser.add_argument("--minutes", type=float, default=10.0, help="of each (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="(%(default)s)")
    args = parser.parse_args()
    names = list(TARGETS) if args.target == "all" else [args.target]
    broken = [name for name in names if not _fuzz(name, args.minutes * 60, args.seed)]
    print("broken: " + ", ".join(broken) if broken else "none broken")
    return 1 if broken else 0


def _fuzz(name: str, seconds: float, seed: int) -> bool:
    """Whether the target held."""
    print(f"--- {name}", flush=True)
    with tempfile.TemporaryDirectory() as corpus:
        for number, data in enumerate([*seeds(name), *found(name).values()]):
            (pathlib.Path(corpus) / str(number)).write_bytes(data)
        command = [sys.executable, "-m", "tests.fuzz.guided", name, corpus]
        command += [str(max(1, int(seconds))), str(seed)]
        return subprocess.run(command, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
