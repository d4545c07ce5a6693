"""Prompts of all kinds: text, messages, token ids."""

from __future__ import annotations

import numpy as np
import pytest

from edge_runtime import Message, TextGenerator
from lambda_split.errors import PromptEmpty, UsageError
from tests.edge_runtime.hostile_server import hostile_server
from tests.edge_runtime.some_graphs import VOCAB
from tests.edge_runtime.some_texts import write_text_bundle

TEMPLATE = "{% for message in messages %}{{ message.role }} {{ message.content }} {% endfor %}"


def _behave(peer) -> None:
    peer.welcome()
    peer.serve()


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("w3 w1 w4", [3, 1, 4]),
        ([3, 1, 4], [3, 1, 4]),
        ((3, 1, 4), [3, 1, 4]),
        (range(3), [0, 1, 2]),
        (np.array([3, 1, 4]), [3, 1, 4]),
        ([np.int64(3), np.uint8(1)], [3, 1]),
        ([Message("w1", "w2")], [1, 2]),
        ([{"role": "w1", "content": "w2"}], [1, 2]),
        ([Message("w1", "w2"), {"role": "w3", "content": "w4"}], [1, 2, 3, 4]),
    ],
)
def test_prompts_of_all_kinds(tmp_path, prompt, expected) -> None:
    made = write_text_bundle(tmp_path, template=TEMPLATE.encode())
    with hostile_server(_behave) as server, TextGenerator.open(made, server.url) as generator:
        ids = generator.tokenize(prompt)
    assert ids == expected
    assert all(type(token) is int for token in ids)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([1, "x", 2], "item 1 is a str"),
        ([1, 2, {"role": "w1"}], "item 2 is a dict"),
        ([True, False], "item 0 is a bool"),
        ([1.0], "item 0 is a float"),
        ([None], "item 0 is a NoneType"),
        (np.array([[1, 2], [3, 4]]), "item 0 is a ndarray"),
        (np.array([0.5]), "item 0 is a float64"),
        ([Message("w1", "w2"), 5], "item 1 is an int"),
        ([{"role": "w1"}], "item 0 must have"),
        ([{"role": "w1", "content": "w2", "name": "w3"}], "item 0 must have"),
        ([{"role": "w1", "content": None}], "must be strings"),
        ({"role": "w1", "content": "w2"}, "not a dict"),
        (b"w1", "not a bytes"),
        (None, "not a NoneType"),
        (5, "not an int"),
        ([VOCAB], "no token of this model"),
        ([-1], "no token of this model"),
    ],
)
def test_nothing_in_a_prompt_is_dropped(tmp_path, prompt, message) -> None:
    made = write_text_bundle(tmp_path, template=TEMPLATE.encode())
    with (
        hostile_server(_behave) as server,
        TextGenerator.open(made, server.url) as generator,
        pytest.raises(UsageError, match=message),
    ):
        generator.tokenize(prompt)


def test_messages_need_a_chat_template(tmp_path) -> None:
    made = write_text_bundle(tmp_path)
    with hostile_server(_behave) as server, TextGenerator.open(made, server.url) as generator:
        with pytest.raises(UsageError, match="no chat template"):
            generator.tokenize([Message("w1", "w2")])
        for empty in ("", [], ()):
            with pytest.raises(PromptEmpty):
                generator.tokenize(empty)
