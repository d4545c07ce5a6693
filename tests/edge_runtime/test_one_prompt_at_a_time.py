"""What ``on_prompt`` or another thread asks of a generator that runs a prompt."""

from __future__ import annotations

import threading

import pytest

from edge_runtime import RetryPolicy, TextGenerator
from lambda_split.errors import UsageError
from tests.edge_runtime.hostile_server import hostile_server
from tests.edge_runtime.some_texts import write_text_bundle

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]
OTHER = [7, 8, 9]
RETRY = RetryPolicy(max_delay_s=0.05, give_up_after_s=60.0, reply_timeout_s=60.0)
ASKED = {
    "generate": lambda llm, _: llm.generate(OTHER, max_new_tokens=3),
    "score": lambda llm, _: llm.score(OTHER),
    "forget": lambda llm, _: llm.forget(),
    "close the stream": lambda _, stream: stream.close(),
}


@pytest.fixture
def generator(tmp_path, gate):
    with (
        hostile_server(gate) as server,
        TextGenerator.open(
            write_text_bundle(tmp_path), server.url, codec="fp32", retry=RETRY, chunk_tokens=4
        ) as opened,
    ):
        yield opened


def _says_what_it_said(generator, wanted) -> None:
    for prompt, tokens in wanted:
        assert generator.generate(prompt, max_new_tokens=6).token_ids == tokens


def _wanted(generator):
    """What it says to some prompts, one of which goes on where another one ends."""
    wanted = [
        (prompt, generator.generate(prompt, max_new_tokens=6).token_ids)
        for prompt in (PROMPT, [*PROMPT, 5], OTHER)
    ]
    generator.forget()
    return wanted


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("when", ["first piece", "last piece"])
def test_the_callback_asks_nothing(generator, asked, when) -> None:
    def ask(done, tokens):
        if when == "first piece" or done == tokens:
            ASKED[asked](generator, stream)

    wanted = _wanted(generator)
    stream = generator.stream(PROMPT, max_new_tokens=6, on_prompt=ask)
    with pytest.raises(UsageError, match="on_prompt"):
        next(stream)
    _says_what_it_said(generator, wanted)


@pytest.mark.parametrize("asked", ASKED)
def test_another_thread_asks_nothing(generator, gate, asked) -> None:
    wanted = _wanted(generator)
    stream = generator.stream(PROMPT, max_new_tokens=6)
    gate.close()
    said: list[str] = []
    running = threading.Thread(target=lambda: said.extend(stream))
    running.start()
    assert gate.held.wait(60)
    with pytest.raises(UsageError, match=r"another thread|between two pieces"):
        ASKED[asked](generator, stream)
    gate.open()
    running.join(60)
    assert not running.is_alive()
    assert stream.result.token_ids == wanted[0][1]  # which goes on
    _says_what_it_said(generator, wanted)


def test_a_callback_may_look_and_may_close_the_generator(generator) -> None:
    seen = []
    stream = generator.stream(
        PROMPT,
        max_new_tokens=2,
        on_prompt=lambda *_: seen.append((len(generator.held_token_ids), stream.stats)),
    )
    assert len(list(stream)) == 2
    assert [held for held, _ in seen] == [0, 0]
    stream = generator.stream(OTHER, on_prompt=lambda *_: generator.close())
    with pytest.raises(UsageError, match="closed"):
        list(stream)
