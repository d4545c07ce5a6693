"""A session makes one picture at a time, whatever becomes of the one before."""

from __future__ import annotations

import numpy as np
import pytest

from edge_runtime import ImageGenerator, PictureSpec, RetryPolicy
from edge_runtime.outage import Outage
from edge_runtime.pictures.trunk import ReplayingDenoiser
from lambda_split.errors import ConnectionLost, UsageError
from tests.edge_runtime.hostile_server import hostile_server
from tests.edge_runtime.pictures import some_pictures
from tests.edge_runtime.pictures.some_denoiser import serve_zeros

SPEC = PictureSpec(steps=12, seed=3, guidance=1.0)
OTHER = PictureSpec(steps=12, seed=4, guidance=1.0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return some_pictures.write_bundle(tmp_path_factory.mktemp("bundle"))


def _open(bundle, url) -> ImageGenerator:
    retry = RetryPolicy(give_up_after_s=60, connect_timeout_s=60, reply_timeout_s=60)
    return ImageGenerator.open(
        bundle, url, format="fp32", runtime=some_pictures.ONE_THREAD, retry=retry
    )


def test_a_picture_that_another_took_the_place_of_is_told_so(bundle) -> None:
    with hostile_server(serve_zeros) as server, _open(bundle, server.url) as painter:
        wanted = painter.generate("a cat", spec=OTHER)
        left = painter.stream("a red cat", spec=SPEC)
        next(left)
        stream = painter.stream("a cat", spec=OTHER)
        next(stream)
        with pytest.raises(UsageError, match="another picture"):
            next(left)
        del left  # takes nothing of the other one's with it
        for _ in stream:
            pass
        assert np.array_equal(stream.result.latents, wanted.latents)
        assert stream.result.stats.reconnects == 1  # what the first had asked for was cut off
    assert len(server.peers) == 2


def test_a_picture_that_was_begun_but_not_iterated_takes_no_place(bundle) -> None:
    with hostile_server(serve_zeros) as server, _open(bundle, server.url) as painter:
        stream = painter.stream("a cat", spec=SPEC)
        next(stream)
        painter.stream("a red cat", spec=OTHER)
        assert sum(1 for _ in stream) == SPEC.steps - 1


def test_a_picture_does_not_survive_its_session(bundle) -> None:
    with hostile_server(serve_zeros) as server:
        with _open(bundle, server.url) as painter:
            stream = painter.stream("a cat", spec=SPEC)
            next(stream)
        with pytest.raises(UsageError, match="closed"):
            next(stream)
    assert len(server.peers) == 1


def test_a_picture_may_be_left_in_the_moment_in_which_another_thread_closes_its_session(
    bundle,
) -> None:
    class ClosedMeanwhile(ReplayingDenoiser):
        """Whoever has looked at its connection finds none when he looks again."""

        leaving = False

        @property
        def _connection(self):
            found = vars(self)["_connection"]
            if self.leaving:
                vars(self)["_connection"] = None
            return found

        @_connection.setter
        def _connection(self, connection) -> None:
            vars(self)["_connection"] = connection

    with hostile_server(serve_zeros) as server, _open(bundle, server.url) as painter:
        stream = painter.stream("a cat", spec=SPEC)
        next(stream)
        trunk = painter._denoiser
        connection = trunk._connection
        trunk.__class__ = ClosedMeanwhile
        trunk.leaving = True
        stream.close()
        connection.close()  # as the other thread does


def test_a_lost_picture_goes_on_from_where_it_was(bundle) -> None:
    seen: list = []

    def script(peer):
        serve_zeros(peer, steps=5 if peer.number == 0 else None, seen=seen)

    with hostile_server(script) as server, _open(bundle, server.url) as painter:
        result = painter.generate("a cat", spec=SPEC)
    with hostile_server(serve_zeros) as server, _open(bundle, server.url) as painter:
        wanted = painter.generate("a cat", spec=SPEC)
    assert result.stats.reconnects == 1
    assert np.array_equal(result.latents, wanted.latents)
    again = [frame for number, frame in seen if number == 1]
    assert again[1].step <= 5
    assert again[1].tensors == 1  # Euler's state is the latents alone
    assert all(frame.tensors == 0 for frame in again[2:])


def test_a_picture_after_one_that_was_given_up_does_not_wait_for_what_that_one_had_to(
    bundle, monkeypatch
) -> None:
    def script(peer):
        serve_zeros(peer, steps=3 if peer.number == 0 else None)

    def status(request):
        return 503 if request == 1 else None

    slept: list[float] = []
    monkeypatch.setattr(Outage, "_sleep", lambda _, seconds: slept.append(seconds))
    with (
        hostile_server(script, status=status, headers={"Retry-After": "3600"}) as server,
        _open(bundle, server.url) as painter,
    ):
        painter.wait_while(lambda: server.requests < 2)  # who wants it goes while it is full
        with pytest.raises(ConnectionLost, match="nobody waits"):
            painter.generate("a cat", spec=SPEC)
        painter.wait_while(lambda: True)
        painter.generate("a cat", spec=SPEC)
    assert slept == [0, 0]


@pytest.mark.parametrize("pixels", [0, -5, 1.5, "many", 10**15])
def test_a_size_that_no_server_can_be_asked_for_is_refused_before_it_is(bundle, pixels) -> None:
    with hostile_server(serve_zeros) as server:
        with pytest.raises(UsageError, match="max_pixels"):
            ImageGenerator.open(bundle, server.url, max_pixels=pixels)
        assert server.requests == 0


@pytest.mark.parametrize("every", [-1, 1.5, "few"])
def test_previews_come_after_a_number_of_steps_that_there_is(bundle, every) -> None:
    with hostile_server(serve_zeros) as server, _open(bundle, server.url) as painter:
        with pytest.raises(UsageError, match="preview_every"):
            painter.stream("a cat", spec=SPEC, preview_every=every)
        assert len(list(painter.stream("a cat", spec=SPEC, preview_every=np.int64(5)))) == 12
