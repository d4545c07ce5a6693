"""The asynchronous image generator, with hand-made graphs and a denoiser that predicts zeros."""

from __future__ import annotations

import asyncio
import inspect
import threading

import numpy as np
import pytest

from edge_runtime import AsyncImageGenerator, ImageGenerator, PictureSpec, RetryPolicy
from lambda_split.errors import BundleError, ServerUnreachable, UsageError
from tests.edge_runtime.hostile_server import hostile_server
from tests.edge_runtime.pictures import some_pictures
from tests.edge_runtime.pictures.some_denoiser import serve_zeros

SPEC = PictureSpec(steps=12, seed=3, guidance=1.0)
OTHER = PictureSpec(steps=5, seed=4, guidance=1.0)
RETRY = RetryPolicy(give_up_after_s=10, max_delay_s=0.05)
SETTINGS = {"format": "fp32", "runtime": some_pictures.ONE_THREAD, "retry": RETRY}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return some_pictures.write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def server():
    with hostile_server(serve_zeros) as running:
        yield running


@pytest.fixture
def expected(bundle, server):
    with ImageGenerator.open(bundle, server.url, **SETTINGS) as painter:
        yield painter


def test_steps_previews_and_pictures_are_those_of_the_synchronous_one(
    run, bundle, server, expected
) -> None:
    async def scenario():
        async with await AsyncImageGenerator.open(bundle, server.url, **SETTINGS) as painter:
            stream = painter.stream("a red cat", spec=SPEC, preview_every=4)
            with pytest.raises(UsageError, match="has not ended"):
                _ = stream.result
            steps = [step async for step in stream]
            wanted = expected.stream("a red cat", spec=SPEC, preview_every=4)
            for found, theirs in zip(steps, wanted, strict=True):
                assert (found.number, found.steps) == (theirs.number, theirs.steps)
                assert (found.preview is None) == (theirs.preview is None)
                if found.preview is not None:
                    assert np.array_equal(found.preview, theirs.preview)
            assert [step.number for step in steps if step.preview is not None] == [4, 8, 12]
            again = await painter.generate("a red cat", spec=SPEC)
            for result in (stream.result, again):
                assert np.array_equal(result.latents, wanted.result.latents)
                assert np.array_equal(result.images, wanted.result.images)
                assert result.seed == 3
            assert painter.bundle is expected.bundle
            assert repr(painter) == repr(expected).replace("<Image", "<AsyncImage")
            assert "size <b>" in painter._repr_html_()

    run(scenario)


@pytest.mark.parametrize("name", ["open", "stream", "generate"])
def test_the_twins_take_the_same_arguments(name) -> None:
    ours, theirs = (getattr(kind, name) for kind in (AsyncImageGenerator, ImageGenerator))
    assert inspect.signature(ours).parameters == inspect.signature(theirs).parameters


def test_everything_that_the_synchronous_one_has_is_there() -> None:
    def public(kind):
        return {name for name in dir(kind) if not name.startswith("_")}

    assert public(ImageGenerator) - public(AsyncImageGenerator) == {"close", "wait_while"}


def test_a_cancelled_picture_ends_after_its_step_and_others_are_made(
    run, bundle, server, expected
) -> None:
    held, go_on = threading.Event(), threading.Event()

    def holding(peer):
        if peer.number:
            serve_zeros(peer)
        serve_zeros(peer, steps=3)
        held.set()
        go_on.wait(30)

    async def scenario():
        with hostile_server(holding) as slow:
            async with await AsyncImageGenerator.open(bundle, slow.url, **SETTINGS) as painter:
                stream = painter.stream("a red cat", spec=SPEC)
                task = asyncio.create_task(stream.finish())
                assert await asyncio.to_thread(held.wait, 30)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert [step async for step in stream] == []
                go_on.set()
                await stream.aclose()
                with pytest.raises(UsageError, match="not finished"):
                    _ = stream.result
                found = await painter.generate("a cat", spec=OTHER)
            wanted = expected.generate("a cat", spec=OTHER)
            assert np.array_equal(found.latents, wanted.latents)

    run(scenario)


def test_a_picture_is_ended_by_another_by_closing_it_and_by_closing_all(
    run, bundle, server
) -> None:
    async def scenario():
        async with await AsyncImageGenerator.open(bundle, server.url, **SETTINGS) as painter:
            left = painter.stream("a red cat", spec=SPEC)
            await anext(left)
            await painter.generate("a cat", spec=OTHER)
            with pytest.raises(UsageError, match="another picture"):
                await anext(left)
            async with painter.stream("a red cat", spec=SPEC) as closed:
                await anext(closed)
            assert [step async for step in closed] == []
            running = painter.stream("a red cat", spec=SPEC)
            await anext(running)
        with pytest.raises(UsageError, match="AsyncImageGenerator is closed"):
            await anext(running)
        with pytest.raises(UsageError, match="AsyncImageGenerator is closed"):
            await painter.generate("a cat")

    run(scenario)


def test_errors_are_those_of_the_synchronous_methods(run, bundle, server, tmp_path) -> None:
    async def scenario():
        async with await AsyncImageGenerator.open(bundle, server.url, **SETTINGS) as painter:
            with pytest.raises(UsageError, match="steps must be"):
                await painter.generate("a cat", spec=PictureSpec(steps=0))
            assert (await painter.generate("a cat", spec=OTHER)).seed == 4
        with pytest.raises(BundleError):
            await AsyncImageGenerator.open(tmp_path, server.url)
        with pytest.raises(UsageError, match="unknown format"):
            await AsyncImageGenerator.open(bundle, server.url, format="gif")

    run(scenario)
    server.close()
    with pytest.raises(ServerUnreachable):
        asyncio.run(AsyncImageGenerator.open(bundle, server.url))
