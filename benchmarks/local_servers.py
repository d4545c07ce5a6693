"""What the local API and the page cost over the library: the same answer by each, in turns.

One trunk serves all of them, on the same machine. The most likely answer of the shipped model to
one question is made by the library, streamed by OpenAI's client from ``api``, and written on the
page of ``ui`` in headless Chromium, one after another; medians of the turns count. First token and
rate are as whoever asked sees them: on the page from the key that sends the question. Each begins
with nothing held of the conversation. Prints Markdown.

    python -m benchmarks.local_servers
    python -m benchmarks.local_servers --turns 3
"""

from __future__ import annotations

import argparse
import contextlib
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

import openai
from playwright.sync_api import Page, sync_playwright

from edge_runtime import Message, RuntimeSettings, SamplingSettings, TextGenerator
from export import ExportSettings, QuietProgress, export_bundle
from tests.edge_runtime.ui.driving import await_end, await_text, fill, open_settings
from tests.programs import listening
from tests.servers import serving

QUESTION = "Tell me a story about a fox and a lantern."
MOST_TOKENS = 256


@dataclass(frozen=True)
class Turn:
    """Seconds of one answer.

    Attributes:
        first: Until something of it was there.
        whole: Until it ended.
    """

    first: float
    whole: float


def by_library(llm: TextGenerator) -> Turn:
    """The answer from the library, in this process."""
    llm.forget()
    began = time.perf_counter()
    first = None
    greedy = SamplingSettings(temperature=0)
    for _ in llm.stream([Message("user", QUESTION)], max_new_tokens=MOST_TOKENS, sampling=greedy):
        first = first or time.perf_counter() - began
    return Turn(first or 0.0, time.perf_counter() - began)


def by_api(client: openai.OpenAI) -> Turn:
    """The answer from ``lambda-split api``, streamed to OpenAI's client."""
    client.completions.create(model="demo", prompt=".", max_tokens=1)  # instead of the chat
    began = time.perf_counter()
    first = None
    stream = client.chat.completions.create(
        model="demo",
        messages=[{"role": "user", "content": QUESTION}],
        max_tokens=MOST_TOKENS,
        temperature=0,
        stream=True,
    )
    for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            first = first or time.perf_counter() - began
    return Turn(first or 0.0, time.perf_counter() - began)


def on_page(page: Page) -> Turn:
    """The answer on the page, in a browser."""
    page.click("#ls-clear")
    page.wait_for_selector("#ls-chat [data-testid=bot]", state="detached")
    page.fill("#ls-chat-box textarea", QUESTION)
    began = time.perf_counter()
    page.press("#ls-chat-box textarea", "Enter")
    await_text(page)
    first = time.perf_counter() - began
    await_end(page)
    return Turn(first, time.perf_counter() - began)


def tokens_of_the_answer(llm: TextGenerator) -> int:
    """How long it is."""
    greedy = SamplingSettings(temperature=0)
    result = llm.generate([Message("user", QUESTION)], max_new_tokens=MOST_TOKENS, sampling=greedy)
    return len(result.token_ids)


def _row(name: str, turns: list[Turn], base: list[Turn], tokens: int) -> str:
    whole, floor = (statistics.median(one.whole for one in each) for each in (turns, base))
    first = statistics.median(one.first for one in turns)
    return (
        f"| {name} | {first * 1000:.0f} | {whole * 1000:.0f} | {tokens / whole:.1f} "
        f"| {whole / floor:.2f} |"
    )


def measure(folder: pathlib.Path, turns: int) -> list[str]:
    """The table's lines."""
    bundle = str(folder / "bundle")
    export_bundle(
        "demo", folder / "bundle", ExportSettings(weights="int4"), progress=QuietProgress()
    )
    command = [sys.executable, "-m", "lambda_split.cli"]
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(serving("demo")).url
        served = ["--bundle", bundle, "--url", url, "--port", "0", "--threads", "1"]
        llm = stack.enter_context(
            TextGenerator.open(bundle, url, runtime=RuntimeSettings(threads=1))
        )
        api = stack.enter_context(listening([*command, "api", *served, "--max-sessions", "1"]))
        client = stack.enter_context(openai.OpenAI(base_url=api, api_key="none", max_retries=0))
        address = stack.enter_context(listening([*command, "ui", *served]))
        driver = stack.enter_context(sync_playwright())
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        stack.callback(browser.close)
        page = browser.new_page()
        page.goto(address)
        page.wait_for_selector("#ls-chat-box textarea")
        open_settings(page)
        fill(page, "temperature", 0)
        ways: dict[str, Callable[[], Turn]] = {
            "library": lambda: by_library(llm),
            "`api`, OpenAI's client": lambda: by_api(client),
            "`ui`, Chromium": lambda: on_page(page),
        }
        found: dict[str, list[Turn]] = {name: [] for name in ways}
        for way in ways.values():
            way()  # the first of each loads something
        for _ in range(turns):
            for name, way in ways.items():
                found[name].append(way())
        tokens = tokens_of_the_answer(llm)
        base = found["library"]
        return [
            f"{tokens} tokens, {turns} turns",
            "",
            "| by | first token, ms | whole answer, ms | tokens/s | × the library |",
            "|---|---:|---:|---:|---:|",
            *(_row(name, each, base, tokens) for name, each in found.items()),
        ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=9, metavar="N", help="default 9")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for line in measure(pathlib.Path(folder), args.turns):
            sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
