"""Exactness under load: many real devices at once, and every output equal to its solo run.

Clients with random prompts, lengths and splits generate, edit their prompts, leave streams, lose
their connections and open sessions anew. Everything is fp32; each output is compared with the whole
model's, run alone and unsplit. A difference counts as rounding only where every token lies within
1e-4 of what the reference chooses there; such cases are counted and shown.

    python -m tests.load                               32 clients, 2,000 generations
    python -m tests.load --chunk 1 --generations 300
    python -m tests.load --kv-memory 450KB             too small for all: evictions all the time

Exits with 1 where an output differs or a client failed.
"""

from __future__ import annotations

import argparse
import pathlib
import shlex
import sys
import tempfile

from tests.load.running import LoadSettings, prepare, run_load

_VARIANTS = "llama,mistral,gemma2"


def main() -> int:
    """Parse arguments, run, print."""
    defaults = LoadSettings()
    parser = argparse.ArgumentParser(
        prog="python -m tests.load",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--clients", type=int, default=defaults.clients, metavar="N")
    parser.add_argument("--generations", type=int, default=defaults.generations, metavar="N")
    parser.add_argument(
        "--chunk",
        type=int,
        default=defaults.chunk_tokens,
        metavar="TOKENS",
        help="prompts go in pieces of that many (%(default)s)",
    )
    parser.add_argument(
        "--kv-memory", metavar="SIZE", help="as for 'lambda-split serve' (default: its own)"
    )
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument(
        "--variants",
        default=_VARIANTS,
        help="models of tests/tiny_models.py, served one after the other (%(default)s)",
    )
    parser.add_argument("--longest-prompt", type=int, default=defaults.longest_prompt)
    parser.add_argument("--new-tokens", type=int, default=defaults.new_tokens)
    parser.add_argument("--families", type=int, default=defaults.families)
    parser.add_argument(
        "--cut-share",
        type=float,
        default=defaults.cut_share,
        help="share of the clients whose connections are cut (%(default)s)",
    )
    parser.add_argument(
        "--serve", default="", metavar="ARGUMENTS", help="further ones for 'lambda-split serve'"
    )
    parser.add_argument(
        "--within",
        type=float,
        default=defaults.within_s,
        metavar="SECONDS",
        help="a model's clients must be done by then (%(default)s)",
    )
    args = parser.parse_args()
    settings = LoadSettings(
        clients=args.clients,
        generations=args.generations,
        chunk_tokens=args.chunk,
        kv_memory=args.kv_memory,
        seed=args.seed,
        longest_prompt=args.longest_prompt,
        new_tokens=args.new_tokens,
        families=args.families,
        cut_share=args.cut_share,
        serve_arguments=tuple(shlex.split(args.serve)),
        within_s=args.within,
    )
    with tempfile.TemporaryDirectory() as folder:
        models = [prepare(variant, pathlib.Path(folder)) for variant in args.variants.split(",")]
        report = run_load(models, settings, sys.stderr.write)
    print(report.summary())
    return 0 if report.is_exact else 1


if __name__ == "__main__":
    sys.exit(main())
