"""Runs an attack in a process of its own, so that it takes no time from the honest devices.

``python -m tests.faults.attackers NAME URL WIDTH COUNT SEED`` reads the hello from stdin's first
line, attacks until stdin ends, and prints how often each client began.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from lambda_split.errors import LambdaSplitError
from tests.faults.attacks import ATTACKS, Attack, Victim
from tests.faults.ground import Ground

__all__ = ["AttackProcess", "attacking"]

# What comes of being refused, cut off or timed out: all of it is as it should be.
_EXPECTED = (OSError, EOFError, asyncio.LimitOverrunError, LambdaSplitError)


@dataclass
class AttackProcess:
    """An attack under way; ``attempts`` is there when it has ended."""

    process: subprocess.Popen[str]
    attempts: int = 0


@contextlib.contextmanager
def attacking(
    ground: Ground, url: str, name: str, *, clients: int, seed: int
) -> Iterator[AttackProcess]:
    """Attack from another process inside a ``with`` block."""
    command = [sys.executable, "-m", "tests.faults.attackers", name, url]
    command += [str(ground.width), str(clients), str(seed)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        running = AttackProcess(process)
        try:
            process.stdin.write(ground.hello + "\n")
            process.stdin.flush()
            assert process.stdout.readline() == "attacking\n"
            yield running
            process.stdin.close()
            running.attempts = int(process.stdout.read())
        finally:
            process.kill()


async def _client(attack: Attack, victim: Victim, number: int, seed: int, count: list[int]) -> None:
    rng = random.Random(seed * 1_000_003 + number)
    while True:
        count[0] += 1
        with contextlib.suppress(*_EXPECTED):
            await attack(victim, rng, number)
        await asyncio.sleep(rng.uniform(0.005, 0.05))


async def _attack(name: str, victim: Victim, clients: int, seed: int) -> int:
    loop = asyncio.get_running_loop()
    count = [0]
    tasks = [
        asyncio.create_task(_client(ATTACKS[name], victim, number, seed, count))
        for number in range(clients)
    ]
    sys.stdout.write("attacking\n")
    sys.stdout.flush()
    ended = loop.run_in_executor(None, sys.stdin.read)
    done, _ = await asyncio.wait({ended, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    for task in done - {ended}:
        task.result()  # an attacker that fails on its own account is no attack
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return count[0]


def main() -> None:
    """Attack until stdin ends."""
    name, url, width, clients, seed = sys.argv[1:]
    victim = Victim(url, sys.stdin.readline().rstrip("\n"), int(width))
    print(asyncio.run(_attack(name, victim, int(clients), int(seed))))


if __name__ == "__main__":
    main()
