"""The log: its two layouts, what cannot fake a line, what happens where it cannot be written."""

import json
import logging
import os
import pathlib
import re
import subprocess
import sys
import time

import pytest

from cloud.logs import JsonLines, StderrHandler, TextLines, fields, log_to_stderr
from tests.cloud.serving import Device, hidden_states, run
from tests.cloud.test_command import command, environment, process

ROOT = pathlib.Path(__file__).parents[2]
HOSTILE = "x\n2026-01-01T00:00:00.000Z INFO faked\r\x1b[2J\u2028\x00"


def record(message, *values, error=None, **told):
    trace = (type(error), error, error.__traceback__) if error else None
    made = logging.LogRecord("cloud.test", logging.INFO, __file__, 1, message, values, trace)
    vars(made).update(fields(**told))
    return made


def test_text_has_the_sentence_and_the_fields():
    line = TextLines().format(record("session %s", "open", session="ab12", code=None, seconds=1.5))
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO "
        r"session open session=ab12 code=None seconds=1\.5",
        line,
    )


def test_json_has_the_same_as_an_object():
    line = JsonLines().format(record("session %s", "open", session="ab12", code=None, seconds=1.5))
    told = json.loads(line)
    assert told.pop("time").endswith("Z")
    assert told == {
        "level": "info",
        "logger": "cloud.test",
        "message": "session open",
        "session": "ab12",
        "code": None,
        "seconds": 1.5,
    }


@pytest.mark.parametrize("layout", [TextLines, JsonLines])
def test_what_a_device_sends_stays_on_its_line(layout):
    line = layout().format(record(f"refused: {HOSTILE}", agent=HOSTILE))
    assert line.isprintable()
    assert line.splitlines() == [line]


def test_a_field_with_spaces_or_signs_cannot_look_like_another():
    line = TextLines().format(record("open", agent='a b session=faked "', empty=""))
    assert line.endswith('agent="a b session=faked \\"" empty=""')


def test_fields_do_not_replace_what_every_line_has():
    assert json.loads(JsonLines().format(record("x", level="faked")))["level"] == "info"


def fail():
    raise RuntimeError(HOSTILE)


def broken():
    try:
        fail()
    except RuntimeError as error:
        return error


def test_tracebacks_are_indented_so_that_an_error_s_words_fake_no_line():
    first, *rest = TextLines().format(record("it broke", error=broken())).splitlines()
    assert first.endswith("INFO it broke")
    assert len(rest) > 3
    assert all(row.startswith("  | ") and row.isprintable() for row in rest)


def test_tracebacks_are_a_field_in_json():
    line = JsonLines().format(record("it broke", error=broken()))
    assert "\n" not in line
    assert "RuntimeError" in json.loads(line)["traceback"]


@pytest.mark.parametrize("layout", [TextLines, JsonLines])
def test_a_long_line_is_cut(layout):
    assert len(layout().format(record("x" * 1_000_000))) < 20_000


def closed(handler):
    """Close it, and wait for its thread: on a busy machine it may need longer than it is given."""
    handler.close()
    handler._thread.join(30)
    assert not handler._thread.is_alive()


def lines_of(read_end):
    os.set_blocking(read_end, False)
    return os.read(read_end, 1 << 16).decode().splitlines()


def test_lines_come_in_order_and_all_of_them():
    read_end, write_end = os.pipe()
    handler = StderrHandler(write_end)
    for index in range(100):
        handler.emit(record("line %d", index))
    closed(handler)
    assert lines_of(read_end) == [f"line {index}" for index in range(100)]
    assert handler.lost == 0
    os.close(read_end)
    os.close(write_end)


def test_a_full_disk_loses_lines_counts_them_and_raises_nothing():
    descriptor = os.open("/dev/full", os.O_WRONLY)
    lost = []
    handler = StderrHandler(descriptor, on_lost=lambda: lost.append(1))
    for index in range(10):
        handler.emit(record("line %d", index))
    closed(handler)
    os.close(descriptor)
    assert (handler.lost, len(lost)) == (10, 10)


def test_a_closed_pipe_loses_lines_and_raises_nothing():
    read_end, write_end = os.pipe()
    os.close(read_end)
    handler = StderrHandler(write_end)
    handler.emit(record("line"))
    closed(handler)
    os.close(write_end)
    assert handler.lost == 1


def test_a_reader_that_does_not_read_holds_nobody_up_and_costs_bounded_memory():
    read_end, write_end = os.pipe()
    handler = StderrHandler(write_end)
    began = time.monotonic()
    for index in range(5000):
        handler.emit(record("x" * 1000, index))
    assert handler.lost > 3000  # the pipe holds some, the queue a thousand
    handler.close()
    assert time.monotonic() - began < 30
    os.close(read_end)  # lets its thread go
    handler._thread.join(30)
    assert not handler._thread.is_alive()
    os.close(write_end)


def test_a_call_with_wrong_arguments_raises_nothing():
    read_end, write_end = os.pipe()
    handler = StderrHandler(write_end)
    handler.emit(record("%d", "no number"))
    handler.close()
    assert handler.lost == 1
    os.close(read_end)
    os.close(write_end)


def test_logging_is_as_before_when_the_block_ends():
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    with log_to_stderr("debug", "json") as handler:
        assert handler in root.handlers
        assert root.level == logging.DEBUG
    assert (root.level, list(root.handlers)) == before


def test_every_line_of_a_server_is_json_and_tells_its_session(model):
    async def scenario(url):
        async with Device.connected(url, model.hello(agent=HOSTILE)) as device:
            await device.forward(50, hidden_states(1))  # a gap: rejected
            await device.socket.send(device.session.close())
            await device.socket.wait_closed()
            return device.welcome.session

    arguments = (model.folder, "--port", 0, "--threads", 1, "--log-format", "json")
    with process(*arguments) as server:
        session = run(scenario(server.stdout.readline().split()[-1]))
        server.terminate()
        _, log = server.communicate(timeout=60)
    told = [json.loads(line) for line in log.splitlines()]
    mine = [each for each in told if each.get("session") == session]
    assert [each["message"] for each in mine] == [
        "session open",
        "forward rejected",
        "session closed",
    ]
    assert mine[0]["agent"] == HOSTILE
    assert mine[1]["code"] == "position-gap"


@pytest.mark.parametrize("layout", ["text", "json"])
def test_a_server_whose_log_is_full_serves(model, layout):
    async def scenario(url):
        async with Device.connected(url, model.hello()) as device:
            return await device.forward(0, hidden_states(3))

    with (
        pathlib.Path("/dev/full").open("w") as full,
        subprocess.Popen(
            command(model.folder, "--port", 0, "--threads", 1, "--log-format", layout),
            stdout=subprocess.PIPE,
            stderr=full,
            text=True,
            cwd=ROOT,
            env=environment(),
        ) as server,
    ):
        try:
            assert len(run(scenario(server.stdout.readline().split()[-1]))) == 3
            server.terminate()
            assert server.wait(60) == 0
        finally:
            server.kill()


def test_help_and_configuration_need_no_log():
    program = "import sys, cloud.command; sys.exit('cloud.logs' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, env=environment())
