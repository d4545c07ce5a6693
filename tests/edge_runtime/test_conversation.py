"""What a chat holds, and what of it is saved."""

from __future__ import annotations

import datetime as dt
import json
import resource
import signal
import stat

import pytest

from edge_runtime import GenerationResult, GenerationStats, Message
from edge_runtime.conversation import Conversation
from edge_runtime.terminal.transcript import default_name, save_transcript
from lambda_split.errors import OutputNotWritable, UsageError

NOW = dt.datetime(2031, 4, 5, 6, 7, 8, tzinfo=dt.UTC)


def result(text: str, finish_reason="stop", tokens: int = 1) -> GenerationResult:
    stats = GenerationStats(prompt_tokens=3, completion_tokens=tokens, bytes_up=10, total_s=0.5)
    return GenerationResult(text, (7,) * tokens, (1, 2, 3), finish_reason, stats)


TALK = Conversation("Be kind.").answered("Who?", result("A fox.")).answered("Why?", result("Ha."))


def test_a_prompt_has_all_that_was_said() -> None:
    assert TALK.asking("Where?") == [
        Message("system", "Be kind."),
        Message("user", "Who?"),
        Message("assistant", "A fox."),
        Message("user", "Why?"),
        Message("assistant", "Ha."),
        Message("user", "Where?"),
    ]
    assert Conversation().asking("Who?") == [Message("user", "Who?")]


def test_an_answer_that_was_stopped_keeps_what_was_said() -> None:
    stopped = TALK.answered("Where?", result("In the", "cancelled"))
    assert stopped.messages()[-1] == Message("assistant", "In the")


def test_one_that_was_stopped_before_its_first_word_was_not_asked() -> None:
    stopped = TALK.answered("Where?", result("", "cancelled", tokens=0))
    assert stopped.messages() == TALK.messages()
    assert stopped.spent.bytes_up == TALK.spent.bytes_up + 10  # but it did cost something


def test_an_empty_answer_is_one() -> None:
    assert Conversation().answered("Who?", result("")).messages()[-1].content == ""


def test_the_last_answer_can_be_replaced() -> None:
    before = TALK.without_last()
    again = before.answered(TALK.turns[-1].question, result("Because."), attempt=1)
    assert again.messages()[-2:] == [Message("user", "Why?"), Message("assistant", "Because.")]
    assert len(again.turns) == 2
    assert again.turns[-1].attempt == 1
    assert again.spent.completion_tokens == 3


def test_the_system_message_can_be_set_and_survives_a_reset() -> None:
    terse = TALK.with_system("Be terse.")
    assert terse.messages()[0] == Message("system", "Be terse.")
    assert terse.messages()[1:] == TALK.messages()[1:]
    assert terse.reset() == Conversation("Be terse.")
    assert TALK.with_system(None).messages() == TALK.messages()[1:]


def test_stats_are_of_the_last_answer_and_of_all() -> None:
    assert Conversation().stats() == "nothing was said yet"
    last, *_, everything = TALK.stats().splitlines()
    assert "1 new token," in last
    assert everything.startswith("in all: 2 new tokens in 1.0 s, 20 bytes up")


# --- transcripts ----------------------------------------------------------------------------------


def test_markdown_has_a_heading_for_each_message(tmp_path) -> None:
    path = save_transcript(str(tmp_path / "talk.md"), TALK, model="demo", now=NOW)
    assert path.read_text(encoding="utf-8") == (
        "# A chat with demo\n\n2031-04-05 06:07\n\n## System\n\nBe kind.\n\n"
        "## You\n\nWho?\n\n## Model\n\nA fox.\n\n## You\n\nWhy?\n\n## Model\n\nHa.\n"
    )


def test_json_has_the_messages_as_programs_take_them(tmp_path) -> None:
    talk = Conversation().answered('"é"\n', result("Λ"))
    path = save_transcript(str(tmp_path / "talk.JSON"), talk, model="demo", now=NOW)
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "model": "demo",
        "saved": "2031-04-05T06:07:08+00:00",
        "messages": [
            {"role": "user", "content": '"é"\n'},
            {"role": "assistant", "content": "Λ"},
        ],
    }


def test_a_transcript_is_its_owners_alone(tmp_path) -> None:
    path = save_transcript(str(tmp_path / "talk.md"), TALK, model="demo", now=NOW)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_without_a_name_it_is_called_after_the_time(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = save_transcript("", TALK, model="demo", now=NOW)
    assert [one.name for one in tmp_path.iterdir()] == [str(path)] == [default_name(NOW)]


def test_home_may_be_a_tilde(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert save_transcript("~/a.md", TALK, model="demo", now=NOW) == tmp_path / "a.md"


def test_nothing_is_written_over(tmp_path) -> None:
    path = tmp_path / "talk.md"
    path.write_text("mine")
    with pytest.raises(OutputNotWritable, match="exists"):
        save_transcript(str(path), TALK, model="demo", now=NOW)
    assert path.read_text() == "mine"


@pytest.mark.parametrize("name", ["talk.txt", "talk", "talk.md.bak", "folder/"])
def test_only_formats_that_there_are(tmp_path, name) -> None:
    with pytest.raises(UsageError, match=r"\.md or \.json"):
        save_transcript(str(tmp_path / name), TALK, model="demo", now=NOW)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["no/such/folder/a.md", "nul\0.md", f"{'long' * 100}.md"])
def test_where_nothing_can_be_written(tmp_path, name) -> None:
    with pytest.raises(OutputNotWritable):
        save_transcript(str(tmp_path / name), TALK, model="demo", now=NOW)


def test_a_full_disk_leaves_nothing_behind(tmp_path) -> None:

    # A file may not grow: writing fails as on a full disk.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
        with pytest.raises(OutputNotWritable):
            save_transcript(str(tmp_path / "talk.md"), TALK, model="demo", now=NOW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []
