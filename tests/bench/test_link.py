"""The emulated link that benchmarks use: slow as asked, and nothing is lost or changed."""

import contextlib
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from bench.link import Traffic, _Proxy, emulated_link
from bench.link_settings import LinkSettings
from lambda_split.errors import UsageError


@contextlib.contextmanager
def _echo():
    def serve():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=repeat, args=(listener.accept()[0],), daemon=True).start()

    def repeat(connection):
        with contextlib.suppress(OSError), connection:
            while data := connection.recv(1 << 16):
                connection.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[:2]


def _read(connection, count):
    found = b""
    while len(found) < count and (data := connection.recv(1 << 16)):
        found += data
    return found


def test_a_description_means_its_numbers():
    settings = LinkSettings.parse(
        "rtt=60ms,jitter=500us,up=20Mbit,down=1Gbit,queue=0.1s,stall=1s/10s,cut=30s"
    )
    assert settings == LinkSettings(
        rtt=0.06,
        jitter=0.0005,
        up=2.5e6,
        down=1.25e8,
        queue=0.1,
        stall=1,
        stall_every=10,
        cut_every=30,
    )
    assert LinkSettings.parse("") == LinkSettings()
    assert math.isinf(LinkSettings().up)


@pytest.mark.parametrize(
    "wrong",
    [
        "rtt",
        "rtt=60",
        "rtt=60Mbit",
        "up=20ms",
        "up=0Mbit",
        "speed=1ms",
        "rtt=-1ms",
        "stall=2s",
        "stall=2s/1s",
        "cut=0s",
        "rtt=1ms;up=1Mbit",
    ],
)
def test_a_description_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(UsageError, match=r"the link .*(no|0|stalls)"):
        LinkSettings.parse(wrong)


def test_bytes_come_through_as_they_were_and_not_too_early():
    data = np.random.default_rng(0).bytes(500_000)
    with (
        _echo() as to,
        emulated_link(to, "rtt=50ms,jitter=5ms,up=8Mbit,stall=50ms/200ms") as link,
        socket.create_connection(link.address) as connection,
    ):
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"  # the emulated handshake is over
        begin = time.monotonic()
        connection.sendall(b"y")
        assert connection.recv(1) == b"y"
        assert time.monotonic() - begin >= 0.05
        begin = time.monotonic()
        threading.Thread(target=connection.sendall, args=(data,)).start()
        assert _read(connection, len(data)) == data
        assert time.monotonic() - begin >= 0.5 + 0.05  # a megabyte a second


def test_who_sends_more_than_the_queue_holds_has_to_wait():
    with (
        _echo() as to,
        emulated_link(to, "up=1Mbit,queue=10ms") as link,
        socket.create_connection(link.address) as connection,
    ):
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.sendall(bytes(20_000_000))


def test_the_end_of_a_connection_comes_through():
    with (
        _echo() as to,
        emulated_link(to, "rtt=10ms") as link,
        socket.create_connection(link.address) as connection,
    ):
        connection.sendall(b"last words")
        connection.shutdown(socket.SHUT_WR)
        assert _read(connection, 1000) == b"last words"


def test_a_cut_ends_and_a_stall_delays():
    with _echo() as to, emulated_link(to, "rtt=0ms") as link:
        with socket.create_connection(link.address) as connection:
            connection.sendall(b"x")
            assert connection.recv(1) == b"x"
            link.cut()
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(1) == b""
        with socket.create_connection(link.address) as connection:
            connection.sendall(b"y")
            assert connection.recv(1) == b"y"
            begin = time.monotonic()
            link.stall(1.0)
            link.carried()  # answered when it has read that
            connection.sendall(b"z")
            assert connection.recv(1) == b"z"
            assert time.monotonic() - begin >= 1.0


def test_nobody_at_the_other_end():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        with (
            emulated_link(probe.getsockname(), "") as link,
            socket.create_connection(link.address) as connection,
        ):
            assert connection.recv(1) == b""


def test_it_counts_what_it_carries():
    with (
        _echo() as to,
        emulated_link(to, "rtt=1ms") as link,
        socket.create_connection(link.address) as connection,
    ):
        assert link.carried() == Traffic(up=0, down=0)
        connection.sendall(bytes(1000))
        assert len(_read(connection, 1000)) == 1000
        assert link.carried() == Traffic(up=1000, down=1000)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("rtt=1ms",), "--to is missing"),
        (("--to", "somewhere", "rtt=1ms"), "'somewhere' is not HOST:PORT"),
        (("--to", "127.0.0.1:70000"), "is not HOST:PORT"),
        (("--to", "127.0.0.1:1", "rtt=1"), "'1' is not a number with one of"),
    ],
)
def test_wrong_use_is_2(arguments, complaint):
    command = [sys.executable, "-m", "bench.link", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert complaint in done.stderr


@contextlib.contextmanager
def _by_hand(*arguments):
    """A link as somebody starts it in a terminal; said where it listens."""
    command = [sys.executable, "-m", "bench.link", *arguments]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, text=True, **pipes) as process:
        try:
            assert process.stdout.readline().startswith("listening on 127.0.0.1:")
            yield process
        finally:
            process.kill()


def test_who_types_something_else_is_told_and_the_link_goes_on():
    with _by_hand("--to", "127.0.0.1:1") as process:
        told = process.communicate("\nstall x\nstall nan\nstall\nfly\ncount\n")
        assert process.returncode == 0
    assert told[0] == "carried 0 0\n"
    assert told[1].splitlines() == [
        f"{words!r} is none of: stall SECONDS, cut, count"
        for words in ("stall x", "stall nan", "stall", "fly")
    ]


def test_ctrl_c_ends_it_quietly():
    with _by_hand("--to", "127.0.0.1:1") as process:
        process.stdin.write("count\n")
        process.stdin.flush()
        assert process.stdout.readline() == "carried 0 0\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate()[1] == ""
        assert process.returncode == 0


def test_a_link_of_nobody_ends_without_a_word():
    """Who is interrupted while he starts one may be gone before it says where it listens."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as nowhere:
        done = subprocess.run(
            [sys.executable, "-m", "bench.link", "--to", "127.0.0.1:1"],
            stdin=subprocess.DEVNULL,
            stdout=nowhere,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "")


def test_a_port_that_is_taken_is_told():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [sys.executable, "-m", "bench.link", "--listen", address, "--to", "127.0.0.1:1"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"bench.link: cannot listen on {address}: Address already in use")
    assert done.stderr.count("\n") == 1


def test_a_link_that_ends_before_it_accepts_does_so_quietly():
    """The accepting thread may begin after the main thread has closed the listener."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.close()
    _Proxy(listener, ("127.0.0.1", 1), LinkSettings()).run()
