"""Opening, streaming and closing, with hand-made graphs and a trunk without layers."""

from __future__ import annotations

import time

import msgspec
import numpy as np
import pytest

from edge_runtime import (
    RetryPolicy,
    RuntimeSettings,
    SamplingSettings,
    TextGenerator,
    TextModel,
)
from edge_runtime import generator as generator_module
from lambda_split.bundle import write_manifest
from lambda_split.errors import (
    ChatTemplateInvalid,
    ManifestInvalid,
    PositionsRefused,
    PromptTooLong,
    TokenizerInvalid,
    UsageError,
)
from tests.edge_runtime.hostile_server import hostile_server
from tests.edge_runtime.some_graphs import POSITIONS, expected_hidden, expected_logits
from tests.edge_runtime.some_texts import write_text_bundle

TEMPLATE = "{% for message in messages %}{{ message.role }} {{ message.content }} {% endfor %}"
RETRY = RetryPolicy(max_delay_s=0.05, give_up_after_s=60.0, reply_timeout_s=60.0)
PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_text_bundle(tmp_path_factory.mktemp("bundle"))


def _behave(peer) -> None:
    peer.welcome()
    peer.serve()


@pytest.fixture
def server():
    with hostile_server(_behave) as running:
        yield running


@pytest.fixture
def generator(bundle, server):
    with TextGenerator.open(bundle, server.url, codec="fp32", retry=RETRY) as opened:
        yield opened


def _greedy(count: int) -> list[int]:
    """What the model continues the prompt with."""
    ids = list(PROMPT)
    for _ in range(count):
        hidden = expected_hidden(np.array(ids), "shared-kv")
        ids.append(int(expected_logits(hidden, "shared-kv")[-1].argmax()))
    return ids[len(PROMPT) :]


def test_the_text_is_the_models(generator) -> None:
    result = generator.generate(PROMPT, max_new_tokens=10)
    assert list(result.token_ids) == _greedy(10)
    assert result.prompt_token_ids == tuple(PROMPT)
    assert result.text.split() == [f"w{token}" for token in result.token_ids]
    assert result.finish_reason == "length"
    assert result.stats.round_trips == 10
    again = generator.generate(PROMPT, max_new_tokens=10)
    assert again.token_ids == result.token_ids
    assert (result.stats.cached_tokens, again.stats.cached_tokens) == (0, len(PROMPT) - 1)


def test_the_first_token_has_a_cost_of_its_own(generator) -> None:
    result = generator.generate(PROMPT, max_new_tokens=4)
    first, rest = result.prompt_stats, result.stats - result.prompt_stats
    assert (first.round_trips, rest.round_trips) == (1, 3)
    assert (first.prompt_tokens, first.completion_tokens) == (len(PROMPT), 1)
    assert rest.completion_tokens == 3
    # Each later token is one position in one frame, and the prompt was eight in one.
    alone = rest.bytes_up // 3
    assert rest.bytes_up == 3 * alone
    assert first.bytes_up < 8 * alone
    assert 0 < first.ttft_s == first.total_s < result.stats.total_s
    once = generator.generate(PROMPT, max_new_tokens=1)
    assert once.prompt_stats.round_trips == once.stats.round_trips == 1


def test_what_was_sent_can_be_looked_at(generator) -> None:
    assert generator.sent_states().shape == (0, generator.bundle.manifest.geometry.hidden_size)
    ids = [*PROMPT, *generator.generate(PROMPT, max_new_tokens=3).token_ids]
    ids = ids[: len(generator.held_token_ids)]
    head, _ = TextModel.load(generator.bundle).graphs(generator.split)
    expected = head.run(np.array(ids), 0, head.new_cache(len(ids)))
    np.testing.assert_allclose(generator.sent_states(), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(generator.sent_states(2), generator.sent_states()[-2:])
    assert len(generator.sent_states(999)) == len(ids)
    generator.forget()
    assert not len(generator.sent_states())
    with pytest.raises(UsageError, match="last"):
        generator.sent_states(-1)


def test_a_running_stream_tells_its_cost_so_far(generator) -> None:
    stream = generator.stream(PROMPT, max_new_tokens=5)
    assert stream.stats.completion_tokens == stream.stats.bytes_up == 0
    next(stream)
    early = stream.stats
    assert (early.prompt_tokens, early.round_trips) == (len(PROMPT), 1)
    assert 0 < early.ttft_s <= early.total_s
    for _ in stream:
        pass
    assert stream.stats == stream.result.stats
    assert stream.stats.bytes_up > early.bytes_up


def test_what_is_forgotten_is_sent_again(generator) -> None:
    first = generator.generate(PROMPT, max_new_tokens=2)
    running = generator.stream(PROMPT, max_new_tokens=9)
    next(running)
    generator.forget()
    again = generator.generate(PROMPT, max_new_tokens=2)
    assert again.token_ids == first.token_ids
    assert again.stats.cached_tokens == 0
    assert again.stats.bytes_up == first.stats.bytes_up
    with pytest.raises(UsageError, match="another generation"):
        list(running)


def test_scores_are_log_probabilities(generator) -> None:
    logits = expected_logits(expected_hidden(np.array(PROMPT), "shared-kv"), "shared-kv")
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    expected = np.log(chances[np.arange(len(PROMPT) - 1), PROMPT[1:]])
    assert generator.score(PROMPT) == pytest.approx(expected, rel=1e-4)
    with pytest.raises(UsageError, match="two tokens"):
        generator.score([1])


def test_a_score_is_told_of_its_pieces_and_ended_between_two(bundle, server) -> None:
    class Enough(Exception):
        pass

    def end(done, tokens):
        told.append((done, tokens))
        if len(told) == 2:
            raise Enough

    told: list[tuple[int, int]] = []
    with TextGenerator.open(
        bundle, server.url, codec="fp32", retry=RETRY, chunk_tokens=3
    ) as generator:
        wanted = generator.score(PROMPT, on_prompt=lambda *so_far: told.append(so_far))
        assert told == [(3, 7), (5, 7), (7, 7)]
        told.clear()
        with pytest.raises(Enough):
            generator.score(PROMPT, on_prompt=end)
        assert len(told) == 2
        assert list(generator.generate(PROMPT, max_new_tokens=5).token_ids) == _greedy(5)
        np.testing.assert_array_equal(generator.score(PROMPT), wanted)


def test_a_score_that_is_interrupted_while_it_adds_up_leaves_the_generator_usable(
    bundle, server, monkeypatch
) -> None:
    def interrupted(logits, _):
        next(logits)
        raise KeyboardInterrupt

    with TextGenerator.open(
        bundle, server.url, codec="fp32", retry=RETRY, chunk_tokens=2
    ) as generator:
        monkeypatch.setattr(generator_module, "log_probabilities", interrupted)
        with pytest.raises(KeyboardInterrupt) as kept:  # as a notebook keeps the last one
            generator.score(PROMPT)
        assert list(generator.generate(PROMPT, max_new_tokens=5).token_ids) == _greedy(5)
        assert kept.value.__traceback__ is not None


def test_a_text_too_long_to_be_scored_costs_nothing_of_what_is_held(generator) -> None:
    generator.generate(PROMPT, max_new_tokens=3)
    held = list(generator.held_token_ids)
    assert len(generator.score([1] * (POSITIONS + 1))) == POSITIONS
    generator.generate(PROMPT, max_new_tokens=3)
    with pytest.raises(PromptTooLong, match="66 tokens"):
        generator.score([1] * (POSITIONS + 2))
    assert list(generator.held_token_ids) == held


@pytest.mark.parametrize("smaller", [1, 3, 5])
def test_a_replica_with_smaller_frames_changes_nothing(bundle, smaller) -> None:
    def script(peer):
        peer.welcome(max_chunk_tokens=6 if peer.number == 0 else smaller, max_in_flight=2)
        if peer.number == 0:
            peer.reply(peer.forward())  # the first chunk of the prompt
            peer.forward()
            return
        peer.serve()

    with (
        hostile_server(script) as server,
        TextGenerator.open(bundle, server.url, codec="fp32", retry=RETRY) as generator,
    ):
        result = generator.generate(PROMPT, max_new_tokens=5)
    assert list(result.token_ids) == _greedy(5)
    assert result.stats.reconnects == 1


WRONG_OPENINGS = {
    "tokenizer": ({"tokenizer": {}}, {}, TokenizerInvalid),
    "template": ({"template": b"{% if %}"}, {}, ChatTemplateInvalid),
    "template's bytes": ({"template": b"\xff\xfe"}, {}, ChatTemplateInvalid),
    "template's size": ({"template": b" " * 5_000_000}, {}, ChatTemplateInvalid),
    "codec": ({}, {"codec": "fp8"}, UsageError),
    "positions": ({}, {"max_positions": POSITIONS + 1}, UsageError),
    "no positions": ({}, {"max_positions": 0}, UsageError),
    "half a position": ({}, {"max_positions": 2.5}, UsageError),
    "chunk": ({}, {"chunk_tokens": 0}, UsageError),
    "token": ({}, {"token": "a\nb"}, UsageError),
}


@pytest.mark.parametrize("case", WRONG_OPENINGS)
def test_nothing_connects_before_everything_else_is_right(tmp_path, case) -> None:
    made, asked, error = WRONG_OPENINGS[case]
    made = write_text_bundle(tmp_path, **made)
    with hostile_server(_behave) as server:
        with pytest.raises(error):
            TextGenerator.open(made, server.url, **asked)
        assert not server.peers


def test_a_bundle_of_another_kind_is_refused(tmp_path) -> None:
    manifest = write_text_bundle(tmp_path).manifest
    write_manifest(tmp_path, msgspec.structs.replace(manifest, kind="diffusion"))
    with hostile_server(_behave) as server:
        with pytest.raises(ManifestInvalid, match=r"manifest\.json cannot be used: .*diffusion"):
            TextGenerator.open(tmp_path, server.url)
        assert not server.peers


def test_progress_of_a_prompt_is_told_piece_by_piece(bundle) -> None:
    told: list[tuple[int, int]] = []

    def generate(llm: TextGenerator, prompt: list[int]) -> list[tuple[int, int]]:
        told.clear()
        with llm.stream(
            prompt, max_new_tokens=2, on_prompt=lambda *so_far: told.append(so_far)
        ) as stream:
            list(stream)
        return list(told)

    with (
        hostile_server(_behave) as server,
        TextGenerator.open(bundle, server.url, retry=RETRY, chunk_tokens=3) as llm,
    ):
        assert generate(llm, PROMPT) == [(3, 8), (6, 8), (8, 8)]
        # What is still held needs no time.
        assert generate(llm, [*PROMPT[:6], 7, 7, 7, 7]) == [(2, 4), (4, 4)]


def test_a_refusal_is_told_at_once(bundle) -> None:
    def script(peer):
        peer.socket.recv()
        peer.error(PositionsRefused(64, 32))

    with hostile_server(script) as server:
        with pytest.raises(PositionsRefused, match="--max-positions"):
            TextGenerator.open(bundle, server.url, retry=RETRY)
        assert len(server.peers) == 1


@pytest.mark.parametrize("count", [0, -1, 2.5, "3", None])
def test_a_number_of_new_tokens_that_makes_no_sense(generator, count) -> None:
    with pytest.raises(UsageError, match="max_new_tokens"):
        generator.stream(PROMPT, max_new_tokens=count)


def test_a_prompt_beyond_the_positions(generator) -> None:
    with pytest.raises(PromptTooLong):
        generator.stream([1] * (POSITIONS + 1))


def test_a_closed_stream_has_a_result_and_the_generator_goes_on(generator) -> None:
    expected = generator.generate(PROMPT, max_new_tokens=10)
    with generator.stream(PROMPT, max_new_tokens=10) as stream:
        said = [next(stream), next(stream)]
        with pytest.raises(UsageError, match="has not ended"):
            _ = stream.result
    result = stream.result
    assert result.finish_reason == "cancelled"
    assert result.text == "".join(said)
    assert result.token_ids == expected.token_ids[: len(result.token_ids)]
    assert 2 <= len(result.token_ids) < 10
    assert result.stats.completion_tokens == len(result.token_ids)
    assert result.stats.bytes_up > 0
    assert result.stats.total_s >= result.stats.ttft_s > 0
    assert next(stream, None) is None
    assert generator.generate(PROMPT, max_new_tokens=10).token_ids == expected.token_ids
    assert stream.result == result


def test_closing_changes_nothing_after_the_end_and_needs_no_beginning(generator) -> None:
    stream = generator.stream(PROMPT, max_new_tokens=3)
    pieces = list(stream)
    stream.close()
    assert stream.result.finish_reason == "length"
    assert stream.result.text == "".join(pieces)
    unstarted = generator.stream(PROMPT)
    unstarted.close()
    assert unstarted.result.finish_reason == "cancelled"
    assert unstarted.result.token_ids == ()
    assert unstarted.result.stats.tokens_per_s == 0


def test_a_stop_string_and_a_stop_token_end_the_text(tmp_path, server, generator) -> None:
    tokens = _greedy(10)
    fourth = tokens[3]
    at = tokens.index(fourth)
    result = generator.generate(PROMPT, max_new_tokens=10, stop=[f"w{fourth}"])
    assert result.finish_reason == "stop"
    assert f"w{fourth}" not in result.text
    made = write_text_bundle(tmp_path, stop_token_ids=(fourth,))
    with TextGenerator.open(made, server.url, codec="fp32", retry=RETRY) as other:
        result = other.generate(PROMPT, max_new_tokens=10)
    assert result.finish_reason == "stop"
    assert list(result.token_ids) == tokens[: at + 1]
    assert result.text.split() == [f"w{token}" for token in tokens[:at]]


def test_the_callers_time_is_not_counted(generator) -> None:
    began, slept_s = time.perf_counter(), 0.0
    stream = generator.stream(PROMPT, max_new_tokens=4)
    for _ in stream:
        asleep = time.perf_counter()
        time.sleep(0.1)
        slept_s += time.perf_counter() - asleep
    assert stream.result.stats.total_s <= time.perf_counter() - began - slept_s


def test_another_streams_costs_are_not_counted(generator) -> None:
    first = generator.stream(PROMPT, max_new_tokens=4)
    next(first)
    generator.generate([7] * 40, max_new_tokens=20)
    first.close()
    assert first.result.stats.bytes_up < generator.generate([8] * 40).stats.bytes_up / 2


def test_a_closed_generator_stays_closed(bundle) -> None:
    with hostile_server(_behave) as server:
        with TextGenerator.open(bundle, server.url, retry=RETRY) as generator:
            generator.generate(PROMPT, max_new_tokens=2)
            running = generator.stream(PROMPT, max_new_tokens=9)
            next(running)
        generator.close()
        for use in (generator.generate, generator.stream, generator.score):
            with pytest.raises(UsageError, match="closed"):
                use(PROMPT)
        with pytest.raises(UsageError, match="closed"):
            generator.forget()
        with pytest.raises(UsageError, match="closed"):
            list(running)
        assert len(server.peers) == 1


def test_settings_are_passed_on(bundle) -> None:
    with (
        hostile_server(_behave, token="secret") as server,
        TextGenerator.open(
            bundle,
            server.url,
            token="secret",
            max_positions=20,
            chunk_tokens=3,
            runtime=RuntimeSettings(threads=1),
        ) as generator,
    ):
        sampling = SamplingSettings(temperature=1.0, seed=1)
        generator.generate(PROMPT, max_new_tokens=2, sampling=sampling)
        with pytest.raises(PromptTooLong):
            generator.generate([1] * 21)
    (peer,) = server.peers
    assert peer.hello.max_positions == 20
    assert [frame.tokens for frame in peer.forwards] == [3, 3, 2, 1]


def test_it_says_what_it_is(bundle, server) -> None:
    with TextGenerator.open(bundle, server.url, retry=RETRY) as generator:
        generator.generate(PROMPT, max_new_tokens=3)
        told = f"model {bundle.manifest.model.id}, split 1,1, holds 10 of {POSITIONS} tokens"
        assert repr(generator) == f"<TextGenerator: {told}, is open>"
        assert "holds <b>10 of" in generator._repr_html_()
    assert repr(generator).endswith("is closed>")
