from __future__ import annotations

import pytest

from audit.texts import open_reader, read_texts, text_rows
from lambda_split.errors import UsageError
from lambda_split.partition import open_checkpoint
from tests.tiny_models import save_tiny


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny("llama", folder)
    return open_reader(open_checkpoint(str(folder)))


@pytest.fixture(scope="module")
def demo():
    return open_reader(open_checkpoint("demo"))


def read(path, reader, **sizes):
    wanted = {"prompts": 2, "prompt_tokens": 12, "measured": 2} | sizes
    return read_texts(path, reader, **wanted)


def test_paragraphs_become_texts_and_none_is_in_two_groups(tmp_path, reader) -> None:
    path = tmp_path / "book.txt"
    paragraphs = [
        f"{number * 7919} is what paragraph {number} says {'word ' * 60}{number}."
        for number in range(12)
    ]
    path.write_text("\n\n".join(paragraphs))
    texts = read(path, reader)
    assert [len(ids) for ids in texts.prompts] == [12, 12]
    assert len(texts.measured) == 2
    assert texts.other
    beginnings = {ids[:10] for ids in (*texts.measured, *texts.prompts)}
    assert len(beginnings) == 4


def test_a_chat_s_first_message_is_the_prompt(tmp_path, demo) -> None:
    path = tmp_path / "chats.jsonl"
    line = '{"messages": [{"role": "user", "content": "Who lives in hut %d by the lake?"},'
    line += ' {"role": "assistant", "content": "A fox lives there."}]}\n'
    path.write_text("".join(line % number for number in range(5)))
    texts = read(path, demo, prompt_tokens=64)
    assert "lake" in demo.decode(texts.prompts[0])
    assert "fox" not in demo.decode(texts.prompts[0])
    assert "fox" in demo.decode(texts.measured[0])


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "line 2: not a document"),
        ("[]", "line 2: not a document"),
        ('{"title": "x"}', "line 2: not a document"),
        ('{"messages": [{"role": "user"}]}', "line 2: not a document"),
        ('{"text": null}', "line 2: not a document"),
        ('{"messages": [{"role": "user", "content": [1]}]}', "line 2: not a document"),
        ('{"messages": [{"role": "system", "content": "be kind"}]}', "line 2: not a document"),
        (
            (
                '{"messages": [{"role": "user", "content": "hello"}, '
                '{"role": "wizard", "content": "hello there"}]}'
            ),
            "line 2: .*Unknown role",
        ),
        ("[" * 100_000, "line 2: not a document"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, demo, line, complaint) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_text('{"text": "A fox lived in the wood and was happy."}\n' + line + "\n")
    with pytest.raises(UsageError, match=complaint):
        read(path, demo)


def test_a_chat_for_a_model_without_a_template(tmp_path, reader) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "hello"}]}\n')
    with pytest.raises(UsageError, match="no chat template"):
        read(path, reader)


def test_too_little_text(tmp_path, demo) -> None:
    path = tmp_path / "short.txt"
    path.write_text("A fox lived in the wood.")
    with pytest.raises(UsageError, match=r"holds 0 texts .*, and 4 are needed: 2 to attack"):
        read(path, demo)


def test_no_such_file_and_no_text(tmp_path, demo) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read(tmp_path / "nothing.txt", demo)
    path = tmp_path / "picture.txt"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="no UTF-8"):
        read(path, demo)


def test_rows_are_short_and_never_tiny() -> None:
    assert [len(row) for row in text_rows([tuple(range(130)), tuple(range(70))])] == [64, 64, 64]
