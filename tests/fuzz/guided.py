"""One target under atheris, in a process of its own: the fuzzer ends its process when it is done.

``python -m tests.fuzz.guided TARGET CORPUS SECONDS SEED`` is what ``python -m tests.fuzz`` starts.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

_HANGS_S = 5.0  # of computing, for one input
# The fuzzer's own limit ends what Python cannot. It goes by the clock on the wall, which goes on
# while the process is suspended.
_WALL_S = 1800


def main() -> None:
    """Fuzz until the time is up or an input breaks the target."""
    import atheris

    name, corpus, seconds, seed = sys.argv[1:]
    with atheris.instrument_imports(include=["lambda_split"], enable_loader_override=False):
        # Instrumented while they are imported.
        import lambda_split.wire.codecs
        import lambda_split.wire.handshake
        import lambda_split.wire.pictures.device_session
        import lambda_split.wire.pictures.handshake
        import lambda_split.wire.pictures.server_session
        import lambda_split.wire.session
        import lambda_split.wire.tensor_codecs  # noqa: F401
    from tests.fuzz.targets import TARGETS

    options = [
        f"-max_total_time={seconds}",
        f"-seed={seed}",
        "-max_len=20000",  # beyond the longest control message
        f"-timeout={_WALL_S}",
        "-rss_limit_mb=1024",
        "-malloc_limit_mb=64",  # no length that is merely announced may be allocated
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, corpus], _limited(TARGETS[name]))
    atheris.Fuzz()


def _limited(target: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """The target, which fails where it computes for too long."""

    def hangs(*_: object) -> None:
        raise TimeoutError(f"an input took more than {_HANGS_S} s")

    def run(data: bytes) -> None:
        signal.setitimer(signal.ITIMER_PROF, _HANGS_S)
        try:
            target(data)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)

    signal.signal(signal.SIGPROF, hangs)
    return run


if __name__ == "__main__":
    main()
