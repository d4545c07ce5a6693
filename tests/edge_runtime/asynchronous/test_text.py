"""The asynchronous text generator, with hand-made graphs and a trunk that tests hold up."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import threading

import numpy as np
import pytest

from edge_runtime import (
    AsyncTextGenerator,
    AsyncTextStream,
    RetryPolicy,
    SamplingSettings,
    TextGenerator,
    TextModel,
)
from lambda_split.errors import (
    ConnectionLost,
    LambdaSplitError,
    PositionsRefused,
    PromptEmpty,
    ServerUnreachable,
    UsageError,
)
from tests.edge_runtime.asynchronous.gates import Gate
from tests.edge_runtime.hostile_server import hostile_server
from tests.edge_runtime.some_texts import write_text_bundle

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]
OTHER = [2, 7, 1, 8, 2, 8]
LONG = [number % 37 for number in range(48)]
RETRY = RetryPolicy(max_delay_s=0.05, give_up_after_s=10.0, reply_timeout_s=30.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return TextModel.load(write_text_bundle(tmp_path_factory.mktemp("bundle")))


@pytest.fixture
def gate():
    made = Gate()
    yield made
    made.open()


@pytest.fixture
def server(gate):
    with hostile_server(gate) as running:
        yield running


@pytest.fixture
def opened(model, server):
    def opening(**settings):
        return AsyncTextGenerator.open(
            model, server.url, codec="fp32", **{"retry": RETRY, **settings}
        )

    return opening


@pytest.fixture
def expected(model):
    """What the synchronous generator says, on a server of its own."""
    with (
        hostile_server(Gate()) as server,
        TextGenerator.open(model, server.url, codec="fp32", retry=RETRY) as llm,
    ):
        yield llm


async def _cancel(task) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# --- equality -------------------------------------------------------------------------------------


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


# --- cancelling -----------------------------------------------------------------------------------


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


# --- errors and ends ------------------------------------------------------------------------------


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
