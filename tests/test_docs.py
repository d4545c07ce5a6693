"""The documentation as a site: complete, and no request to anywhere."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[1]


def _pages(entry):
    """Every file that the navigation names."""
    if isinstance(entry, str):
        yield entry
    elif isinstance(entry, dict):
        for below in entry.values():
            yield from _pages(below)
    else:
        for below in entry:
            yield from _pages(below)


def test_every_page_is_in_the_navigation() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    written = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert set(_pages(settings["nav"])) == written


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_stands_alone(tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # What a browser fetches by itself: links that a reader may follow are another thing.
    fetched = re.compile(
        r"""<(?:script|img|iframe|source)[^>]+src=["']?(?:https?:)?//|<link[^>]+rel=["']?"""
        r"""(?:stylesheet|preconnect|preload)[^>]+href=["']?(?:https?:)?//"""
        r"""|url\(["']?(?:https?:)?//|@import"""
    )
    for path in (tmp_path / "site").rglob("*"):
        if path.suffix in {".html", ".css"}:
            assert not fetched.search(path.read_text(encoding="utf-8")), path.name
    assert "TextGenerator" in (tmp_path / "site/reference/text.html").read_text(encoding="utf-8")
