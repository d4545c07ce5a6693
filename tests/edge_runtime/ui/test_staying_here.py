"""Nothing leaves the machine for the page, whatever stands on it; and it fits where it is shown.

The last tests of this folder by their file's name: they look at what all the others asked for.
"""

from __future__ import annotations

import http.server
import pathlib
import re
import threading
import urllib.parse
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.edge_runtime.ui.driving import ask, await_end, await_page, await_text

pytestmark = pytest.mark.slow

LOOPBACK = re.compile(r"127\.0\.0\.1|localhost|::1")


class Canary(http.server.ThreadingHTTPServer):
    """Another host, as far as a browser knows, and what was asked of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<p>here</p>")

    def log_message(self, *_: object) -> None:
        """Not to stderr."""


@pytest.fixture
def canary() -> Iterator[Canary]:
    server = Canary()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_picture_s_address_in_a_text_is_not_asked_for(page, canary, asked) -> None:
    other = f"http://127.0.0.1:{canary.server_port}"
    ask(page, f'![x]({other}/markdown.png) <img src="{other}/tag.png"> [link]({other}/link)')
    await_text(page)
    await_end(page)
    page.evaluate(
        """async other => {
            await fetch(other + "/fetch").catch(() => 0);
            navigator.sendBeacon(other + "/beacon", "x");
            await new Promise(done => {
                const image = new Image();
                image.onerror = image.onload = done;
                image.src = other + "/image.png";
            });
        }""",
        other,
    )
    assert canary.asked == []
    # Where the page does not forbid it, the same browser asks.
    page.goto(f"{other}/control")
    assert canary.asked[0] == "/control"
    asked[:] = [address for address in asked if not address.startswith(other)]


def test_the_browser_asked_no_other_host(page, served, asked) -> None:
    page.reload()
    await_page(page)
    own = urllib.parse.urlsplit(served.url).netloc
    parts = [urllib.parse.urlsplit(address) for address in asked]
    hosts = {part.netloc for part in parts if part.scheme in {"http", "https", "ws", "wss"}}
    assert hosts == {own}
    assert {part.scheme for part in parts} <= {"http", "data", "blob"}


def test_the_page_s_process_asked_no_other_host(page, served) -> None:
    ask(page, "Who are you?")
    await_end(page)
    lines = pathlib.Path(served.network).read_text(encoding="utf-8").splitlines()
    connected = [line for line in lines if line.startswith("connect")]
    assert any(str(served.line.port) in line for line in connected)
    assert [line for line in lines if not LOOPBACK.search(line)] == []


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844), (320, 568)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_desktops_and_phones_light_and_dark(browser, served, width, height, scheme) -> None:
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    page.goto(served.url)
    await_page(page)
    ask(page, "Who are you?")
    await_end(page)
    for tab in ("Chat", "Pictures"):
        page.get_by_role("tab", name=tab).click()
        wide = page.evaluate("() => document.scrollingElement.scrollWidth")
        assert wide <= width, (tab, wide)
    dark = page.evaluate("() => document.body.classList.contains('dark')")
    assert dark == (scheme == "dark")
    page.click("#ls-dark")
    assert page.evaluate("() => document.body.classList.contains('dark')") != dark
    context.close()


def test_what_is_typed_on_comes_back_from_no_disk(page) -> None:
    """A page that was closed leaves nothing for the next person at this browser."""
    ask(page, "Who are you?")
    await_end(page)
    stored = page.evaluate("() => JSON.stringify([{...localStorage}, {...sessionStorage}])")
    assert "Who are you?" not in stored
    page.reload()
    await_page(page)
    expect(page.locator("#ls-chat [data-testid=bot]")).to_have_count(0)
