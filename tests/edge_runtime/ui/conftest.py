"""The page with both shipped models behind it, and a browser to look at it with."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from export import ImageExportSettings, export_image_bundle
from lambda_split.image_bundle import ImageBundle, load_image_bundle
from tests.edge_runtime.ui.driving import READY_MS, await_page
from tests.programs import listening
from tests.servers import TrunkServer, serving
from tests.valve import Valve, valve_before


@dataclass(frozen=True)
class Served:
    """A page and what stands behind it.

    Attributes:
        url: The page's address.
        trunk: Of the language model; tests may stop and start it.
        line: Between the page and it.
        text: Its bundle's folder.
        denoiser: Of the pipeline.
        picture_line: Between the page and it.
        pictures: Its bundle.
        network: Every address that the page's process asked for.
    """

    url: str
    trunk: TrunkServer
    line: Valve
    text: str
    denoiser: TrunkServer
    picture_line: Valve
    pictures: ImageBundle
    network: str


@pytest.fixture(scope="session")
def served(demo_bundle, tmp_path_factory) -> Iterator[Served]:
    place = tmp_path_factory.mktemp("ui")
    export_image_bundle("demo-image", place / "pictures", ImageExportSettings(weights="int8"))
    network = str(place / "network")
    with contextlib.ExitStack() as stack:
        trunk = TrunkServer("demo", "--dtype", "float32")
        stack.callback(trunk.close)
        trunk.start()
        denoiser = stack.enter_context(serving("demo-image"))
        line = stack.enter_context(valve_before(trunk.port))
        picture_line = stack.enter_context(valve_before(denoiser.port))
        text = str(demo_bundle.path)
        models = ("--bundle", text, "--url", line.url, "--codec", "fp32")
        pictures = ("--bundle", str(place / "pictures"), "--url", picture_line.url)
        page = [sys.executable, "-m", "tests.edge_runtime.ui.watched", network]
        page += ["--port", "0", "--threads", "1", *models, *pictures]
        url = stack.enter_context(listening(page))
        bundle = load_image_bundle(place / "pictures")
        yield Served(url, trunk, line, text, denoiser, picture_line, bundle, network)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Of a module, not of the session: while it is there, an event loop runs in this thread."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium here: the page is not looked at")
    expect.set_options(timeout=READY_MS)
    with sync_playwright() as driver:
        # The sandbox needs rights that a container may not have; all that it shows is ours.
        opened = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def asked() -> list[str]:
    """Every address that the browser asked for."""
    return []


@pytest.fixture
def page(browser, served, asked) -> Iterator[Page]:
    """The page in a window of its own, at its chat."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.on("request", lambda request: asked.append(request.url))
    opened = context.new_page()
    opened.set_default_timeout(READY_MS)
    opened.goto(served.url)
    await_page(opened)
    yield opened
    context.close()
