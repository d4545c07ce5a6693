"""A chat so far: what was asked and answered, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from edge_runtime.chat import Message
from edge_runtime.stats import GenerationStats
from edge_runtime.stream import GenerationResult
from lambda_split.counting import counted

__all__ = ["Conversation", "Turn"]


@dataclass(frozen=True)
class Turn:
    """A question with its answer.

    Attributes:
        question: What the user said.
        answer: What the model said, up to where it was stopped.
        stats: What the answer cost.
        attempt: 0 for the first answer to this question, 1 for the second …
    """

    question: str
    answer: str
    stats: GenerationStats = field(default_factory=GenerationStats)
    attempt: int = 0


@dataclass(frozen=True)
class Conversation:
    """What a chat program holds; it is never changed, only followed by another one.

    Attributes:
        system: The system message, if there is one.
        turns: In order.
        spent: What all answers cost, those that were replaced or forgotten included.
    """

    system: str | None = None
    turns: tuple[Turn, ...] = ()
    spent: GenerationStats = field(default_factory=GenerationStats)

    def messages(self) -> list[Message]:
        """All of it, as a chat template takes it."""
        messages = [] if self.system is None else [Message("system", self.system)]
        for turn in self.turns:
            messages += [Message("user", turn.question), Message("assistant", turn.answer)]
        return messages

    def asking(self, question: str) -> list[Message]:
        """The prompt that asks a question after all of it."""
        return [*self.messages(), Message("user", question)]

    def answered(self, question: str, result: GenerationResult, attempt: int = 0) -> Conversation:
        """With one more turn; an answer that was stopped before its first word is none."""
        spent = self.spent + result.stats
        if result.finish_reason == "cancelled" and not result.text:
            return replace(self, spent=spent)
        turn = Turn(question, result.text, result.stats, attempt)
        return replace(self, turns=(*self.turns, turn), spent=spent)

    def without_last(self) -> Conversation:
        """As it was before its last turn."""
        return replace(self, turns=self.turns[:-1])

    def with_system(self, text: str | None) -> Conversation:
        """With another system message, or none."""
        return replace(self, system=text)

    def reset(self) -> Conversation:
        """A new one with the same system message."""
        return Conversation(self.system)

    def stats(self) -> str:
        """A few lines for people: the last answer, and all of them."""
        if not self.turns:
            return "nothing was said yet"
        spent = self.spent
        return (
            f"{self.turns[-1].stats.summary()}\n"
            f"in all: {counted(spent.completion_tokens, 'new token')} in {spent.total_s:.1f} s, "
            f"{spent.bytes_up:,} bytes up, {spent.bytes_down:,} bytes down"
        )
