"""Errors, closing and dropping of the asynchronous text generator and its streams."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest

from edge_runtime import (
    AsyncTextGenerator,
    RetryPolicy,
)
from lambda_split.errors import (
    ConnectionLost,
    LambdaSplitError,
    PositionsRefused,
    PromptEmpty,
    ServerUnreachable,
    UsageError,
)
from tests.edge_runtime.asynchronous.some_prompts import OTHER, PROMPT, RETRY
from tests.edge_runtime.hostile_server import hostile_server


async def _cancel(task) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_errors_are_those_of_the_synchronous_methods(run, opened, expected) -> None:
    async def scenario():
        async with await opened() as llm:
            for wrong in ({"max_new_tokens": 0}, {"top_logprobs": 99}, {"stop": [""]}):
                with pytest.raises(LambdaSplitError) as found:
                    await llm.generate(PROMPT, **wrong)
                with pytest.raises(LambdaSplitError) as wanted:
                    expected.generate(PROMPT, **wrong)
                assert found.type is wanted.type
                assert str(found.value) == str(wanted.value)
                stream = llm.stream(PROMPT, **wrong)  # told when the first piece is asked for
                with pytest.raises(wanted.type):
                    await anext(stream)
                assert await anext(stream, None) is None
            with pytest.raises(PromptEmpty):
                await llm.tokenize([])
            with pytest.raises(UsageError, match="two tokens"):
                await llm.score([1])
            result = await llm.generate(PROMPT, max_new_tokens=5)
            assert result.token_ids == expected.generate(PROMPT, max_new_tokens=5).token_ids

    run(scenario)


def test_what_cannot_be_opened_is_told_and_leaves_no_thread(run, model, tmp_path) -> None:
    def refuse(peer):
        peer.socket.recv()
        peer.error(PositionsRefused(64, 32))

    async def scenario():
        with hostile_server(refuse) as server, pytest.raises(PositionsRefused):
            await AsyncTextGenerator.open(model, server.url)
        with pytest.raises(ServerUnreachable):
            await AsyncTextGenerator.open(model, server.url)  # gone
        with pytest.raises(LambdaSplitError):
            await AsyncTextGenerator.open(tmp_path / "none", server.url)
        with pytest.raises(UsageError, match="unknown codec"):
            await AsyncTextGenerator.open(model, server.url, codec="mp3")

    run(scenario)


def test_a_lost_trunk_is_a_typed_error(run, model) -> None:
    def script(peer):
        if peer.number:
            return  # cut off
        peer.welcome()
        peer.reply(peer.forward())

    async def scenario():
        hasty = RetryPolicy(max_delay_s=0.05, give_up_after_s=0.3)
        with hostile_server(script) as server:
            async with await AsyncTextGenerator.open(model, server.url, retry=hasty) as llm:
                stream = llm.stream(PROMPT, max_new_tokens=9)
                said = [await anext(stream)]
                with pytest.raises(ConnectionLost, match="gave up"):
                    said += [piece async for piece in stream]
                await stream.aclose()
                assert stream.result.text == "".join(said)

    run(scenario)


def test_another_generation_ends_a_stream(run, opened) -> None:
    async def scenario():
        async with await opened() as llm:
            stream = llm.stream(PROMPT, max_new_tokens=20)
            await anext(stream)
            await llm.generate(OTHER, max_new_tokens=2)
            with pytest.raises(UsageError, match="another generation"):
                await anext(stream)

    run(scenario)


def test_a_closed_generator_stays_closed(run, opened, server) -> None:
    async def scenario():
        async with await opened() as llm:
            running = llm.stream(PROMPT, max_new_tokens=9)
            await anext(running)
        await llm.aclose()
        for use in (llm.generate, llm.score, llm.tokenize):
            with pytest.raises(UsageError, match="AsyncTextGenerator is closed"):
                await use(PROMPT)
        with pytest.raises(UsageError, match="closed"):
            await llm.forget()
        for stream in (running, llm.stream(PROMPT)):
            with pytest.raises(UsageError, match="closed"):
                await anext(stream)
            await stream.aclose()
        assert len(server.peers) == 1

    run(scenario)


@pytest.mark.parametrize("begun", [False, True])
def test_closing_ends_what_another_task_is_at(run, opened, gate, server, begun) -> None:
    async def scenario():
        llm = await opened()
        stream = llm.stream(PROMPT, max_new_tokens=50)
        if begun:
            await anext(stream)
        gate.close()
        task = asyncio.create_task(stream.finish())
        await gate.until_held()
        closing = asyncio.create_task(llm.aclose())
        await asyncio.sleep(0.05)
        gate.open()
        with pytest.raises(UsageError, match="AsyncTextGenerator is closed"):
            await task
        await closing
        assert len(server.peers[0].forwards) == 1 + begun

    run(scenario)


def test_a_stream_that_is_closed_early_has_a_result(run, opened, expected) -> None:
    async def scenario():
        async with await opened() as llm:
            async with llm.stream(PROMPT, max_new_tokens=20) as stream:
                said = [await anext(stream), await anext(stream)]
            assert stream.result.text == "".join(said)
            assert stream.result.finish_reason == "cancelled"
            async with llm.stream(PROMPT, max_new_tokens=3) as whole:
                _ = [piece async for piece in whole]
            assert whole.result.finish_reason == "length"
            unstarted = llm.stream(PROMPT)
            await unstarted.aclose()
            assert [piece async for piece in unstarted] == []
            with pytest.raises(UsageError, match="before it began"):
                _ = unstarted.result
            with pytest.raises(UsageError, match="before it began"):
                await unstarted.finish()
            again = await llm.generate(PROMPT, max_new_tokens=6)
            assert again.token_ids == expected.generate(PROMPT, max_new_tokens=6).token_ids

    run(scenario)


def test_what_was_said_is_there_after_the_generator_is_closed_as_well(run, opened) -> None:
    async def scenario():
        async with await opened() as llm:
            stream = llm.stream(PROMPT, max_new_tokens=20)
            said = [await anext(stream), await anext(stream)]
            unstarted = llm.stream(PROMPT)
        await stream.aclose()
        assert (stream.result.text, stream.result.finish_reason) == ("".join(said), "cancelled")
        await unstarted.aclose()
        with pytest.raises(UsageError, match="before it began"):
            _ = unstarted.result

    run(scenario)


def test_a_stream_whose_closing_is_cancelled_is_closed_all_the_same(run, opened, gate) -> None:
    async def scenario():
        async with await opened() as llm:
            stream = llm.stream(PROMPT, max_new_tokens=20)
            said = await anext(stream)
            gate.close()
            other = asyncio.create_task(llm.generate(OTHER, max_new_tokens=2))
            await gate.until_held()
            closing = asyncio.create_task(stream.aclose())
            await asyncio.sleep(0)
            await _cancel(closing)
            gate.open()
            await other
            await llm.tokenize(PROMPT)  # comes after what was left to do
            assert (stream.result.text, stream.result.finish_reason) == (said, "cancelled")

    run(scenario)


def test_a_generator_that_is_dropped_ends_its_session(run, model) -> None:
    left = threading.Event()

    def script(peer):
        peer.welcome()
        try:
            peer.serve()
        finally:
            left.set()

    async def scenario():
        with hostile_server(script) as server:
            llm = await AsyncTextGenerator.open(model, server.url, codec="fp32", retry=RETRY)
            await llm.generate(PROMPT, max_new_tokens=3)
            del llm
            gc.collect()
            assert await asyncio.to_thread(left.wait, 30)

    run(scenario)
