"""What Gradio calls for the page, and in which thread."""

from __future__ import annotations

import inspect

from edge_runtime.model import TextModel
from edge_runtime.sessions.pool import PoolLimits
from edge_runtime.sessions.served import PictureBundle, ServedPictures, ServedText, TextBundle
from edge_runtime.ui.page import build_page
from tests.edge_runtime.pictures.some_pictures import write_bundle


def never() -> None:
    raise AssertionError("no session is needed to draw the page")


def test_all_runs_in_the_event_loop_to_which_it_belongs(demo_bundle, tmp_path) -> None:
    """Gradio calls what is not asynchronous in a thread of its own."""
    text = ServedText(TextBundle(TextModel.load(demo_bundle.path), never, 64), PoolLimits())
    pictures = ServedPictures(PictureBundle(write_bundle(tmp_path), never), PoolLimits())
    page = build_page(text, pictures, codec="fp16")
    called = {each.fn.__name__: each.fn for each in page.fns.values() if each.fn is not None}
    assert {
        "_ask",
        "_ask_again",
        "_on_stop",
        "_on_clear",
        "_on_returned",
        "_paint",
        "on_close",
    } <= set(called)
    for name, function in called.items():
        assert inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function), name
