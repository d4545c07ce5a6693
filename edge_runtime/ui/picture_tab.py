"""The page's pictures: what to show, how they come about step by step, and the panel beside."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import gradio as gr

from edge_runtime.sessions.served import ServedPictures
from edge_runtime.ui.fields import FieldValue, read_text
from edge_runtime.ui.heat_map import noise_picture
from edge_runtime.ui.markup import picture, status
from edge_runtime.ui.painting import Painter, PictureView
from edge_runtime.ui.panels import picture_panel
from edge_runtime.ui.picture_settings import add_picture_settings, read_picture_settings
from edge_runtime.ui.stopping import Stops
from lambda_split.counting import counted
from lambda_split.errors import UsageError

__all__ = ["PictureTab"]

Updates = dict[Any, Any]  # gradio's own form: values by component

_EMPTY = '<div class="ls-frame ls-empty">{}</div>'


class PictureTab:
    """Adds the tab's components and what they do to a ``gr.Blocks`` context.

    Args:
        served: The pipeline.
        stops: Which tab's pictures are to stop.
        form: How noise or features cross the wire, to be told.
    """

    def __init__(self, served: ServedPictures, stops: Stops, *, form: str) -> None:
        self._served = served
        self._painter = Painter(served, form=form)
        self._stops = stops
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=260):
                self._prompt = gr.Textbox(
                    show_label=False,
                    container=False,
                    placeholder="What to show",
                    lines=1,
                    max_lines=6,
                    elem_id="ls-prompt",
                )
                with gr.Row():
                    self._make = gr.Button(
                        "Make it", variant="primary", elem_id="ls-make", min_width=80
                    )
                    self._stop = gr.Button(
                        "Stop", interactive=False, elem_id="ls-picture-stop", min_width=80
                    )
                self._status = gr.HTML(elem_id="ls-picture-status")
                with gr.Row(equal_height=False):
                    self._pictures = gr.HTML(
                        _EMPTY.format("the picture"), elem_id="ls-pictures", min_height=160
                    )
                    self._noise = gr.HTML(
                        _EMPTY.format("the predicted noise"), elem_id="ls-noise", min_height=160
                    )
                settings = add_picture_settings(served.manifest)
            with gr.Column(scale=2, min_width=260):
                self._panel = gr.HTML(picture_panel(self._painter.blank), elem_id="ls-wire-panel")
        outputs = [self._pictures, self._noise, self._panel, self._status, self._make, self._stop]
        gr.on(
            [self._prompt.submit, self._make.click],
            self._paint,
            inputs=[self._prompt, *settings],
            outputs=outputs,
            concurrency_limit=None,  # sessions are limited, not this
            show_progress="hidden",
            api_visibility="private",
        )
        self._stop.click(self._on_stop, concurrency_limit=None, api_visibility="private")

    async def _paint(
        self, request: gr.Request, typed: FieldValue, *values: FieldValue
    ) -> AsyncGenerator[Updates, None]:
        prompt = read_text(typed)
        try:
            wish = read_picture_settings(prompt, values, self._served.manifest)
        except UsageError as error:
            yield {self._status: status(str(error), trouble=True)}
            return
        with self._stops.running(_tab(request)) as work:
            async for view in self._painter.paint(wish, work.stop):
                yield self._updates(view, prompt)

    def _updates(self, view: PictureView, prompt: str) -> Updates:
        updates: Updates = {
            self._status: status(view.note, trouble=view.trouble),
            self._make: gr.Button(interactive=not view.running),
            self._stop: gr.Button(interactive=view.running),
        }
        if view.pictures is not None:
            shown = (
                picture(
                    pixels,
                    prompt or "no prompt",
                    sharp=False,
                    download=f"lambda-split-{number}.png" if view.finished else "",
                )
                for number, pixels in enumerate(view.pictures, 1)
            )
            title = "as far as it can be told"
            if view.finished:
                title = f"{counted(len(view.pictures), 'picture')}, saved by a click"
            updates[self._pictures] = _frame("".join(shown), title)
        if view.noise is not None:
            noise = picture(noise_picture(view.noise), "predicted noise")
            updates[self._noise] = _frame(noise, "the noise that was predicted")
        if view.wire is not None:
            updates[self._panel] = picture_panel(view.wire)
        return updates

    async def _on_stop(self, request: gr.Request) -> None:
        self._stops.stop(_tab(request))


def _tab(request: gr.Request) -> str:
    return f"{request.session_hash} pictures"


def _frame(content: str, caption: str) -> str:
    return f'<figure class="ls-frame">{content}<figcaption>{caption}</figcaption></figure>'
