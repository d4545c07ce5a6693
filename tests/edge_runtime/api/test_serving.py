"""A server that is told to stop ends, whenever that is."""

from __future__ import annotations

import io
import signal

import pytest
import uvicorn

from edge_runtime.api.serving import listen, serve_app


async def application(_scope, receive, send) -> None:
    """Nothing but a life from start to end."""
    for phase in ("startup", "shutdown"):
        assert (await receive())["type"] == f"lifespan.{phase}"
        await send({"type": f"lifespan.{phase}.complete"})


@pytest.fixture(params=[signal.SIGTERM, signal.SIGINT], ids=["term", "int"])
def number(request):
    """A signal that does no harm to the tests where nobody listens to it."""
    before = signal.signal(request.param, lambda *_: None)
    yield request.param
    signal.signal(request.param, before)


@pytest.fixture(autouse=True)
def no_end_by_itself(monkeypatch) -> None:
    """What was not told to stop before it runs would run for ever."""
    run = uvicorn.Server.run

    def run_stopped(server, **more) -> None:
        assert server.should_exit, "it does not know of the signal"
        run(server, **more)

    monkeypatch.setattr(uvicorn.Server, "run", run_stopped)


def test_a_signal_that_comes_once_it_has_said_where(monkeypatch, number) -> None:
    class Screen(io.StringIO):
        def flush(self) -> None:
            signal.raise_signal(number)

    ends = []
    monkeypatch.setattr("sys.stdout", Screen())
    with listen("127.0.0.1", 0) as listener:
        serve_app(application, listener, path="/", on_end=lambda: ends.append(number))
    assert ends == [number]


def test_a_signal_that_comes_before_uvicorn_listens_to_it(monkeypatch, number) -> None:
    run = uvicorn.Server.run

    def interrupted(server, **more) -> None:
        signal.raise_signal(number)
        run(server, **more)

    monkeypatch.setattr(uvicorn.Server, "run", interrupted)
    with listen("127.0.0.1", 0) as listener:
        serve_app(application, listener, path="/")
