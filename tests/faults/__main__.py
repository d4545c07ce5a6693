"""Do to a trunk service what the world does to it, for as long as you like.

python -m tests.faults                                    each fault for a minute
python -m tests.faults --only flood --minutes 10          one of them, longer
"""

from __future__ import annotations

import argparse
import logging
import pathlib
import sys
import tempfile

from tests.faults.ground import make_ground
from tests.faults.report import header
from tests.faults.scenarios import SCENARIOS, NotPossible, Options


def main() -> int:
    """Run the scenarios; 1 where one did harm, 2 where time or memory were only too much."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=1.0, help="of each fault (%(default)s)")
    parser.add_argument("--clients", type=int, default=20, help="honest devices (%(default)s)")
    parser.add_argument("--attackers", type=int, default=16, help="(%(default)s)")
    parser.add_argument("--only", action="append", choices=SCENARIOS, help="repeatable")
    parser.add_argument("--kills", type=int, default=50, help="of the server (%(default)s)")
    parser.add_argument("--kv-memory", help="of the pool that is full (80 kB for each client)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    args = parser.parse_args()
    # A device says each time that it lost its server: here that is what is meant to happen.
    logging.getLogger("edge_runtime").setLevel(logging.ERROR)
    options = Options(
        seconds=args.minutes * 60,
        clients=args.clients,
        seed=args.seed,
        kills=args.kills,
        kv_memory=args.kv_memory,
        attackers=args.attackers,
    )
    harm = excess = False
    with tempfile.TemporaryDirectory() as folder:
        ground = make_ground(pathlib.Path(folder), seed=args.seed)
        print(header(), flush=True)
        for name in args.only or SCENARIOS:
            try:
                report = SCENARIOS[name](ground, options)
            except NotPossible as reason:
                print(f"{name:<13}skipped: {reason}", flush=True)
                continue
            print(report.line(), flush=True)
            for text in (*report.harm()[:20], *report.excess()):
                print(f"    {text}", flush=True)
            harm |= bool(report.harm())
            excess |= bool(report.excess())
    return 1 if harm else 2 if excess else 0


if __name__ == "__main__":
    sys.exit(main())
