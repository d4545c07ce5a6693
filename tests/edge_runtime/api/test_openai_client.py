"""OpenAI's own client against a server that runs."""

from __future__ import annotations

import concurrent.futures
import math
import subprocess
import sys

import numpy as np
import pytest

from edge_runtime import Message, SamplingSettings, TextGenerator
from tests.edge_runtime.api.servers import ENDLESS

STORY = "Tell me a story about a fox and a lantern."
MESSAGES = [{"role": "user", "content": STORY}]


@pytest.fixture(scope="module")
def generator(demo_bundle, trunk):
    """The library with the same bundle, trunk and codec: what ``generate`` prints."""
    with TextGenerator.open(demo_bundle, trunk.url, codec="fp32") as opened:
        yield opened


def test_models(client) -> None:
    (model,) = client.models.list().data
    assert model.id == "demo"
    assert client.models.retrieve("demo") == model


def test_a_chat_is_what_the_library_says(client, generator) -> None:
    answer = client.chat.completions.create(model="demo", messages=MESSAGES, max_tokens=40)
    expected = generator.generate([Message("user", STORY)], max_new_tokens=40)
    (choice,) = answer.choices
    assert choice.message.content == expected.text
    assert choice.message.role == "assistant"
    assert choice.finish_reason == expected.finish_reason == "length"
    assert answer.usage.prompt_tokens == len(expected.prompt_token_ids)
    assert answer.usage.completion_tokens == 40
    assert answer.usage.total_tokens == len(expected.prompt_token_ids) + 40
    assert answer.system_fingerprint


def test_a_completion_is_what_the_command_prints(client, demo_bundle, trunk) -> None:
    command = [sys.executable, "-m", "lambda_split.cli", "generate", "--quiet", "--codec", "fp32"]
    where = ("--bundle", str(demo_bundle.path), "--url", trunk.url)
    sampling = ("--temperature", "0.8", "--seed", "11", "--max-new-tokens", "40")
    run = subprocess.run(
        [*command, *where, *sampling, "--prompt", "Once upon a time"],
        capture_output=True,
        text=True,
        check=True,
    )
    answer = client.completions.create(
        model="demo", prompt="Once upon a time", temperature=0.8, seed=11, max_tokens=40
    )
    assert answer.choices[0].text == run.stdout.removesuffix("\n")


def test_a_chat_without_a_limit_ends_by_itself(client, generator) -> None:
    question = [{"role": "user", "content": "Hello!"}]
    answer = client.chat.completions.create(model="demo", messages=question, seed=1)
    expected = generator.generate([Message("user", "Hello!")], max_new_tokens=1024)
    assert expected.finish_reason == "stop"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content == expected.text


def test_a_streamed_chat_has_the_shape_that_clients_expect(client, generator) -> None:
    stream = client.chat.completions.create(
        model="demo",
        messages=MESSAGES,
        max_completion_tokens=40,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    *body, last = chunks
    assert body[0].choices[0].delta.role == "assistant"
    assert all(chunk.choices[0].delta.role is None for chunk in body[1:])
    assert all(chunk.usage is None for chunk in body)
    assert [chunk.choices[0].finish_reason for chunk in body[:-1]] == [None] * (len(body) - 1)
    assert body[-1].choices[0].finish_reason == "length"
    assert last.choices == []
    assert last.usage.completion_tokens == 40
    assert len({chunk.id for chunk in chunks}) == 1
    said = "".join(chunk.choices[0].delta.content or "" for chunk in body)
    assert said == generator.generate([Message("user", STORY)], max_new_tokens=40).text
    assert len(body) > 20  # piece by piece, not at once


def test_a_stream_without_usage_has_none(client) -> None:
    stream = client.chat.completions.create(
        model="demo", messages=MESSAGES, max_tokens=2, stream=True
    )
    assert all(chunk.choices and chunk.usage is None for chunk in stream)


def test_a_second_turn_sends_only_what_is_new(client) -> None:
    first = client.chat.completions.create(model="demo", messages=MESSAGES, max_tokens=60)
    # The answer as it came, as people append it.
    turns = [*MESSAGES, first.choices[0].message, {"role": "user", "content": "Where?"}]
    second = client.chat.completions.create(model="demo", messages=turns, max_tokens=5)
    cached = second.usage.prompt_tokens_details.cached_tokens
    assert cached >= first.usage.prompt_tokens + 50


def test_parts_and_developers_are_taken(client, generator) -> None:
    answer = client.chat.completions.create(
        model="demo",
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": STORY}]},
        ],
        max_tokens=10,
    )
    messages = [Message("system", "Be brief."), Message("user", STORY)]
    assert answer.choices[0].message.content == generator.generate(messages, max_new_tokens=10).text


def test_sampling_and_seeds_are_those_of_the_library(client, generator) -> None:
    answer = client.completions.create(
        model="demo",
        prompt="Once upon a time",
        max_tokens=24,
        temperature=0.9,
        top_p=0.95,
        seed=7,
        n=3,
        extra_body={"top_k": 50},
    )
    for place, choice in enumerate(answer.choices):
        sampling = SamplingSettings(temperature=0.9, top_p=0.95, top_k=50, seed=7 + place)
        expected = generator.generate("Once upon a time", max_new_tokens=24, sampling=sampling)
        assert (choice.index, choice.text) == (place, expected.text)
    assert len({choice.text for choice in answer.choices}) == 3
    assert answer.usage.completion_tokens == 72
    assert answer.usage.prompt_tokens == len(generator.tokenize("Once upon a time"))


def test_prompts_as_texts_and_as_tokens(client, generator) -> None:
    texts = ["Once upon a time", "The fox"]
    ids = [generator.tokenize(text) for text in texts]
    answers = [
        client.completions.create(model="demo", prompt=prompt, max_tokens=8)
        for prompt in (texts, ids)
    ]
    expected = [generator.generate(text, max_new_tokens=8).text for text in texts]
    for answer in answers:
        assert [choice.text for choice in answer.choices] == expected
    alone = client.completions.create(model="demo", prompt=ids[1], max_tokens=8)
    assert [choice.text for choice in alone.choices] == expected[1:]
    assert answers[0].usage.prompt_tokens == sum(map(len, ids))


@pytest.mark.parametrize("stop", [" there", ["zzz", " there lived"]])
def test_stop_strings_end_the_text_and_its_tokens(client, generator, stop) -> None:
    stops = [stop] if isinstance(stop, str) else stop
    expected = generator.generate("Once upon a time", max_new_tokens=40, stop=stops)
    assert expected.finish_reason == "stop"
    for streams in (False, True):
        answer = client.completions.create(
            model="demo",
            prompt="Once upon a time",
            max_tokens=40,
            stop=stop,
            logprobs=0,
            stream=streams,
        )
        parts = list(answer) if streams else [answer]
        choices = [choice for part in parts for choice in part.choices]
        assert "".join(choice.text for choice in choices) == expected.text
        assert choices[-1].finish_reason == "stop"
        tokens = [token for choice in choices for token in choice.logprobs.tokens]
        assert "".join(tokens) == expected.text


def test_log_probabilities_are_those_of_scoring(client, generator) -> None:
    for streams in (False, True):
        answer = client.chat.completions.create(
            model="demo",
            messages=MESSAGES,
            max_tokens=30,
            temperature=1.2,
            seed=5,
            logprobs=True,
            top_logprobs=3,
            stream=streams,
        )
        parts = list(answer) if streams else [answer]
        tokens = [
            token
            for part in parts
            if part.choices[0].logprobs
            for token in part.choices[0].logprobs.content
        ]
        # What the model thinks, not what was drawn from: neither temperature nor top-p is in it.
        sampling = SamplingSettings(temperature=1.2, seed=5)
        result = generator.generate([Message("user", STORY)], max_new_tokens=30, sampling=sampling)
        ids = [*result.prompt_token_ids, *result.token_ids]
        scored = generator.score(ids)[-len(result.token_ids) :]
        found = np.array([token.logprob for token in tokens])
        assert np.abs(found - scored).max() < 1e-3
        assert b"".join(bytes(token.bytes) for token in tokens).decode() == result.text
        for token in tokens:
            top = [other.logprob for other in token.top_logprobs]
            assert top == sorted(top, reverse=True)
            assert len(top) == 3
            assert math.fsum(map(math.exp, top)) <= 1 + 1e-9
            assert token.logprob <= top[0]


@pytest.mark.parametrize("most", [0, 1, 5])
def test_a_sampled_token_is_among_a_completion_s_likely_ones(client, most) -> None:
    for streams in (False, True):
        answer = client.completions.create(
            model="demo",
            prompt="Once upon a time",
            max_tokens=20,
            temperature=2,
            seed=5,
            logprobs=most,
            stream=streams,
        )
        parts = list(answer) if streams else [answer]
        unlikely = 0
        for found in (part.choices[0].logprobs for part in parts):
            for token, logprob, top in zip(
                found.tokens, found.token_logprobs, found.top_logprobs, strict=True
            ):
                assert top[token] == logprob
                unlikely += len(top) == most + 1
        assert unlikely  # or this would not show anything


def test_a_stop_token_is_not_among_the_tokens(client) -> None:
    question = [{"role": "user", "content": "Hello!"}]
    answer = client.chat.completions.create(model="demo", messages=question, logprobs=True)
    (choice,) = answer.choices
    assert choice.finish_reason == "stop"
    assert "".join(token.token for token in choice.logprobs.content) == choice.message.content
    assert len(choice.logprobs.content) == answer.usage.completion_tokens - 1


def test_a_streamed_completion(client, generator) -> None:
    stream = client.completions.create(
        model="demo",
        prompt="Once upon a time",
        max_tokens=20,
        n=2,
        stream=True,
        stream_options={"include_usage": True},
    )
    texts = {0: "", 1: ""}
    ends = []
    for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            ends += [choice.finish_reason] if choice.finish_reason else []
    expected = generator.generate("Once upon a time", max_new_tokens=20).text
    assert texts == {0: expected, 1: expected}
    assert ends == ["length", "length"]
    assert chunk.usage.completion_tokens == 40


def test_eight_at_once_are_as_one_after_the_other(client, generator) -> None:
    prompts = [f"Once upon a time there lived a {name}" for name in ["fox", "owl", "bat", "hen"]]
    expected = [generator.generate(prompt, max_new_tokens=24).text for prompt in prompts]

    def ask(prompt: str) -> str:
        answer = client.completions.create(model="demo", prompt=prompt, max_tokens=24)
        return answer.choices[0].text

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        assert list(threads.map(ask, prompts * 2)) == expected * 2


def test_a_cancelled_stream_frees_its_session(api, client) -> None:
    # Who may not repeat a word, the last one included, says hundreds of them.
    streams = [
        client.chat.completions.create(
            model="demo",
            messages=MESSAGES,
            temperature=0,
            stream=True,
            n=16,
            extra_body={"repetition_penalty": 1000},
        )
        for _ in range(2)
    ]
    for stream in streams:
        next(iter(stream))
    assert api.state()["busy"] == 2
    for stream in streams:
        stream.close()
    api.await_idle()  # thousands of tokens earlier than by itself
    answer = client.completions.create(model="demo", prompt="The fox", max_tokens=2, timeout=60)
    assert answer.usage.completion_tokens == 2
    assert api.state()["sessions"] == 2


def test_a_client_that_does_not_wait_for_its_answer_frees_the_session(api, client) -> None:
    with pytest.raises(Exception, match="timed out"):
        client.completions.create(**ENDLESS, timeout=0.5)
    api.await_idle()
