"""What is kept between chats: where, for whom, and how much."""

from __future__ import annotations

import pathlib
import stat

import pytest

from edge_runtime.terminal.history import ChatHistory, history_path


@pytest.fixture
def path(tmp_path) -> pathlib.Path:
    return tmp_path / "state" / "lambda-split" / "chat_history"


def test_it_lies_in_the_users_folder_for_state(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    usual = tmp_path / ".local" / "state" / "lambda-split" / "chat_history"
    assert history_path({}) == usual
    assert history_path({"XDG_STATE_HOME": "relative"}) == usual
    assert history_path({"XDG_STATE_HOME": "/s"}) == pathlib.Path("/s/lambda-split/chat_history")


def test_entries_come_back_in_order_whatever_they_hold(path) -> None:
    entries = ["one", "two\nlines", "Λ “quoted” \\", '{"a": 1}']
    history = ChatHistory(path)
    for entry in entries:
        history.append(entry)
    assert ChatHistory(path).load() == entries


def test_nothing_is_there_before_something_is_kept(path) -> None:
    assert ChatHistory(path).load() == []
    assert not path.parent.exists()


def test_it_is_its_owners_alone(path) -> None:
    ChatHistory(path).append("one")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_that_others_could_read_is_closed_to_them(path) -> None:
    path.parent.mkdir(parents=True)
    path.touch(0o644)
    ChatHistory(path).append("one")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_same_again_is_kept_once(path) -> None:
    ChatHistory(path).append("two")
    history = ChatHistory(path)
    history.load()
    for entry in ("two", "three", "three", "two"):
        history.append(entry)
    assert history.load() == ["two", "three", "two"]


def test_two_chats_at_once_lose_nothing(path) -> None:
    one, other = ChatHistory(path), ChatHistory(path)
    one.append("a")
    other.append("b")
    one.append("c")
    assert ChatHistory(path).load() == ["a", "b", "c"]


def test_it_is_bounded(path) -> None:
    history = ChatHistory(path)
    history.append("x" * 20_000)
    assert history.load() == []
    for number in range(2001):
        history.append(str(number))
    assert ChatHistory(path).load() == [str(number) for number in range(1001, 2001)]
    assert len(path.read_bytes().splitlines()) == 1000
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_a_line_that_was_broken_off_takes_no_other_with_it(path) -> None:
    ChatHistory(path).append("before")
    with path.open("ab") as file:
        file.write(b'"broken o')
    history = ChatHistory(path)
    history.append("after")
    history.append("last")
    assert history.load() == ["before", "after", "last"]


@pytest.mark.parametrize(
    "line",
    [b"plain", b"\xff\xfe", b"[1]", b"3", b"[" * 99_999, rb'"nu\u0000ll"', rb'"\ud800"'],
)
def test_lines_that_are_no_entries_are_passed_over(path, line) -> None:
    history = ChatHistory(path)
    history.append("before")
    with path.open("ab") as file:
        file.write(line + b"\n")
    history.append("after")
    assert ChatHistory(path).load() == ["before", "after"]


def test_what_cannot_be_read_or_written_is_an_os_error(path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        ChatHistory(path).load()
    with pytest.raises(OSError, match="directory"):
        ChatHistory(path).append("one")
