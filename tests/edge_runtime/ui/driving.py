"""What a person does on the page."""

from __future__ import annotations

import re

from playwright.sync_api import Page

__all__ = [
    "READY_MS",
    "answer_of",
    "ask",
    "await_end",
    "await_page",
    "await_text",
    "figures_of",
    "fill",
    "open_settings",
]

READY_MS = 60_000


def await_page(page: Page) -> None:
    """Wait until the page can be used."""
    page.wait_for_selector("#ls-chat-box textarea")
    _settle(page)


def open_settings(page: Page, which: str = "chat") -> None:
    page.click(f"#ls-{which}-settings button:has-text('Settings')")
    page.wait_for_selector(f"#ls-{which}-settings input")  # made when they are first seen
    _settle(page)


def _settle(page: Page) -> None:
    """Wait until nothing was added or removed for a while.

    Gradio gives components their first values once more in the first frame that shows them (its
    ``render_previously_invisible_children``). Nobody can type before that; this can, where a busy
    machine draws no frame for long. So two frames are waited for at the end.
    """
    page.evaluate(
        """() => new Promise(done => {
            let timer = 0;
            const end = () => requestAnimationFrame(() => requestAnimationFrame(() => {
                watcher.disconnect();
                done();
            }));
            const wait = () => { clearTimeout(timer); timer = setTimeout(end, 300); };
            const watcher = new MutationObserver(wait);
            watcher.observe(document.body, {childList: true, subtree: true});
            setTimeout(end, 20000);  // an answer that comes in changes something all the time
            wait();
        })"""
    )


def fill(page: Page, field: str, value: object) -> None:
    """Enter a number or a text into one of the settings."""
    page.fill(f"#ls-{field} input, #ls-{field} textarea", str(value))
    page.keyboard.press("Tab")


def ask(page: Page, question: str) -> None:
    """Ask something, and wait until the page has taken it; a short answer may be there by then."""
    asked = page.locator("#ls-chat [data-testid=user]").count()
    page.fill("#ls-chat-box textarea", question)
    page.press("#ls-chat-box textarea", "Enter")
    page.wait_for_function(
        "asked => document.querySelectorAll('#ls-chat [data-testid=user]').length > asked",
        arg=asked,
    )


def answer_of(page: Page, number: int = -1) -> str:
    """What one of the answers says, as plain text."""
    bubbles = page.locator("#ls-chat [data-testid=bot] .prose")
    count = bubbles.count()
    return bubbles.nth(number % count).inner_text() if count else ""


def await_text(page: Page, least: int = 1) -> str:
    """Wait until an answer has so many characters."""
    page.wait_for_function(
        """least => {
            const said = document.querySelectorAll("#ls-chat [data-testid=bot] .prose");
            const last = said.length ? said[said.length - 1].innerText.trim() : "";
            return last !== "…" && last.length >= least;
        }""",
        arg=least,
    )
    return answer_of(page)


def await_end(page: Page, stop: str = "#ls-stop") -> None:
    """Wait until nothing runs any more."""
    page.wait_for_selector(f"{stop}[disabled]")


def figures_of(page: Page, panel: str) -> dict[str, int]:
    """The panel's figures by name."""
    told = page.locator(f"{panel} .ls-figures div").all_inner_texts()
    found = (re.fullmatch(r"([\d,]+)\s+(.*)", text.strip()) for text in told)
    return {match[2]: int(match[1].replace(",", "")) for match in found}
