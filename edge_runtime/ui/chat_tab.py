"""The page's chat: what is typed, answers as they come, their settings, and the panel beside."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Literal

import gradio as gr

from edge_runtime.chat import Message
from edge_runtime.conversation import Conversation
from edge_runtime.sessions.served import ServedText
from edge_runtime.ui.chat_settings import add_chat_settings, read_chat_settings
from edge_runtime.ui.chatting import Chatter, ChatView
from edge_runtime.ui.fields import FieldValue, read_text
from edge_runtime.ui.markup import as_typed, status
from edge_runtime.ui.panels import text_panel
from edge_runtime.ui.stopping import Stops
from lambda_split.errors import UsageError

__all__ = ["ChatTab"]

Updates = dict[Any, Any]  # gradio's own form: values by component


class ChatTab:
    """Adds the tab's components and what they do to a ``gr.Blocks`` context.

    Args:
        served: The language model.
        stops: Which tab's answer is to stop.
        codec: How hidden states cross the wire, to be told.
    """

    def __init__(self, served: ServedText, stops: Stops, *, codec: str) -> None:
        self._defaults = served.default_sampling
        self._chatter = Chatter(served, codec=codec)
        self._stops = stops
        templated = self._chatter.templated
        self._conversation = gr.State(Conversation())
        self._returned = gr.State("")  # a question that was not answered
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=260):
                self._chat = gr.Chatbot(
                    show_label=False,
                    height="54vh",
                    min_height=260,
                    buttons=["copy"],
                    allow_tags=False,
                    feedback_options=None,
                    placeholder=f"{served.id}: text stays here, hidden states cross.",
                    elem_id="ls-chat",
                )
                self._status = gr.HTML(elem_id="ls-chat-status")
                self._box = gr.Textbox(
                    show_label=False,
                    container=False,
                    placeholder="Say something" if templated else "A text to continue",
                    lines=1,
                    max_lines=8,
                    autofocus=True,
                    elem_id="ls-chat-box",
                )
                with gr.Row():
                    self._send = _button("Send", "ls-send", variant="primary")
                    self._stop = _button("Stop", "ls-stop", interactive=False)
                    self._again = _button("Regenerate", "ls-regenerate")
                    self._clear = _button("New chat", "ls-clear")
                settings = add_chat_settings(
                    self._defaults, max_positions=served.max_positions, with_system=templated
                )
            with gr.Column(scale=2, min_width=260):
                self._panel = gr.HTML(text_panel(self._chatter.blank), elem_id="ls-chat-panel")
        self._connect(settings)

    def _connect(self, settings: list[gr.components.Component]) -> None:
        shown = [self._box, self._chat, self._conversation, self._panel, self._status]
        buttons = [self._send, self._stop, self._again]
        answering: dict[str, Any] = {
            "outputs": [*shown, *buttons, self._returned],
            "concurrency_limit": None,  # sessions are limited, not this
            "show_progress": "hidden",
            "api_visibility": "private",
        }
        asked = gr.on(
            [self._box.submit, self._send.click],
            self._ask,
            inputs=[self._box, self._conversation, *settings],
            **answering,
        )
        self._again.click(self._ask_again, inputs=[self._conversation, *settings], **answering)
        at_once: dict[str, Any] = {
            "concurrency_limit": None,
            "show_progress": "hidden",
            "api_visibility": "private",
        }
        returned = [self._box, self._returned]
        asked.then(self._on_returned, inputs=returned, outputs=returned, **at_once)
        self._stop.click(self._on_stop, **at_once)
        self._clear.click(self._on_clear, outputs=[*shown, *buttons], **at_once)

    async def _ask(
        self,
        request: gr.Request,
        typed: FieldValue,
        conversation: Conversation,
        *values: FieldValue,
    ) -> AsyncGenerator[Updates, None]:
        question = read_text(typed)
        if not question.strip():
            yield {self._status: status("say something first")}
            return
        begins: Updates = {self._box: ""}  # once: the next question may be typed meanwhile
        async for updates in self._answer(request, conversation, question, values):
            yield {**begins, **updates}
            begins = {}

    async def _ask_again(
        self, request: gr.Request, conversation: Conversation, *values: FieldValue
    ) -> AsyncGenerator[Updates, None]:
        if not conversation.turns:
            yield {self._status: status("nothing was said yet")}
            return
        async for updates in self._answer(request, conversation, None, values):
            yield updates

    async def _answer(
        self,
        request: gr.Request,
        conversation: Conversation,
        question: str | None,
        values: tuple[FieldValue, ...],
    ) -> AsyncGenerator[Updates, None]:
        """Answer a question, or the last one once more where it is None."""
        try:
            settings = read_chat_settings(values, self._defaults)
        except UsageError as error:
            updates: Updates = {self._status: status(str(error), trouble=True)}
            yield updates if question is None else {**updates, self._box: question}
            return
        with self._stops.running(str(request.session_hash)) as work:
            if question is not None:
                views = self._chatter.answer(conversation, question, settings, work.stop)
            else:
                last = conversation.turns[-1]
                question = last.question
                views = self._chatter.answer(
                    conversation.without_last(),
                    question,
                    settings,
                    work.stop,
                    attempt=last.attempt + 1,
                    instead_of=conversation,
                )
            async for view in views:
                if not work.dropped:
                    yield self._updates(view, question)

    def _updates(self, view: ChatView, question: str) -> Updates:
        running = view.question is not None
        updates: Updates = {
            self._chat: _messages(view),
            self._status: status(view.note, trouble=view.trouble),
            self._send: gr.Button(interactive=not running),
            self._stop: gr.Button(interactive=running),
            self._again: gr.Button(interactive=not running),
        }
        if view.give_back:
            updates[self._returned] = question
        if not running:
            updates[self._conversation] = view.conversation
        if view.wire is not None:
            updates[self._panel] = text_panel(view.wire)
        return updates

    async def _on_returned(self, typed: FieldValue, returned: str) -> Updates:
        """Give a question back, before what was typed since."""
        if not returned:
            return {self._returned: ""}
        since = read_text(typed)
        both = f"{returned}\n{since}" if since.strip() else returned
        return {self._box: both, self._returned: ""}

    async def _on_stop(self, request: gr.Request) -> None:
        self._stops.stop(str(request.session_hash))

    async def _on_clear(self, request: gr.Request) -> Updates:
        self._stops.stop(str(request.session_hash), drop=True)
        return {
            self._chat: [],
            self._conversation: Conversation(),
            self._panel: text_panel(self._chatter.blank),
            self._status: "",
            self._send: gr.Button(interactive=True),
            self._stop: gr.Button(interactive=False),
            self._again: gr.Button(interactive=True),
        }


def _button(
    name: str,
    element: str,
    *,
    variant: Literal["primary", "secondary"] = "secondary",
    interactive: bool = True,
) -> gr.Button:
    return gr.Button(name, elem_id=element, min_width=130, variant=variant, interactive=interactive)


def _shown(message: Message) -> str:
    """Answers are Markdown, as models write it; what a person wrote stands as it was typed."""
    return as_typed(message.content) if message.role == "user" else message.content


def _messages(view: ChatView) -> list[dict[str, str]]:
    """The conversation as the chat component takes it."""
    shown = [
        {"role": message.role, "content": _shown(message)}
        for message in view.conversation.messages()
        if message.role != "system"
    ]
    if view.question is not None:
        shown += [
            {"role": "user", "content": as_typed(view.question)},
            {"role": "assistant", "content": view.answer or "…"},
        ]
    return shown
