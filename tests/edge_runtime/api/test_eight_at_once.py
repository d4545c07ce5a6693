"""Eight requests at a time, each with a session, say what eight commands say."""

from __future__ import annotations

import concurrent.futures
import json
import subprocess
import sys
import threading

import pytest

from tests.edge_runtime.api.servers import running_api

# They begin differently, so that none takes a session that another one has left.
PROMPTS = [
    "Once upon a time",
    "The fox",
    "A lantern",
    "In the old forest",
    "Hello!",
    "My friend the owl",
    "Why does it rain?",
    "Far away by the sea",
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def expected(demo_bundle, trunk) -> list[str]:
    """What the command prints, one after the other."""
    command = [sys.executable, "-m", "lambda_split.cli", "generate", "--json", "--codec", "fp32"]
    where = ("--bundle", str(demo_bundle.path), "--url", trunk.url, "--threads", "1")
    texts = []
    for seed, prompt in enumerate(PROMPTS):
        sampling = ("--temperature", "0.8", "--seed", str(seed), "--max-new-tokens", "48")
        run = subprocess.run(
            [*command, *where, *sampling, "--prompt", prompt],
            capture_output=True,
            text=True,
            check=True,
        )
        texts.append(json.loads(run.stdout)["text"])
    return texts


@pytest.mark.parametrize("streams", [False, True])
def test_they_say_what_the_command_says(demo_bundle, trunk, expected, streams) -> None:
    begin = threading.Barrier(len(PROMPTS))
    arguments = ("--bundle", str(demo_bundle.path), "--url", trunk.url, "--codec", "fp32")

    def ask(seed: int, prompt: str) -> str:
        begin.wait(60)
        answer = client.completions.create(
            model="demo",
            prompt=prompt,
            max_tokens=48,
            temperature=0.8,
            seed=seed,
            stream=streams,
        )
        parts = list(answer) if streams else [answer]
        return "".join(choice.text for part in parts for choice in part.choices)

    with (
        running_api(*arguments, "--max-sessions", "8") as api,
        api.client() as client,
        concurrent.futures.ThreadPoolExecutor(len(PROMPTS)) as threads,
    ):
        found = list(threads.map(ask, range(len(PROMPTS)), PROMPTS))
        assert api.state()["sessions"] == len(PROMPTS)
    assert found == expected
