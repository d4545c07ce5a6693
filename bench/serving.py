"""The server that a case needs, in a process of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from bench.cases import Case
from bench.measuring import Server
from bench.settings import BenchSettings
from lambda_split.commands.processes import address_of, running, serving
from lambda_split.split import Split

__all__ = ["Service", "serve", "service_of"]

Service = Split | str  # a split's trunk, or one of the two below
NOTHING = "nothing"
CLOUD_ONLY = "cloud-only"


def service_of(case: Case) -> Service:
    """Which server a case needs: cases with the same one share it."""
    if case.split is not None:
        return case.split
    return NOTHING if case.link is None else CLOUD_ONLY


@contextlib.contextmanager
def serve(model: str, service: Service, settings: BenchSettings) -> Iterator[Server | None]:
    """Serve the model, or its trunk, inside a ``with`` block.

    Raises:
        ProcessFailed: the server could not start, and has said why on stderr.
    """
    options = ["--dtype", settings.dtype]
    if settings.threads is not None:
        options += ["--threads", str(settings.threads)]
    with contextlib.ExitStack() as stack:
        if isinstance(service, Split):
            options += ["--head-layers", str(service.head_layers)]
            options += ["--tail-layers", str(service.tail_layers)]
            process = stack.enter_context(serving(model, *options))
        elif service == CLOUD_ONLY:
            process = stack.enter_context(running("bench.cloud_service", model, *options))
        else:
            yield None
            return
        yield Server(address_of(process), process.pid)
