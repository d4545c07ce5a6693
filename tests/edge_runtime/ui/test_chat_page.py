"""The page's chat in a browser, as a person uses it, against a real trunk."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from edge_runtime import Message, SamplingSettings, TextGenerator
from tests.edge_runtime.ui.driving import (
    answer_of,
    ask,
    await_end,
    await_page,
    await_text,
    figures_of,
    fill,
    open_settings,
)

pytestmark = pytest.mark.slow

QUESTION = "Tell me a story about a fox and a lantern."
GREEDY = SamplingSettings(temperature=0)
SOME_BYTES = 20_000  # of an answer: some 20 tokens of 117


@contextlib.contextmanager
def standing_still(trunk) -> Iterator[None]:
    """Let a server do nothing, so that what it should do has surely no end yet."""
    os.kill(trunk.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(trunk.pid, signal.SIGCONT)


def regenerate(page, served) -> None:
    with standing_still(served.trunk):
        page.click("#ls-regenerate")
        page.wait_for_selector("#ls-stop:not([disabled])")
    await_end(page)


@pytest.fixture(scope="module")
def stories(served) -> list[str]:
    """What the model says to a question, and to a second one after it."""
    messages = [Message("user", QUESTION)]
    with TextGenerator.open(served.text, served.trunk.url, codec="fp32") as llm:
        first = llm.generate(messages, max_new_tokens=256, sampling=GREEDY).text
        messages += [Message("assistant", first), Message("user", "What did the fox find?")]
        second = llm.generate(messages, max_new_tokens=256, sampling=GREEDY).text
    return [first.strip(), second.strip()]


@pytest.fixture
def greedy(page):
    """The page, its answers being the most likely ones."""
    open_settings(page)
    fill(page, "temperature", 0)
    return page


def test_a_conversation_is_the_library_s_word_for_word(greedy, served, stories) -> None:
    with served.line.held_after(SOME_BYTES):
        ask(greedy, QUESTION)
        early = await_text(greedy)
        assert greedy.locator("#ls-stop").is_enabled()
    await_end(greedy)
    assert answer_of(greedy) == stories[0]
    assert len(early) < len(stories[0])  # it came piece by piece
    assert stories[0].startswith(early)
    assert greedy.input_value("#ls-chat-box textarea") == ""
    sent = figures_of(greedy, "#ls-chat-panel")
    ask(greedy, "What did the fox find?")
    await_end(greedy)
    assert [answer_of(greedy, place) for place in (0, 1)] == stories
    assert "still held, not sent again" in greedy.inner_text("#ls-chat-panel")
    assert figures_of(greedy, "#ls-chat-panel")["bytes up"] < sent["bytes up"]


def test_the_panel_shows_what_left_the_device(greedy, stories) -> None:
    assert "Nothing yet" in greedy.inner_text("#ls-chat-panel")
    ask(greedy, QUESTION)
    await_end(greedy)
    panel = greedy.inner_text("#ls-chat-panel")
    assert "6 layers, in the cloud" in panel
    assert QUESTION in panel
    assert stories[0][-100:] in panel
    assert "tokens/s" in panel
    for part in ("head", "link", "trunk", "tail"):
        assert f"{part} " in panel
    figures = figures_of(greedy, "#ls-chat-panel")
    # 192 numbers of 4 bytes for each position, and a header for each round trip.
    assert figures["bytes up"] > 192 * 4 * figures["round trips"]
    size = greedy.eval_on_selector(
        "#ls-chat-panel img", "image => [image.naturalWidth, image.naturalHeight]"
    )
    assert size == [192, 64]


def test_the_next_question_can_be_typed_meanwhile(greedy, served) -> None:
    with standing_still(served.trunk):
        ask(greedy, QUESTION)
        greedy.fill("#ls-chat-box textarea", "What did")
        expect(greedy.locator("#ls-chat-status")).to_contain_text(re.compile("waiting|no answer"))
    await_end(greedy)
    assert greedy.input_value("#ls-chat-box textarea") == "What did"


def test_stopping_keeps_what_was_said_and_frees_the_session(greedy, served) -> None:
    with served.line.held_after(SOME_BYTES):
        ask(greedy, QUESTION)
        await_text(greedy, 10)
        greedy.click("#ls-stop")
        await_end(greedy)
        expect(greedy.locator("#ls-chat-status")).to_contain_text("stopped")
        said = answer_of(greedy)
    assert len(said) >= 10
    ask(greedy, "What did the fox find?")
    await_end(greedy)
    assert answer_of(greedy, 0) == said
    assert answer_of(greedy, 1)


def test_stopped_before_the_first_token_it_is_not_said_that_nothing_was_sent(
    greedy, served
) -> None:
    ask(greedy, "Who are you?")
    await_end(greedy)  # a session is open from here on
    with standing_still(served.trunk):
        ask(greedy, QUESTION)
        expect(greedy.locator("#ls-chat-status")).to_contain_text("no answer from the trunk")
        waiting = greedy.inner_text("#ls-chat-panel")
        greedy.fill("#ls-chat-box textarea", "What did")
        greedy.click("#ls-stop")
        await_end(greedy)
        stopped = greedy.inner_text("#ls-chat-panel")
    for panel in (waiting, stopped):
        assert "may have been sent" in panel
        assert QUESTION in panel
    # Given back, and what was typed since is not lost.
    expect(greedy.locator("#ls-chat-box textarea")).to_have_value(f"{QUESTION}\nWhat did")
    assert greedy.locator("#ls-chat [data-testid=bot]").count() == 1


def test_an_answer_again(greedy, served, stories) -> None:
    greedy.click("#ls-regenerate")
    expect(greedy.locator("#ls-chat-status")).to_contain_text("nothing was said yet")
    fill(greedy, "temperature", 1.5)
    fill(greedy, "seed", 5)
    ask(greedy, QUESTION)
    await_end(greedy)
    first = answer_of(greedy)
    regenerate(greedy, served)
    again = answer_of(greedy)
    assert greedy.locator("#ls-chat [data-testid=bot]").count() == 1
    assert again != first  # a seed that is repeatable and not the same
    fill(greedy, "temperature", 0)
    regenerate(greedy, served)
    assert answer_of(greedy) == stories[0]
    expect(greedy.locator("#ls-chat-status")).to_contain_text("always the same answer")


def test_settings_are_followed(greedy, stories) -> None:
    fill(greedy, "new-tokens", 4)
    ask(greedy, QUESTION)
    await_end(greedy)
    expect(greedy.locator("#ls-chat-status")).to_contain_text("as long as the settings allow")
    assert stories[0].startswith(answer_of(greedy))
    assert len(answer_of(greedy)) < 40
    assert figures_of(greedy, "#ls-chat-panel")["round trips"] == 4


@pytest.mark.parametrize(
    ("question", "settings", "complaint"),
    [
        ("  ", {}, "say something first"),
        ("fox " * 5000, {}, "that is too long"),
        (QUESTION, {"temperature": -1}, "temperature must be a finite number"),
        (QUESTION, {"new-tokens": 0}, "the most new tokens must be from 1"),
        (QUESTION, {"new-tokens": 1.5}, "most new tokens must be a whole number"),
        (QUESTION, {"top-p": 7}, "top_p must be"),
        (QUESTION, {"seed": "x"}, "the seed must be a whole number"),
        (QUESTION, {"new-tokens": ""}, ""),  # the usual
    ],
)
def test_what_cannot_be_answered_is_told_and_not_lost(page, question, settings, complaint) -> None:
    open_settings(page)
    for field, value in settings.items():
        fill(page, field, value)
    page.fill("#ls-chat-box textarea", question)
    page.press("#ls-chat-box textarea", "Enter")
    if not complaint:
        await_text(page)
        await_end(page)
        return
    expect(page.locator("#ls-chat-status")).to_contain_text(complaint)
    expect(page.locator("#ls-chat-box textarea")).to_have_value(question)
    assert page.locator("#ls-chat [data-testid=bot]").count() == 0


def test_a_question_stands_as_it_was_typed(page, served) -> None:
    typed = "# <b>fox</b> & *owl*\n    | a | b |\n<script>document.title = 'no'</script>"
    page.fill("#ls-chat-box textarea", typed)
    with standing_still(served.trunk):
        page.click("#ls-send")
        page.wait_for_selector("#ls-stop:not([disabled])")
    await_end(page)
    bubble = page.locator("#ls-chat [data-testid=user] .prose")
    assert bubble.inner_text().replace("\xa0", " ") == typed
    assert page.locator("#ls-chat [data-testid=user] :is(b, h1, em, table, script)").count() == 0
    assert page.title() == "Λ-Split"


def test_an_answer_s_markup_stays_in_its_bubble(page) -> None:
    """A model, or who runs its trunk, may say HTML; its styles could cover the whole page."""
    ask(page, "Who are you?")
    await_end(page)
    page.eval_on_selector(
        "#ls-chat [data-testid=bot] .prose",
        """said => said.innerHTML +=
            '<p style="position: fixed; inset: 0; z-index: 9999; background: red">over all</p>'""",
    )
    for button in ("#ls-send", "#ls-clear", "#ls-dark"):
        seen = page.eval_on_selector(
            button,
            """button => {
                button.scrollIntoView();
                const { x, y, width, height } = button.getBoundingClientRect();
                return button.contains(document.elementFromPoint(x + width / 2, y + height / 2));
            }""",
        )
        assert seen, button


def test_a_new_chat_in_the_middle_of_an_answer(greedy, served) -> None:
    with served.line.held_after(SOME_BYTES):
        ask(greedy, QUESTION)
        await_text(greedy, 10)
        greedy.click("#ls-clear")
        expect(greedy.locator("#ls-chat [data-testid=bot]")).to_have_count(0)
        await_end(greedy)
    greedy.wait_for_timeout(1000)  # what ends late stays away
    assert greedy.locator("#ls-chat [data-testid=bot]").count() == 0
    ask(greedy, "Who are you?")
    await_end(greedy)
    assert greedy.locator("#ls-chat [data-testid=bot]").count() == 1


def test_a_new_chat(greedy) -> None:
    ask(greedy, QUESTION)
    await_end(greedy)
    greedy.click("#ls-clear")
    expect(greedy.locator("#ls-chat [data-testid=bot]")).to_have_count(0)
    assert "Nothing yet" in greedy.inner_text("#ls-chat-panel")
    greedy.click("#ls-regenerate")
    expect(greedy.locator("#ls-chat-status")).to_contain_text("nothing was said yet")


def test_two_tabs_have_conversations_of_their_own(greedy, served, stories) -> None:
    other = greedy.context.new_page()
    other.goto(served.url)
    await_page(other)
    open_settings(other)
    fill(other, "temperature", 0)
    ask(greedy, QUESTION)
    ask(other, "Who are you?")
    await_end(greedy)
    await_end(other)
    assert answer_of(greedy) == stories[0]
    assert other.locator("#ls-chat [data-testid=bot]").count() == 1
    assert answer_of(other)


def test_a_server_that_goes_away_and_comes_back_during_an_answer(greedy, served, stories) -> None:
    with served.line.held_after(SOME_BYTES):
        ask(greedy, QUESTION)
        await_text(greedy, 10)
        served.trunk.kill()
    try:
        expect(greedy.locator("#ls-chat-status")).to_contain_text("goes on when it is back")
        said = answer_of(greedy)
        assert len(said) < len(stories[0])
    finally:
        served.trunk.start()
    await_end(greedy)
    assert answer_of(greedy) == stories[0]
    assert "1 reconnect, nothing lost" in greedy.inner_text("#ls-chat-panel")


def test_a_server_that_stays_away_can_be_given_up(greedy, served) -> None:
    with served.line.held_after(SOME_BYTES):
        ask(greedy, QUESTION)
        await_text(greedy, 10)
        served.trunk.kill()
    try:
        expect(greedy.locator("#ls-chat-status")).to_contain_text("goes on when it is back")
        greedy.click("#ls-stop")
        await_end(greedy)
        said = answer_of(greedy)
        ask(greedy, "Who are you?")
        expect(greedy.locator("#ls-chat-status")).to_contain_text("goes on when it is back")
        greedy.click("#ls-stop")
        await_end(greedy)
        # Nothing was answered, so that nothing was said: it is given back.
        expect(greedy.locator("#ls-chat-box textarea")).to_have_value("Who are you?")
        assert greedy.locator("#ls-chat [data-testid=bot]").count() == 1
    finally:
        served.trunk.start()
    assert answer_of(greedy, 0) == said
    ask(greedy, "What did the fox find?")
    await_end(greedy)
    assert answer_of(greedy, 1)
