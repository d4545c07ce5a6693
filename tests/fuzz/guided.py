"""One target under atheris, in a process of its own: the fuzzer ends its process when it is done.

``python -m tests.fuzz.guided TARGET CORPUS SECONDS SEED`` is what ``python -m tests.fuzz`` starts.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Fuzz until the time is up or an input breaks the target."""
    import atheris

    name, corpus, seconds, seed = sys.argv[1:]
    with atheris.instrument_imports(include=["lambda_split"], enable_loader_override=False):
        import lambda_split.wire.codecs
        import lambda_split.wire.handshake
        import lambda_split.wire.session  # noqa: F401  # instrumented while it is imported
    from tests.fuzz.targets import TARGETS

    options = [
        f"-max_total_time={seconds}",
        f"-seed={seed}",
        "-max_len=20000",  # beyond the longest control message
        "-timeout=5",  # seconds for one input: beyond, it hangs
        "-rss_limit_mb=1024",
        "-malloc_limit_mb=64",  # no length that is merely announced may be allocated
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, corpus], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
