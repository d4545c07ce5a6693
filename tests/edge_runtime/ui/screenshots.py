"""Pictures of the page for the documentation: ``python -m tests.edge_runtime.ui.screenshots``.

Give it the address of a page with both shipped models (``make ui``) and a folder to write to.
"""

from __future__ import annotations

import argparse
import io
import pathlib
from collections.abc import Callable

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from tests.edge_runtime.ui.driving import (
    ask,
    await_end,
    await_page,
    await_text,
    fill,
    open_settings,
)

QUESTION = "Tell me a story about a fox and a lantern."
PROMPT = "a red circle on the left and a blue square on the right, on a white background"
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
Shoot = Callable[[str], None]


def chat(page: Page, shoot: Shoot) -> None:
    ask(page, QUESTION)
    await_text(page, 60)
    shoot("streaming")
    await_end(page)
    shoot("chat")
    page.click("#ls-regenerate")
    await_text(page, 20)
    page.click("#ls-stop")
    await_end(page)
    shoot("stopped")
    open_settings(page)
    fill(page, "temperature", 0.5)
    shoot("settings")


def pictures(page: Page, shoot: Shoot) -> None:
    page.get_by_role("tab", name="Pictures").click()
    open_settings(page, "picture")
    fill(page, "picture-seed", 1)
    fill(page, "picture-steps", 40)
    open_settings(page, "picture")
    page.fill("#ls-prompt textarea", PROMPT)
    page.click("#ls-make")
    page.wait_for_selector("#ls-noise img")
    page.wait_for_function(
        """() => {
            const told = document.querySelector("#ls-picture-status").innerText;
            const step = told.match(/step (\\d+) of/);
            return step && Number(step[1]) >= 10;
        }"""
    )
    shoot("painting")
    await_end(page, "#ls-picture-stop")
    shoot("picture")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("folder", type=pathlib.Path)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            for size, (width, height) in SIZES.items():
                page = browser.new_page(
                    viewport={"width": width, "height": height}, color_scheme=scheme
                )
                page.goto(args.url)
                await_page(page)

                def shoot(name: str, page: Page = page, kind: str = f"{size}-{scheme}") -> None:
                    raw = page.screenshot(full_page=True, animations="disabled")
                    # 256 colours are enough for it, and a third of the bytes.
                    picture = Image.open(io.BytesIO(raw)).convert("RGB").quantize(256)
                    picture.save(args.folder / f"{name}-{kind}.png", optimize=True)

                chat(page, shoot)
                pictures(page, shoot)
                page.close()


if __name__ == "__main__":
    main()
