"""Tasks that are cancelled: the generation ends, and nobody else loses anything."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import numpy as np
import pytest

from edge_runtime import (
    AsyncTextGenerator,
    AsyncTextStream,
    RetryPolicy,
)
from lambda_split.errors import (
    UsageError,
)
from tests.edge_runtime.asynchronous.some_prompts import LONG, OTHER, PROMPT, RETRY
from tests.edge_runtime.hostile_server import hostile_server


async def _cancel(task) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_cancelled_task_ends_the_generation_between_two_tokens(
    run, opened, gate, server, expected
) -> None:
    wanted = expected.generate(PROMPT, max_new_tokens=20)

    async def end_early(llm, waiting_for):
        stream = llm.stream(PROMPT, max_new_tokens=20)
        said = [await anext(stream), await anext(stream)]
        gate.close()
        task = asyncio.create_task(waiting_for(stream))
        await gate.until_held()
        await _cancel(task)  # at once: the trunk still owes its answer
        assert await anext(stream, None) is None
        with pytest.raises(UsageError, match="has not ended"):
            _ = stream.result
        gate.open()
        await stream.aclose()
        result = stream.result
        assert result.finish_reason == "cancelled"
        assert result.text.startswith("".join(said))
        assert 2 <= len(result.token_ids) <= 3
        assert result.token_ids == wanted.token_ids[: len(result.token_ids)]

    async def scenario():
        async with await opened() as llm:
            (peer,) = server.peers
            for waiting_for in (anext, AsyncTextStream.finish):
                before = len(peer.forwards)
                await end_early(llm, waiting_for)
                assert len(peer.forwards) - before <= 3
                again = await llm.generate(PROMPT, max_new_tokens=20)
                assert again.token_ids == wanted.token_ids
                assert again.stats.reconnects == 0
                assert again.stats.cached_tokens == len(PROMPT) - 1

    run(scenario)


def test_a_timeout_ends_it_and_what_was_said_is_there(run, opened, gate, expected) -> None:
    async def read(stream, said):
        async with asyncio.timeout(None) as limit, stream:
            async for piece in stream:
                said.append(piece)
                if len(said) == 3:
                    gate.close()
                    loop = asyncio.get_running_loop()
                    limit.reschedule(loop.time() + 0.05)
                    loop.call_later(0.5, gate.open)

    async def scenario():
        said = []
        async with await opened() as llm:
            stream = llm.stream(PROMPT, max_new_tokens=20)
            with pytest.raises(TimeoutError):
                await read(stream, said)
            assert stream.result.text.startswith("".join(said))
            assert stream.result.finish_reason == "cancelled"
            assert len(said) == 3
            other = await llm.generate(OTHER, max_new_tokens=5)
            assert other.token_ids == expected.generate(OTHER, max_new_tokens=5).token_ids

    run(scenario)


def test_a_cancelled_prompt_ends_between_two_of_its_pieces(
    run, opened, gate, server, expected
) -> None:
    async def scenario():
        async with await opened(chunk_tokens=2) as llm:
            gate.close()
            task = asyncio.create_task(llm.generate(LONG, max_new_tokens=5))
            await gate.until_held()
            await _cancel(task)
            gate.open()
            result = await llm.generate(PROMPT, max_new_tokens=5)
            assert result.token_ids == expected.generate(PROMPT, max_new_tokens=5).token_ids
            assert len(server.peers[0].forwards) < len(LONG) // 2
            result = await llm.generate(LONG, max_new_tokens=5)
            assert result.token_ids == expected.generate(LONG, max_new_tokens=5).token_ids

    run(scenario)


def test_a_cancelled_score_ends_between_two_of_its_pieces(
    run, opened, gate, server, expected
) -> None:
    async def scenario():
        told = []
        async with await opened(chunk_tokens=2) as llm:
            whole = await llm.score(LONG, on_prompt=lambda *so_far: told.append(so_far))
            assert np.array_equal(whole, expected.score(LONG))
            assert told[-1] == (len(LONG) - 1, len(LONG) - 1)
            (peer,) = server.peers
            before = len(peer.forwards)
            gate.close()
            task = asyncio.create_task(llm.score(LONG))
            await gate.until_held()
            await _cancel(task)
            gate.open()
            result = await llm.generate(PROMPT, max_new_tokens=5)
            assert result.token_ids == expected.generate(PROMPT, max_new_tokens=5).token_ids
            assert len(peer.forwards) - before < len(LONG) // 2
            assert np.array_equal(await llm.score(LONG), whole)

    run(scenario)


def test_who_is_cancelled_while_others_are_served_takes_nothing_from_them(
    run, opened, gate, server, expected
) -> None:
    async def scenario():
        async with await opened() as llm:
            gate.close()
            first = asyncio.create_task(llm.generate(PROMPT, max_new_tokens=8))
            await gate.until_held()
            gone = [
                asyncio.create_task(llm.generate(OTHER, max_new_tokens=8)),
                asyncio.create_task(llm.score(LONG)),
            ]
            third = asyncio.create_task(llm.score(PROMPT))
            await asyncio.sleep(0)
            for task in gone:
                await _cancel(task)
            gate.open()
            wanted = expected.generate(PROMPT, max_new_tokens=8)
            assert (await first).token_ids == wanted.token_ids
            assert np.array_equal(await third, expected.score(PROMPT))
            # What was given up before its turn was not begun.
            assert max(frame.tokens for frame in server.peers[0].forwards) <= len(PROMPT)

    run(scenario)


def test_nobody_waits_for_a_trunk_that_is_away_when_all_have_gone(run, model) -> None:
    gone = threading.Event()

    def script(peer):
        peer.welcome()
        for _ in range(2):
            peer.reply(peer.forward())
        gone.set()  # and cut off, without a word

    def status(request):
        return 503 if gone.is_set() else None

    patient = RetryPolicy(give_up_after_s=3000, first_delay_s=1000, max_delay_s=1000)

    async def scenario():
        with hostile_server(script, status=status) as server:
            async with await AsyncTextGenerator.open(model, server.url, retry=patient) as llm:
                task = asyncio.create_task(llm.generate(PROMPT, max_new_tokens=20))
                assert await asyncio.to_thread(gone.wait, 30)
                while server.requests < 2:  # noqa: ASYNC110  # as the server sees it
                    await asyncio.sleep(0.01)
                await _cancel(task)
                assert await llm.tokenize("w1") == [1]  # its thread is free
                task = asyncio.create_task(llm.generate(PROMPT, max_new_tokens=20))
                await asyncio.sleep(0.2)
            # Closing ends it, too.
            with pytest.raises(UsageError, match="AsyncTextGenerator is closed"):
                await task

    run(scenario)


def test_an_opening_that_is_cancelled_leaves_no_session(run, model) -> None:
    asked, answer, left = threading.Event(), threading.Event(), threading.Event()

    def script(peer):
        asked.set()
        answer.wait(30)
        peer.welcome()
        with contextlib.suppress(Exception):
            peer.forward()  # a bye, or the end
        left.set()

    async def scenario():
        with hostile_server(script) as server:
            task = asyncio.create_task(AsyncTextGenerator.open(model, server.url, retry=RETRY))
            assert await asyncio.to_thread(asked.wait, 30)
            await _cancel(task)
            answer.set()
            assert await asyncio.to_thread(left.wait, 30)

    run(scenario)
