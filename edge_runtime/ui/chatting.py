"""One answer in a chat, as what the page shows from one moment to the next. No Gradio in here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace

from edge_runtime.conversation import Conversation
from edge_runtime.prompt import Prompt
from edge_runtime.sampling import SamplingSettings
from edge_runtime.sessions.served import ServedText
from edge_runtime.stream import GenerationResult
from edge_runtime.ui.panels import TextWire
from edge_runtime.ui.stopping import until_stopped, waiting_note
from edge_runtime.ui.text_progress import TextOrder, TextProgress, text_progress
from lambda_split.errors import LambdaSplitError, PromptTooLong

__all__ = ["AnswerSettings", "ChatView", "Chatter"]

_TICK_S = 2.0


@dataclass(frozen=True)
class AnswerSettings:
    """How an answer is made.

    Attributes:
        system: The system message; None for none.
        max_new_tokens: The most tokens.
        sampling: How they are drawn.
        stop: Strings that end it.
    """

    system: str | None
    max_new_tokens: int
    sampling: SamplingSettings
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChatView:
    """What the page shows.

    Attributes:
        conversation: What was said, and counts.
        question: What is being answered; None where nothing is.
        answer: What has come of it.
        note: What a person should know.
        trouble: The note tells of an error.
        give_back: The question goes back to where it was typed: it was not answered.
        wire: What the panel shows; None where nothing is new.
    """

    conversation: Conversation
    question: str | None = None
    answer: str = ""
    note: str = ""
    trouble: bool = False
    give_back: bool = False
    wire: TextWire | None = None


class Chatter:
    """Answers questions with a model.

    Args:
        served: The model.
        codec: How hidden states cross the wire, to be told.
    """

    def __init__(self, served: ServedText, *, codec: str) -> None:
        self._served = served
        text = served.manifest.text
        self.templated = text is not None and text.chat_template is not None
        self.blank = TextWire(
            split=served.manifest.split if len(served.manifest.choices) == 1 else None,
            layer_count=served.manifest.geometry.layer_count,
            codec=codec,
        )

    async def answer(
        self,
        before: Conversation,
        question: str,
        settings: AnswerSettings,
        stop: asyncio.Event,
        *,
        attempt: int = 0,
        instead_of: Conversation | None = None,
    ) -> AsyncGenerator[ChatView, None]:
        """Answer a question; the last view has no ``question`` any more.

        Args:
            before: What was said before it.
            question: What is asked.
            settings: How it is answered.
            stop: Set when the answer should end where it is.
            attempt: 0 for its first answer, 1 for the second …
            instead_of: With an earlier answer to the question, which stays where none comes.
        """
        asked = before.with_system(settings.system)
        unanswered = before if instead_of is None else instead_of
        yield ChatView(asked, question)
        last, sent, begun = TextProgress(self.blank.split), None, False
        try:
            sampling = settings.sampling
            if sampling.seed is not None:  # another answer that is repeatable, too
                sampling = replace(sampling, seed=sampling.seed + attempt)
            prompt = self._prompt(asked, question)
            ids = await asyncio.to_thread(self._served.encode, prompt)
            order = TextOrder(ids, settings.max_new_tokens, sampling, settings.stop)
            coming = until_stopped(text_progress(self._served, order), stop, tick_s=_TICK_S)
            async with contextlib.aclosing(coming) as items:
                waited = 0.0
                async for item in items:
                    if item is None:
                        waited += _TICK_S
                        note = waiting_note(waited, begun=begun)
                        unseen = self._unseen(question, last) if begun and sent is None else None
                        yield ChatView(asked, question, last.text, note=note, wire=unseen)
                        continue
                    begun = True
                    waited, last = 0.0, item
                    yield ChatView(asked, question, last.text, wire=self._wire(question, last))
                    sent = sent if last.sent is None else last.sent
        except LambdaSplitError as error:
            # Nothing is lost: what was said is here, and the question can be asked again.
            yield ChatView(
                unanswered,
                note=_trouble(error, asked),
                trouble=True,
                give_back=instead_of is None,
                wire=self._unseen(question, last) if begun and sent is None else None,
            )
            return
        reason = last.finish_reason or "cancelled"
        result = GenerationResult(last.text, (), (), reason, last.stats)
        said = asked.answered(question, result, attempt)
        answered = len(said.turns) > len(asked.turns)
        if not answered:
            said = replace(unanswered, spent=said.spent)
        note = "" if last.finish_reason else "stopped"
        if last.finish_reason == "length":
            note = "the answer is as long as the settings allow"
        elif last.finish_reason and instead_of is not None and not sampling.temperature:
            note = "at temperature 0 it is always the same answer"
        # What was seen of the sent states last, where it was stopped between two looks.
        wire = self._wire(question, replace(last, sent=sent))
        if wire is None and begun:
            wire = self._unseen(question, last)
        give_back = not answered and instead_of is None
        yield ChatView(said, note=note, give_back=give_back, wire=wire)

    def _prompt(self, conversation: Conversation, question: str) -> Prompt:
        if self.templated:
            return conversation.asking(question)
        # Such a model only goes on with a text: all that was said is its beginning.
        said = "".join(turn.question + turn.answer for turn in conversation.turns)
        return said + question

    def _unseen(self, question: str, progress: TextProgress) -> TextWire:
        """Where a session has begun, and whatever it has sent was not looked at."""
        return replace(self.blank, split=progress.split, question=question, unseen=True)

    def _wire(self, question: str, progress: TextProgress) -> TextWire | None:
        if progress.sent is None:
            return None
        return replace(
            self.blank,
            split=progress.split,
            question=question,
            answer=progress.text,
            stats=progress.stats,
            sent=progress.sent,
        )


def _trouble(error: LambdaSplitError, asked: Conversation) -> str:
    if not isinstance(error, PromptTooLong):
        return str(error)
    sizes = f"{error.tokens:,} tokens, and the session holds {error.max_positions:,}"
    if not asked.turns:
        return f"that is too long: {sizes}. Shorten it."
    return f"the chat is full: {sizes}. Begin a new one, or ask less."
