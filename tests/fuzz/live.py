"""Changed frames against a live server, while honest devices use it.

python -m tests.fuzz.live --frames 100000
python -m tests.fuzz.live --pictures --frames 10000

Every conversation follows from the seed and its number. Afterwards the server must live, hold no
more memory or descriptors than before, and have no fault in its log.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import pathlib
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from tests.faults.crowd import Crowd, Devices
from tests.faults.ground import Ground, make_ground, serves
from tests.faults.measure import PeakMemory, complaints, settled, vitals, wait_until
from tests.faults.raw import RawConnection, address_of, dial
from tests.faults.report import Report, header
from tests.fuzz.conversations import Speech, changed_bytes, changed_messages, text_speech
from tests.fuzz.painting import Painters, PictureGround, make_picture_ground, paints
from tests.fuzz.picture_conversations import picture_speech
from tests.servers import TrunkServer

__all__ = ["Subject", "fuzz_live", "of_pictures", "of_text"]

_SETTLE_S = 45.0


@dataclass(frozen=True)
class Subject:
    """What is fuzzed.

    Attributes:
        model: What is served.
        speech: How its devices talk.
        crowd: Honest devices at an address, as many as are said.
        serves: Whether a server is still of use to one.
    """

    model: str
    speech: Speech
    crowd: Callable[[str, int], Devices]
    serves: Callable[[str], bool]


def of_text(ground: Ground) -> Subject:
    """A server of a language model."""
    return Subject(
        ground.model,
        text_speech(ground.hello, ground.width),
        lambda url, devices: Crowd(ground, [url], devices),
        lambda url: serves(ground, url),
    )


def of_pictures(ground: PictureGround) -> Subject:
    """A server of a denoiser."""
    return Subject(
        ground.model,
        picture_speech(ground.hello, ground.geometry),
        lambda url, devices: Painters(ground, url, devices),
        lambda url: paints(ground, url),
    )


def fuzz_live(
    subject: Subject, *, frames: int, seed: int = 0, connections: int = 16, devices: int = 3
) -> Report:
    """Send that many changed frames over so many connections at a time."""
    report = Report("live")
    warming = min(2000, frames // 10)  # for what grows once: pools of the allocator, and caches
    begin = time.monotonic()
    server = TrunkServer(subject.model, "--max-sessions", "64")
    try:
        server.start()
        asyncio.run(_fuzz(subject.speech, server.url, warming, seed + 1, connections))
        with subject.crowd(server.url, devices):
            time.sleep(2.0)
        before = settled(server.pid)
        report.warm = before.rss
        with PeakMemory(server.pid) as peak, subject.crowd(server.url, devices) as crowd:
            report.tally = crowd.tally
            fuzzing = _fuzz(subject.speech, server.url, frames, seed, connections)
            report.events = asyncio.run(fuzzing)
        report.peak = peak.rss
        wait_until(lambda: vitals(server.pid).descriptors <= before.descriptors, _SETTLE_S)
        after = vitals(server.pid)
        report.after, report.descriptors = after.rss, (before.descriptors, after.descriptors)
        report.serves = subject.serves(server.url)
        report.complaints = complaints(server.log())
    finally:
        server.close()
        report.seconds = time.monotonic() - begin
    return report


async def _fuzz(speech: Speech, url: str, frames: int, seed: int, connections: int) -> int:
    """Returns the number of changed frames that were sent."""
    sent = started = 0

    async def converse_on() -> None:
        nonlocal sent, started
        while sent < frames:
            rng = random.Random(f"{seed}/{started}")
            started += 1
            # Refused, cut off, or too many at a time: all of that is as it should be.
            with contextlib.suppress(OSError, EOFError):
                async for changed in _converse(speech, url, rng):
                    sent += changed

    async with asyncio.timeout(60 + frames):
        await asyncio.gather(*(converse_on() for _ in range(connections)))
    return sent


async def _converse(speech: Speech, url: str, rng: random.Random) -> AsyncIterator[int]:
    """One conversation; yields how many changed frames were sent with each piece."""
    device = RawConnection(*await dial(url))
    try:
        if rng.random() < 0.75:
            await device.upgrade()
            pieces = changed_messages(speech, rng)
        else:
            pieces = changed_bytes(speech, address_of(url), rng)
        ended = asyncio.ensure_future(_read(device))
        try:
            for piece in pieces:
                await device.write(piece.data)
                await asyncio.sleep(0)
                if ended.done():
                    return
                yield piece.changed
            if rng.random() < 0.9:  # the others are gone before the answers come
                await asyncio.wait({ended}, timeout=rng.choice((0.0, 0.01, 0.1)))
        finally:
            ended.cancel()
    finally:
        device.abort()


async def _read(device: RawConnection) -> None:
    with contextlib.suppress(OSError):
        while await device.reader.read(65536):
            pass


def main() -> int:
    """Fuzz; 1 where it did harm, 2 where memory grew."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz.live",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--pictures", action="store_true", help="of a server of pictures")
    parser.add_argument("--frames", type=int, default=100_000, help="(%(default)s)")
    parser.add_argument("--connections", type=int, default=16, help="at a time (%(default)s)")
    parser.add_argument("--clients", type=int, default=3, help="honest devices (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    args = parser.parse_args()
    logging.getLogger("edge_runtime").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        report = fuzz_live(
            of_pictures(make_picture_ground(place))
            if args.pictures
            else of_text(make_ground(place)),
            frames=args.frames,
            seed=args.seed,
            connections=args.connections,
            devices=args.clients,
        )
    print(header(), report.line(), sep="\n")
    for text in (*report.harm()[:50], *report.excess()):
        print(f"    {text}")
    return 1 if report.harm() else 2 if report.excess() else 0


if __name__ == "__main__":
    sys.exit(main())
