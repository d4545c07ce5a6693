"""The asynchronous twins against a trunk in a process of its own, also one that is killed."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from edge_runtime import (
    AsyncImageGenerator,
    AsyncTextGenerator,
    ImageGenerator,
    PictureSpec,
    RetryPolicy,
    SamplingSettings,
    TextGenerator,
    TextModel,
)
from lambda_split.errors import ConnectionLost, FingerprintRefused
from tests.servers import TrunkServer, serving

PROMPTS = [list(range(10, 50)), list(range(60, 200)), [7]]
SAMPLING = SamplingSettings(temperature=0.8, top_k=40, seed=11)
NEW_TOKENS = 60


@pytest.fixture(scope="module")
def server(checkpoint):
    with serving(str(checkpoint("llama")), "--dtype", "float32") as running:
        yield running


@pytest.fixture(scope="module")
def alone(bundle, server):
    """What the synchronous generator says to each prompt."""
    with TextGenerator.open(bundle("llama"), server.url, codec="fp32") as llm:
        return [
            llm.generate(prompt, max_new_tokens=NEW_TOKENS, sampling=SAMPLING).token_ids
            for prompt in PROMPTS
        ]


def _run(scenario) -> None:
    async def bounded():
        async with asyncio.timeout(200):
            await scenario()

    asyncio.run(bounded())


@pytest.mark.slow
def test_generators_at_the_same_time_say_what_each_says_alone(bundle, server, alone) -> None:
    model = TextModel.load(bundle("llama").path)

    async def tokens(prompt):
        async with await AsyncTextGenerator.open(model, server.url, codec="fp32") as llm:
            stream = llm.stream(prompt, max_new_tokens=NEW_TOKENS, sampling=SAMPLING)
            pieces = [piece async for piece in stream]
            assert stream.result.text == "".join(pieces)
            again = await llm.generate(prompt, max_new_tokens=NEW_TOKENS, sampling=SAMPLING)
            assert again.token_ids == stream.result.token_ids
            return again.token_ids

    async def scenario():
        assert await asyncio.gather(*map(tokens, PROMPTS)) == alone

    _run(scenario)


@pytest.mark.slow
def test_cancelled_anywhere_and_the_next_generation_is_as_if_nothing_was(
    bundle, server, alone
) -> None:
    async def endlessly(llm):
        while True:  # the session is full after some hundred tokens, which may take no time
            await llm.generate(PROMPTS[1], max_new_tokens=4000)

    async def scenario():
        async with await AsyncTextGenerator.open(
            bundle("llama"), server.url, codec="fp32", chunk_tokens=16
        ) as llm:
            for delay_s in np.linspace(0, 0.3, 12):
                task = asyncio.create_task(endlessly(llm))
                await asyncio.sleep(delay_s)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                result = await llm.generate(PROMPTS[0], max_new_tokens=9, sampling=SAMPLING)
                assert result.token_ids == alone[0][:9]

    _run(scenario)


@pytest.mark.slow
def test_a_server_that_is_killed_and_comes_back_changes_no_token(bundle, checkpoint, alone) -> None:
    trunk = TrunkServer(str(checkpoint("llama")), "--dtype", "float32")
    trunk.start()

    async def scenario():
        async with await AsyncTextGenerator.open(bundle("llama"), trunk.url, codec="fp32") as llm:
            stream = llm.stream(PROMPTS[0], max_new_tokens=NEW_TOKENS, sampling=SAMPLING)
            restarting = None
            count = 0
            async for _ in stream:
                count += 1
                if count in {3, 20}:
                    if restarting is not None:
                        await restarting
                    trunk.kill()
                    # The device is already trying to come back.
                    restarting = asyncio.create_task(asyncio.to_thread(trunk.start))
            await restarting
            assert stream.result.token_ids == alone[0]
            assert stream.result.stats.reconnects >= 2

    try:
        _run(scenario)
    finally:
        trunk.close()


@pytest.mark.slow
def test_a_server_that_stays_away_or_is_another_is_a_typed_error(bundle, checkpoint) -> None:
    trunk = TrunkServer(str(checkpoint("llama")))
    trunk.start()
    other = TrunkServer(str(checkpoint("qwen3")), port=trunk.port)

    async def scenario():
        retry = RetryPolicy(give_up_after_s=1.0)
        async with await AsyncTextGenerator.open(bundle("llama"), trunk.url, retry=retry) as llm:
            first = await llm.generate(PROMPTS[0], max_new_tokens=4)
            await asyncio.to_thread(trunk.kill)
            with pytest.raises(ConnectionLost, match="gave up after 1 s"):
                await llm.generate([*PROMPTS[0], 5], max_new_tokens=4)
            await asyncio.to_thread(trunk.start)
            again = await llm.generate(PROMPTS[0], max_new_tokens=4)
            assert again.token_ids == first.token_ids
            await asyncio.to_thread(trunk.kill)
            await asyncio.to_thread(other.start)
            with pytest.raises(FingerprintRefused):
                await llm.generate([*PROMPTS[0], 5], max_new_tokens=4)

    try:
        _run(scenario)
    finally:
        trunk.close()
        other.close()


# --- pictures -------------------------------------------------------------------------------------

SPEC = PictureSpec(steps=12, seed=5)
LONG = PictureSpec(steps=500, seed=5)  # takes seconds on any machine


@pytest.fixture(scope="module")
def painted(demo_pictures):
    """The synchronous generator's pictures."""
    with (
        serving("demo-image") as trunk,
        ImageGenerator.open(demo_pictures, trunk.url, format="fp32") as painter,
    ):
        return {
            prompt: painter.generate(prompt, spec=SPEC)
            for prompt in ("a red circle on the left", "a blue square")
        }


def _same_pictures(found, wanted) -> None:
    """In one batch with others' the denoiser's sums come in another order."""
    difference = found.images.astype(int) - wanted.images.astype(int)
    assert np.abs(difference).max() <= 2


@pytest.mark.slow
def test_pictures_through_cancellation_and_a_server_that_is_killed(demo_pictures, painted) -> None:
    trunk = TrunkServer("demo-image")
    trunk.start()
    first, second = painted

    async def scenario():
        async with await AsyncImageGenerator.open(
            demo_pictures, trunk.url, format="fp32"
        ) as painter:
            for delay_s in (0, 0.05, 0.3):
                task = asyncio.create_task(painter.generate(second, spec=LONG))
                await asyncio.sleep(delay_s)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            stream = painter.stream(first, spec=SPEC, preview_every=6)
            previews = 0
            async for step in stream:
                previews += step.preview is not None
                if step.number == 4:
                    await asyncio.to_thread(trunk.kill)
                    restarting = asyncio.create_task(asyncio.to_thread(trunk.start))
            await restarting
            assert previews == 2
            assert stream.result.stats.reconnects >= 1
            # A step that is left of a cancelled picture may be in one batch with this one's.
            _same_pictures(stream.result, painted[first])

    try:
        _run(scenario)
    finally:
        trunk.close()


@pytest.mark.slow
def test_two_pictures_at_the_same_time(demo_pictures, painted) -> None:
    async def paint(url, prompt):
        async with await AsyncImageGenerator.open(demo_pictures, url, format="fp32") as painter:
            return await painter.generate(prompt, spec=SPEC)

    async def scenario():
        with serving("demo-image") as trunk:
            found = await asyncio.gather(*(paint(trunk.url, prompt) for prompt in painted))
        for result, wanted in zip(found, painted.values(), strict=True):
            _same_pictures(result, wanted)

    _run(scenario)
