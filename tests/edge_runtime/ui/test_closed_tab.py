"""A tab that is closed in the middle of an answer leaves its session to others."""

from __future__ import annotations

import sys

import pytest
from playwright.sync_api import expect

from tests.edge_runtime.ui.driving import ask, await_end, await_page, await_text
from tests.edge_runtime.ui.test_chat_page import QUESTION, SOME_BYTES
from tests.programs import listening
from tests.valve import valve_before

pytestmark = pytest.mark.slow


def test_nobody_waits_for_what_a_closed_tab_began(browser, served) -> None:
    with valve_before(served.trunk.port) as line:
        command = [sys.executable, "-m", "lambda_split.cli", "ui", "--port", "0", "--threads", "1"]
        command += ["--bundle", served.text, "--url", line.url, "--max-sessions", "1"]
        with listening(command) as url, browser.new_context() as context:
            closed, stays = context.new_page(), context.new_page()
            for page in (closed, stays):
                page.goto(url)
                await_page(page)
            with line.held_after(SOME_BYTES):
                ask(closed, QUESTION)
                await_text(closed)
                closed.close()
                ask(stays, QUESTION)
                # The only session has begun with it, else it would wait for its turn.
                expect(stays.locator("#ls-chat-status")).to_contain_text("no answer from the trunk")
            await_end(stays)
            assert await_text(stays)
