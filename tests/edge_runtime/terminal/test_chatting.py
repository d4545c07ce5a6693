"""The loop of a chat, with hand-made graphs: what is kept when something goes wrong."""

from __future__ import annotations

import io
import json
import os
import pathlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from edge_runtime import RetryPolicy, SamplingSettings, TextGenerator
from edge_runtime.terminal.chatting import Chat, ChatSettings
from edge_runtime.terminal.history import ChatHistory
from edge_runtime.terminal.interrupts import Interrupts
from lambda_split.bundle import TextSettings, describe_files, write_manifest
from lambda_split.cli import main
from lambda_split.errors import InternalError
from tests.edge_runtime.hostile_server import hostile_server
from tests.edge_runtime.some_graphs import VOCAB, write_bundle

TOKENIZER = {
    "version": "1.0",
    "added_tokens": [],
    "pre_tokenizer": {"type": "WhitespaceSplit"},
    "model": {
        "type": "WordLevel",
        "vocab": {f"w{number}": number for number in range(VOCAB)},
        "unk_token": "w0",
    },
}
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
    "{{ message.content }} {% endfor %}"
)
RETRY = RetryPolicy(max_delay_s=0.02, give_up_after_s=0.3, reply_timeout_s=60.0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> pathlib.Path:
    return _bundle(tmp_path_factory.mktemp("bundle"), TOKENIZER)


def _bundle(folder: pathlib.Path, tokenizer: dict[str, Any]) -> pathlib.Path:
    manifest = write_bundle(folder, "shared-kv").manifest
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "template.jinja").write_text(TEMPLATE)
    text = TextSettings(tokenizer="tokenizer.json", chat_template="template.jinja")
    files = describe_files(folder, [*manifest.files, "tokenizer.json", "template.jinja"])
    write_manifest(folder, msgspec.structs.replace(manifest, text=text, files=files))
    return folder


class Screen(io.StringIO):
    """A terminal, as far as a program can ask."""

    def isatty(self) -> bool:
        return True


class Script:
    """A line source that says its lines; what can be called is called on the way."""

    def __init__(self, *lines: str | Callable[[], object]) -> None:
        self._lines: Iterator[str | Callable[[], object]] = iter(lines)

    def read(self, *, continuing: bool) -> str:
        del continuing
        for line in self._lines:
            if isinstance(line, str):
                return line
            line()
        raise EOFError

    def typed(self) -> str:
        return ""

    def remember(self, entry: str) -> None:
        """There is nobody to offer it to."""


def _behave(peer) -> None:
    peer.welcome()
    peer.serve()


def _chat(bundle, url, *lines, history=None, max_positions=48, **sampling) -> bool:
    settings = ChatSettings(
        max_new_tokens=3, sampling=SamplingSettings(**{"temperature": 0.0, **sampling})
    )
    with TextGenerator.open(bundle, url, retry=RETRY, max_positions=max_positions) as generator:
        chat = Chat(generator, settings, Script(*lines), history=history, interactive=False)
        return chat.run()


def _said(path: pathlib.Path) -> list[str]:
    return [turn["content"] for turn in json.loads(path.read_text())["messages"]]


@pytest.mark.parametrize("program", ["chat", "generate"])
def test_what_a_model_says_commands_no_terminal(program, tmp_path, monkeypatch) -> None:
    says = "\x1b]52;c;ZXZpbA==\x07\x9b2J"  # fills the clipboard, then clears the screen
    words = {f"{says}{number}": number for number in range(VOCAB)}
    model = {**TOKENIZER["model"], "vocab": words, "unk_token": f"{says}0"}
    folder = _bundle(tmp_path, {**TOKENIZER, "model": model})

    def said(stdout: io.StringIO) -> str:
        monkeypatch.setattr("sys.stdout", stdout)
        with hostile_server(_behave) as server:
            if program == "chat":
                _chat(folder, server.url, "hello")
            else:
                link = ["--bundle", str(folder), "--url", server.url, "--codec", "fp32"]
                main(["generate", *link, "--prompt", "x", "--max-new-tokens", "3", "--quiet"])
        return stdout.getvalue()

    raw, shown = said(io.StringIO()), said(Screen())
    assert raw.count(says) == 3  # programs get it as it is
    assert shown == raw.translate(dict.fromkeys(map(ord, "\x1b\x07\x9b"), "\ufffd"))


def test_a_lost_server_costs_the_question_and_not_the_conversation(
    bundle, tmp_path, capsys
) -> None:
    gone = threading.Event()

    def script(peer) -> None:
        if gone.is_set():
            peer.socket.recv()
            peer.error(InternalError("x"))
            return
        peer.welcome()
        while True:
            forward = peer.forward()
            if gone.is_set():
                return
            peer.reply(forward)

    saved = tmp_path / "talk.json"
    with hostile_server(script) as server:
        lines = ("w1 w2", gone.set, "w3", "/regenerate", gone.clear, "w4", f"/save {saved}")
        _chat(bundle, server.url, *lines)
    said = _said(saved)
    assert said[::2] == ["w1 w2", "w4"]
    assert all(len(answer.split()) == 3 for answer in said[1::2])
    told = capsys.readouterr()
    assert told.err.count("say it again to try once more") == 2
    assert len(told.out.splitlines()) == 2


def test_messages_that_the_template_refuses_can_be_taken_back(bundle, tmp_path, capsys) -> None:
    saved = tmp_path / "talk.json"
    with hostile_server(_behave) as server:
        lines = ("/system w9", "w1", "/system", "/system -", "w1", f"/save {saved}")
        _chat(bundle, server.url, *lines)
    assert _said(saved)[::2] == ["w1"]
    told = capsys.readouterr().err
    assert "no system here" in told
    assert told.count("system message: w9") == 2
    assert "no system message" in told


def test_a_full_conversation_says_what_to_do(bundle, capsys) -> None:
    with hostile_server(_behave) as server:
        lines = ("w1 w2 w3 w4", "w5 w6", "/reset", "w7")
        assert not _chat(bundle, server.url, *lines, max_positions=8)
    told = capsys.readouterr()
    assert "the conversation is full: 9 tokens, the session holds 8" in told.err
    assert len(told.out.splitlines()) == 2


def test_another_answer_is_another_and_repeatable(bundle, tmp_path) -> None:
    paths = [tmp_path / f"{number}.json" for number in range(3)]
    sampling = {"temperature": 100.0, "seed": 4}
    with hostile_server(_behave) as server:
        for path in paths[:2]:
            _chat(bundle, server.url, "w1", "/regenerate", f"/save {path}", **sampling)
        _chat(bundle, server.url, "w1", f"/save {paths[2]}", **sampling)
    once, twice, first = map(_said, paths)
    assert once == twice
    assert len(once) == 2
    assert once != first


def test_commands_that_need_an_answer(bundle, capsys) -> None:
    with hostile_server(_behave) as server:
        _chat(bundle, server.url, "/regenerate", "/save", "/stats", "", "/quit", "w1")
    told = capsys.readouterr()
    assert told.err.count("nothing was said yet") == 3
    assert told.out == ""  # nothing is answered after /quit


@pytest.mark.parametrize(
    ("entered", "code"),
    [(b"w1\nw2\n", 0), (b"w1 w2 w3 w4 w5 w6 w7\nw5\n", 1), (b"\xff\nw1\n", 1), (b"", 0)],
)
def test_scripts_learn_whether_all_was_answered(bundle, entered, code, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(entered), encoding="utf-8"))
    with hostile_server(_behave) as server:
        link = ["--bundle", str(bundle), "--url", server.url, "--codec", "fp32"]
        bounds = ["--max-positions", "8", "--max-new-tokens", "1", "--temperature", "0"]
        assert main(["chat", *link, *bounds]) == code


def test_a_history_that_cannot_be_kept_ends_nothing(bundle, tmp_path, capsys) -> None:
    (tmp_path / "file").touch()
    history = ChatHistory(tmp_path / "file" / "chat_history")
    with hostile_server(_behave) as server:
        assert _chat(bundle, server.url, "w1", "w2", history=history)  # all was answered
    told = capsys.readouterr()
    assert told.err.count("no history from here on") == 1
    assert len(told.out.splitlines()) == 2


def test_interrupts_break_where_that_was_asked_for_and_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    interrupts = Interrupts()
    tidied: list[str] = []

    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    def answer() -> None:
        with interrupts.breaking():
            try:
                interrupt()
            finally:
                interrupt()  # what is tidied up is not broken off
                tidied.append("all")

    with interrupts.governed():
        interrupt()  # nothing is going on
        with pytest.raises(KeyboardInterrupt):
            answer()
        interrupt()
    assert tidied == ["all"]
    assert signal.getsignal(signal.SIGINT) is before
