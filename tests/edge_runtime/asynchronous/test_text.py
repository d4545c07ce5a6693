"""The asynchronous text generator does what the synchronous one does."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading

import numpy as np
import pytest

from edge_runtime import (
    AsyncTextGenerator,
    SamplingSettings,
    TextGenerator,
)
from lambda_split.errors import (
    UsageError,
)
from tests.edge_runtime.asynchronous.some_prompts import OTHER, PROMPT, RETRY
from tests.edge_runtime.hostile_server import hostile_server


def test_all_methods_say_what_the_synchronous_ones_say(run, opened, expected) -> None:
    sampling = SamplingSettings(temperature=0.9, seed=3)
    settings = {"max_new_tokens": 12, "sampling": sampling, "top_logprobs": 2}

    async def scenario():
        async with await opened() as llm:
            stream = llm.stream(PROMPT, **settings)
            pieces = [piece async for piece in stream]
            wanted = expected.stream(PROMPT, **settings)
            assert pieces == list(wanted)
            results = [
                (stream.result, wanted.result),
                (await llm.generate(PROMPT, **settings), expected.generate(PROMPT, **settings)),
            ]
            for found, theirs in results:
                assert found.token_ids == theirs.token_ids
                assert found.text == theirs.text == "".join(pieces)
                assert found.finish_reason == theirs.finish_reason
                assert found.logprobs == theirs.logprobs
            assert stream.result.stats.round_trips == wanted.result.stats.round_trips
            assert stream.result.stats.bytes_up == wanted.result.stats.bytes_up
            assert np.array_equal(await llm.score(PROMPT), expected.score(PROMPT))
            assert await llm.tokenize("w3 w1 w4") == [3, 1, 4]
            assert list(llm.held_token_ids) == list(expected.held_token_ids)
            assert np.array_equal(await llm.sent_states(3), expected.sent_states(3))
            await llm.forget()
            expected.forget()
            assert llm.held_token_ids == ()
            assert (llm.split, llm.max_positions) == (expected.split, expected.max_positions)
            assert llm.default_sampling == expected.default_sampling
            assert llm.bundle is expected.bundle
            assert repr(llm) == repr(expected).replace("<Text", "<AsyncText")
            assert llm._repr_html_() == expected._repr_html_().replace(">Text", ">AsyncText")

    run(scenario)


@pytest.mark.parametrize(
    "name", ["open", "stream", "generate", "score", "forget", "tokenize", "sent_states"]
)
def test_the_twins_take_the_same_arguments(name) -> None:
    ours, theirs = (getattr(kind, name) for kind in (AsyncTextGenerator, TextGenerator))
    assert inspect.signature(ours).parameters == inspect.signature(theirs).parameters


def test_everything_that_the_synchronous_one_has_is_there() -> None:
    def public(kind):
        return {name for name in dir(kind) if not name.startswith("_")}

    # Waiting ends with who waits; closing is named as asyncio names it.
    assert public(TextGenerator) - public(AsyncTextGenerator) == {"close", "wait_while"}


def test_a_stream_computes_nothing_ahead(run, opened, server) -> None:
    async def scenario():
        async with await opened() as llm:
            stream = llm.stream(PROMPT, max_new_tokens=12)
            await asyncio.sleep(0.05)
            (peer,) = server.peers
            assert peer.forwards == []
            async for _ in stream:
                break
            await asyncio.sleep(0.05)
            assert len(peer.forwards) == 1
            with pytest.raises(UsageError, match="has not ended"):
                _ = stream.result
            rest = [piece async for piece in stream]  # it goes on where it was left
            assert len(rest) == 11

    run(scenario)


def test_two_generators_work_at_the_same_time(run, model, expected) -> None:
    both = threading.Barrier(2)

    def script(peer):
        peer.welcome()
        forward = peer.forward()
        both.wait(30)  # passed only by two that are in the middle of it
        peer.reply(forward)
        peer.serve()

    async def scenario():
        with hostile_server(script) as server:
            async with contextlib.AsyncExitStack() as stack:
                first, second = [
                    await stack.enter_async_context(
                        await AsyncTextGenerator.open(model, server.url, codec="fp32", retry=RETRY)
                    )
                    for _ in range(2)
                ]
                found = await asyncio.gather(
                    first.generate(PROMPT, max_new_tokens=8),
                    second.generate(OTHER, max_new_tokens=8),
                )
        for one, prompt in zip(found, (PROMPT, OTHER), strict=True):
            wanted = expected.generate(prompt, max_new_tokens=8)
            assert one.token_ids == wanted.token_ids

    run(scenario)


def test_tasks_that_share_a_generator_take_turns(run, opened, expected) -> None:
    async def scenario():
        async with await opened() as llm:
            found = await asyncio.gather(
                *(llm.generate(prompt, max_new_tokens=8) for prompt in (PROMPT, OTHER, PROMPT))
            )
        for one, prompt in zip(found, (PROMPT, OTHER, PROMPT), strict=True):
            assert one.token_ids == expected.generate(prompt, max_new_tokens=8).token_ids

    run(scenario)


def test_progress_of_the_prompt_is_told_in_the_event_loop(run, opened) -> None:
    async def scenario():
        told = []
        async with await opened(chunk_tokens=3) as llm:
            stream = llm.stream(
                PROMPT,
                max_new_tokens=2,
                on_prompt=lambda *so_far: told.append((*so_far, threading.get_ident())),
            )
            await anext(stream)
            me = threading.get_ident()
            assert told == [(3, 8, me), (6, 8, me), (8, 8, me)]

    run(scenario)
