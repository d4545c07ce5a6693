"""The faults: each is done to a real server while honest devices generate."""

from __future__ import annotations

import contextlib
import pathlib
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.cutting_proxy import cutting_proxy
from tests.faults.attackers import attacking
from tests.faults.crowd import Crowd
from tests.faults.ground import MAX_POSITIONS, Ground, serves
from tests.faults.measure import PeakMemory, complaints, percentile, settled, vitals, wait_until
from tests.faults.report import Report
from tests.servers import TrunkServer

__all__ = ["SCENARIOS", "NotPossible", "Options", "Scenario"]

# A position takes 1 kB in the tiny trunk, and sessions have up to 160 of them.
_SCARCE_KB = 80
_SETTLE_S = 40.0  # two pings: a server may take that long to see that somebody is gone


class NotPossible(Exception):
    """This server cannot be put into that situation."""


@dataclass(frozen=True)
class Options:
    """How long and how hard.

    Attributes:
        seconds: Of the undisturbed and the disturbed time together, without start and end.
        clients: Honest devices.
        seed: Of everything random.
        kills: How often the server is killed.
        kv_memory: What ``--kv-memory`` gets where the pool shall be full; None is too little for
            as many clients as there are.
        attackers: Hostile clients, where it is not the scenario that says how many.
    """

    seconds: float = 60.0
    clients: int = 20
    seed: int = 0
    kills: int = 50
    kv_memory: str | None = None
    attackers: int = 16


Scenario = Callable[[Ground, Options], Report]


# --- the server is there all the time -----------------------------------------------------------


def _attacked(name: str, clients: int | None = None) -> Scenario:
    """Hostile clients of one kind, from another process."""

    def scenario(ground: Ground, options: Options) -> Report:
        arguments = ("--max-sessions", "64", "--token-file", ground.tokens)
        server = TrunkServer(ground.model, *arguments)
        count = options.attackers if clients is None else clients
        with _observed(name, ground, server, options) as (report, crowd):
            with attacking(ground, server.url, name, clients=count, seed=options.seed) as attack:
                _go_on(report, crowd, server, options.seconds * 2 / 3)
            report.events = attack.attempts
        return report

    return scenario


def cut(ground: Ground, options: Options) -> Report:
    """Every other device's connections are cut, at any byte, all the time."""
    server = TrunkServer(ground.model, "--max-sessions", "64")
    port = server.port
    with cutting_proxy(port, seed=options.seed, low=600, high=60_000) as proxy:
        urls = [f"ws://127.0.0.1:{port}", proxy.url]
        with _observed("cut", ground, server, options, urls) as (report, crowd):
            many = 1_000_000
            proxy.arm(cuts=many)
            _go_on(report, crowd, server, options.seconds * 2 / 3)
            report.events = many - proxy.cuts_left
            proxy.cuts_left = 0
    return report


def full_server(ground: Ground, options: Options) -> Report:
    """A quarter as many places as devices that want one."""
    places = str(max(1, options.clients // 4))
    return _full("full-server", ground, options, "--max-sessions", places)


def full_pool(ground: Ground, options: Options) -> Report:
    """A pool of keys and values that cannot hold all sessions.

    Raises:
        NotPossible: the server takes no pool that small.
    """
    # One session must fit, whatever it asks for.
    scarce = max(options.clients * _SCARCE_KB, MAX_POSITIONS * 5 // 4)
    memory = options.kv_memory or f"{scarce}kB"
    arguments = ("--max-sessions", "64", "--max-positions", str(MAX_POSITIONS))
    arguments += ("--kv-memory", memory)
    probe = TrunkServer(ground.model, *arguments)
    try:
        probe.start()
    except AssertionError as error:
        if "--kv-memory" not in str(error):
            raise
        raise NotPossible(f"serve does not take --kv-memory {memory}") from error
    finally:
        probe.close()
    return _full("full-pool", ground, options, *arguments)


def _full(name: str, ground: Ground, options: Options, *arguments: str) -> Report:
    server = TrunkServer(ground.model, *arguments)
    with _observed(name, ground, server, options, generations_per_session=1) as (report, crowd):
        _go_on(report, crowd, server, options.seconds * 2 / 3)
    report.quiet_p99 = report.p99 = float("nan")  # it was full before, too
    report.events = report.tally.waits + report.tally.reconnects
    return report


def disk_full(ground: Ground, options: Options) -> Report:
    """Not a line of the log can be written; churning sessions would write many."""
    with pathlib.Path("/dev/full").open("w", encoding="utf-8") as full:
        server = TrunkServer(ground.model, "--max-sessions", "64", "--log-level", "debug", log=full)
        with _observed("disk-full", ground, server, options) as (report, crowd):
            with attacking(ground, server.url, "churn", clients=4, seed=options.seed) as attack:
                _go_on(report, crowd, server, options.seconds * 2 / 3)
            report.events = attack.attempts
    return report


@contextlib.contextmanager
def _observed(
    name: str,
    ground: Ground,
    server: TrunkServer,
    options: Options,
    urls: list[str] | None = None,
    *,
    generations_per_session: int = 4,
) -> Iterator[tuple[Report, Crowd]]:
    """A server with a crowd that has been undisturbed for a while; then what became of both."""
    report = Report(name)
    begin = time.monotonic()
    try:
        server.start()
        # Each device once, so that whatever grows with the first sessions has grown.
        with Crowd(ground, [server.url], options.clients):
            time.sleep(options.seconds / 6)
        idle = settled(server.pid).descriptors
        with Crowd(
            ground,
            urls or [server.url],
            options.clients,
            generations_per_session=generations_per_session,
        ) as crowd:
            report.tally = crowd.tally
            quiet = time.perf_counter()
            time.sleep(options.seconds / 3)
            gaps = crowd.tally.gaps_between(quiet, time.perf_counter())
            report.quiet_p99 = percentile(gaps, 0.99)
            report.warm = vitals(server.pid).rss
            yield report, crowd
        wait_until(lambda: vitals(server.pid).descriptors <= idle, _SETTLE_S)
        after = vitals(server.pid)
        report.after, report.descriptors = after.rss, (idle, after.descriptors)
        report.serves = serves(ground, server.url)
        report.complaints = complaints(server.log())
    finally:
        server.close()
        report.seconds = time.monotonic() - begin


def _go_on(report: Report, crowd: Crowd, server: TrunkServer, seconds: float) -> None:
    """Let the fault last, and measure."""
    with PeakMemory(server.pid) as peak:
        begin = time.perf_counter()
        time.sleep(seconds)
        report.p99 = percentile(crowd.tally.gaps_between(begin, time.perf_counter()), 0.99)
    report.peak = peak.rss


# --- the server dies ----------------------------------------------------------------------------


def kill(ground: Ground, options: Options) -> Report:
    """SIGKILL at random moments: also right after the start, while sessions are replayed."""
    rng = random.Random(options.seed)
    report = Report("kill")
    begin = time.monotonic()
    server = TrunkServer(ground.model, "--max-sessions", "64")
    try:
        server.start()
        with Crowd(ground, [server.url], options.clients) as crowd:
            report.tally = crowd.tally
            time.sleep(1.0)
            for _ in range(options.kills):
                time.sleep(rng.choice((0.0, 0.05, 0.5, 2.0)) * rng.random())
                server.kill()
                report.events += 1
                server.start()
        report.serves = serves(ground, server.url)
        report.complaints = complaints(server.log())
    finally:
        server.close()
        report.seconds = time.monotonic() - begin
    return report


SCENARIOS: dict[str, Scenario] = {
    "kill": kill,
    "cut": cut,
    "full-server": full_server,
    "full-pool": full_pool,
    "disk-full": disk_full,
    "slow-reader": _attacked("slow-reader"),
    "mute": _attacked("mute", clients=500),
    "drip": _attacked("drip", clients=12),
    "flood": _attacked("flood"),
    "garbage": _attacked("garbage"),
    "pings": _attacked("pings"),
    "fragments": _attacked("fragments"),
    "churn": _attacked("churn"),
}
