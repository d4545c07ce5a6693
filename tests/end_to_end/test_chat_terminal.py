"""``lambda-split chat`` and ``generate`` on a real terminal and in a pipe, with a real server."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import stat
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.pseudo_terminal import ALT_ENTER, CTRL_C, CTRL_D, ENTER, UP, PseudoTerminal, on_terminal
from tests.servers import TrunkServer, serving
from tests.valve import valve_before

QUESTION = "Tell me a story about a fox and a lantern."
READY = "> "
# The line's end, and the line editor's word that what is pasted is no longer its own.
ENTERED = r"\r\n(?:\x1b\[\?2004l\r)?"


@pytest.fixture(scope="module")
def server() -> Iterator[TrunkServer]:
    with serving("demo") as running:
        yield running


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    return {
        **os.environ,
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "TERM": "xterm",
        "OMP_NUM_THREADS": "1",
        "INPUTRC": os.devnull,
        "PYTHONPATH": str(pathlib.Path(__file__).parents[2]),
    }


@pytest.fixture
def arguments(bundle, server) -> list[str]:
    where = ["--bundle", str(bundle("demo").path), "--url", server.url]
    return [*where, "--threads", "1", "--temperature", "0"]


def ask(terminal: PseudoTerminal, keys: str) -> None:
    terminal.expect(READY)
    terminal.type(keys + ENTER)


@pytest.mark.slow
def test_ctrl_c_stops_the_answer_and_not_the_chat(arguments, environment, server, tmp_path) -> None:
    saved = tmp_path / "talk.json"
    with contextlib.ExitStack() as stack:
        valve = stack.enter_context(valve_before(server.port))
        words = [valve.url if word == server.url else word for word in arguments]
        terminal = stack.enter_context(on_terminal("chat", *words, environment=environment))
        with valve.held_after(10_000):  # bytes, some 20 tokens: the answer surely has no end yet
            ask(terminal, QUESTION)
            said = terminal.expect(rf"lantern\.{ENTERED}(\w+)")[1]
            terminal.type(CTRL_C)
            terminal.expect(" …")
        ask(terminal, "What did the fox find?")
        terminal.expect(rf"find\?{ENTERED}\w+")
        ask(terminal, f"/save {saved}")
        terminal.expect("saved as")
        ask(terminal, "/stats")
        terminal.expect(r"still cached.*\bin all: ")
        ask(terminal, "/reset")
        terminal.expect("a new conversation")
        ask(terminal, "/save")
        terminal.expect("nothing was said yet")
        ask(terminal, CTRL_C)  # the Enter behind it is an empty line, which changes nothing
        terminal.expect("Ctrl-C once more")
        ask(terminal, "/quit")
        assert terminal.end() == 0
    messages = json.loads(saved.read_text(encoding="utf-8"))["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"] * 2
    assert messages[0]["content"] == QUESTION
    assert messages[1]["content"].startswith(said)
    assert messages[3]["content"]


@pytest.mark.slow
def test_several_lines_history_and_the_end(arguments, environment, tmp_path) -> None:
    history = tmp_path / "state" / "lambda-split" / "chat_history"
    short = [*arguments, "--max-new-tokens", "4"]
    saved = tmp_path / "talk.json"
    with on_terminal("chat", *short, environment=environment) as terminal:
        ask(terminal, '"""')
        terminal.expect(r"\. ")
        terminal.type("one" + ENTER)
        terminal.expect(r"\. ")
        terminal.type('two"""' + ENTER)
        ask(terminal, f"three{ALT_ENTER}four")
        ask(terminal, "\x1b[200~five\nsix\x1b[201~")  # pasted
        ask(terminal, "seven\\")
        terminal.expect(r"\. ")
        terminal.type("eight" + ENTER)
        ask(terminal, f"/save {saved}")
        terminal.expect("saved as")
        # At an empty prompt twice; something typed in between is only forgotten.
        for typed, shown in (("", "once more"), ("typed", "\n"), ("", "once more"), ("", "\n")):
            terminal.expect(READY)
            terminal.type(typed)
            terminal.expect(typed)  # Ctrl-C drops what the program has not read yet
            terminal.interrupt(shown)
        assert terminal.end() == 0
    said = [turn["content"] for turn in json.loads(saved.read_text())["messages"][::2]]
    assert said == ["one\ntwo", "three\nfour", "five\nsix", "seven\neight"]
    kept = [json.loads(line) for line in history.read_text().splitlines()]
    assert kept == [*said, f"/save {saved}"]
    assert stat.S_IMODE(history.stat().st_mode) == 0o600

    with on_terminal("chat", *short, environment=environment) as terminal:
        ask(terminal, UP + UP)
        terminal.expect("eight")
        ask(terminal, "/regenerate")
        ask(terminal, f"/save {tmp_path / 'again.json'}")
        terminal.expect("saved as")
        terminal.expect(READY)
        terminal.type(CTRL_D)
        assert terminal.end() == 0
    messages = json.loads((tmp_path / "again.json").read_text())["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"]
    assert messages[0]["content"] == "seven\neight"

    before = history.read_text()
    with on_terminal("chat", *short, "--no-history", environment=environment) as terminal:
        ask(terminal, "a secret")
        ask(terminal, UP + UP)  # nothing before it
        terminal.expect(READY)
        terminal.type(CTRL_D)
        assert terminal.end() == 0
    assert history.read_text() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colours_are_for_those_who_want_them(arguments, environment, settings, coloured) -> None:
    with on_terminal("chat", *arguments, environment={**environment, **settings}) as terminal:
        ask(terminal, "/help")
        terminal.expect("/regenerate")
        ask(terminal, "/nonsense")
        terminal.expect("no command /nonsense")
        terminal.expect(READY)
        terminal.type(CTRL_D)
        assert terminal.end() == 0
    assert ("\x1b[31m" in terminal.shown) is coloured
    assert ("\x1b[2m" in terminal.shown) is coloured


def _pipe(
    *words: str, environment: dict[str, str], said: str | bytes
) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "lambda_split.cli", *words]
    data = said.encode() if isinstance(said, str) else said
    return subprocess.run(command, input=data, capture_output=True, env=environment, check=False)


@pytest.mark.slow
def test_a_pipe_gets_answers_alone(arguments, environment, tmp_path) -> None:
    short = [*arguments, "--max-new-tokens", "4"]
    said = f'{QUESTION}\n/nonsense\n"""\n/quit\n"""\n/help'  # no line break at the end
    done = _pipe("chat", *short, environment=environment, said=said)
    assert done.returncode == 1  # since one of them is no command
    assert b"\x1b" not in done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 2
    assert b"no command /nonsense" in done.stderr
    assert b"/regenerate" in done.stderr
    assert not (tmp_path / "state").exists()  # what a program says is not kept

    strict = {**environment, "PYTHONIOENCODING": "utf-8:strict"}  # as most locales have it
    done = _pipe("chat", *short, environment=strict, said=b"\xff\xfe\n" + QUESTION.encode())
    assert done.returncode == 1
    assert b"not UTF-8" in done.stderr
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.slow
def test_generate_reads_what_is_piped_in(arguments, environment) -> None:
    words = ["generate", *arguments, "--max-new-tokens", "4", "--quiet"]
    asked = _pipe(*words, "--prompt", "Once upon a time", environment=environment, said="")
    assert asked.returncode == 0
    assert asked.stdout
    piped = _pipe(*words, environment=environment, said="Once upon a time\n")
    assert (piped.returncode, piped.stdout) == (0, asked.stdout)

    wrong = _pipe(*words, environment=environment, said=b"\xff")
    assert wrong.returncode == 2
    assert b"not UTF-8" in wrong.stderr
    with on_terminal(*words, environment=environment) as terminal:  # nobody pipes anything in
        terminal.expect("give --prompt TEXT, or pipe")
        assert terminal.end() == 2
