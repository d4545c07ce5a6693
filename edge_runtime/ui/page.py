"""The page: a tab for each model, and what they have in common."""

from __future__ import annotations

from typing import Final

import gradio as gr

from edge_runtime.pictures.generator import DEFAULT_FORMAT
from edge_runtime.sessions.served import ServedPictures, ServedText
from edge_runtime.ui.chat_tab import ChatTab
from edge_runtime.ui.picture_tab import PictureTab
from edge_runtime.ui.stopping import Stops

__all__ = ["build_page", "make_theme"]

_TITLE: Final = "Λ-Split"
_DARK_TOGGLE: Final = "() => { document.body.classList.toggle('dark'); }"
_FONTS: Final = ["ui-sans-serif", "system-ui", "sans-serif"]
_FIXED_FONTS: Final = ["ui-monospace", "Consolas", "monospace"]
_HEADER: Final = """\
<header class="ls-header"><h1>Λ-Split</h1>
<p>The model's ends run here, its middle in the cloud. Text stays; hidden states cross, and are no
encryption.</p></header>
"""


def build_page(
    text: ServedText | None, pictures: ServedPictures | None, *, codec: str
) -> gr.Blocks:
    """The page's components and what they do.

    Args:
        text: The language model, if there is one.
        pictures: The pipeline, if there is one.
        codec: How hidden states cross the wire, to be told.
    """
    stops = Stops()
    page = gr.Blocks(title=_TITLE, analytics_enabled=False, fill_width=True)
    with page:
        with gr.Row(elem_classes="ls-top"):
            gr.HTML(_HEADER, elem_id="ls-header")
            toggle = gr.Button(
                "Light or dark", elem_id="ls-dark", min_width=130, size="sm", scale=0
            )
        toggle.click(None, js=_DARK_TOGGLE, api_visibility="private")
        with gr.Tabs():
            if text is not None:
                with gr.Tab("Chat", id="chat"):
                    ChatTab(text, stops, codec=codec)
            if pictures is not None:
                with gr.Tab("Pictures", id="pictures"):
                    PictureTab(pictures, stops, form=DEFAULT_FORMAT)

        async def on_close(request: gr.Request) -> None:
            """Nobody waits for what a closed tab began."""
            for name in (f"{request.session_hash}", f"{request.session_hash} pictures"):
                stops.stop(name)

        page.unload(on_close)
    return page


def make_theme() -> gr.themes.Base:
    """The page's looks, with the fonts that every system has: none is fetched."""
    return gr.themes.Soft(
        primary_hue="cyan",
        secondary_hue="amber",
        neutral_hue="slate",
        font=_FONTS,
        font_mono=_FIXED_FONTS,
    )
