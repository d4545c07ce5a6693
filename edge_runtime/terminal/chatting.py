"""The loop of a chat: read an entry, do what it says, show the answer."""

from __future__ import annotations

import contextlib
import datetime as dt
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from edge_runtime.chat import Message
from edge_runtime.conversation import Conversation
from edge_runtime.generator import TextGenerator
from edge_runtime.sampling import SamplingSettings
from edge_runtime.stream import GenerationResult
from edge_runtime.terminal.colours import palette_for
from edge_runtime.terminal.entry import Entry, EntryAssembler
from edge_runtime.terminal.history import ChatHistory
from edge_runtime.terminal.interrupts import Interrupts
from edge_runtime.terminal.lines import LineSource
from edge_runtime.terminal.progress import progress_bar
from edge_runtime.terminal.slash import SlashCommand, help_text, parse_entry
from edge_runtime.terminal.transcript import save_transcript
from edge_runtime.terminal.visible import visible_on
from lambda_split.errors import (
    LambdaSplitError,
    LinkError,
    PromptTooLong,
    TlsError,
    UsageError,
    WireError,
)

__all__ = ["Chat", "ChatSettings"]

_PROMPT_BAR_AFTER_S = 1.0


@dataclass(frozen=True, kw_only=True)
class ChatSettings:
    """How answers are made.

    Attributes:
        max_new_tokens: The most tokens of one.
        sampling: How they are drawn.
        stop: Strings that end one.
    """

    max_new_tokens: int
    sampling: SamplingSettings
    stop: Sequence[str] = ()


class Chat:
    """A conversation with a person or a pipe.

    Args:
        generator: Answers; the caller closes it.
        settings: How.
        lines: Where entries come from.
        system: The system message to begin with.
        history: Where entries are kept; None keeps none.
        interactive: A person types: Ctrl-C then stops answers and not the program.
    """

    def __init__(
        self,
        generator: TextGenerator,
        settings: ChatSettings,
        lines: LineSource,
        *,
        system: str | None = None,
        history: ChatHistory | None = None,
        interactive: bool = True,
    ) -> None:
        self._generator = generator
        self._settings = settings
        self._lines = lines
        self._history = history
        self._interactive = interactive
        self._interrupts = Interrupts()
        self._conversation = Conversation(system)
        self._palette = palette_for(sys.stderr)
        self._all_done = True

    def run(self) -> bool:
        """Converse until the user ends it, or the input does.

        Returns:
            Whether all that was entered could be done.
        """
        with contextlib.ExitStack() as stack:
            if self._interactive:
                stack.enter_context(self._interrupts.governed())
            while (entry := self._next_entry()) is not None:
                self._remember(entry)
                try:
                    if not self._obey(entry):
                        break
                except (LinkError, TlsError, WireError) as error:
                    # Nothing is lost: the conversation is here, and the next turn connects again.
                    self._failed(f"{error}\nsay it again to try once more")
                except PromptTooLong as error:
                    self._failed(
                        f"the conversation is full: {error.tokens} tokens, the session holds "
                        f"{error.max_positions} (see --max-positions); /reset begins a new one"
                    )
                except LambdaSplitError as error:
                    self._failed(str(error))
        return self._all_done

    # --- what is entered ---

    def _next_entry(self) -> Entry | None:
        """The next entry that is not empty; None at the end of input, or where Ctrl-C ends it."""
        assembler = EntryAssembler()
        warned = False
        while True:
            try:
                with self._interrupts.breaking():
                    entry = assembler.add(self._lines.read(continuing=assembler.pending))
            except EOFError:
                if self._interactive:
                    sys.stderr.write("\n")
                entry = assembler.finish()
                return entry if entry is not None and entry.text else None
            except UsageError as error:
                self._failed(str(error))
                assembler.clear()
                continue
            except KeyboardInterrupt:
                if not self._interactive:
                    raise
                empty = not assembler.pending and not self._lines.typed()
                sys.stderr.write("\n")
                if empty and warned:
                    return None
                if empty:
                    self._notice("Ctrl-C once more, or Ctrl-D, ends the chat")
                warned = empty
                assembler.clear()  # as a shell forgets the line
                continue
            if entry is not None and entry.text:
                return entry
            warned = False

    def _remember(self, entry: Entry) -> None:
        self._lines.remember(entry.recalled)
        if self._history is None:
            return
        try:
            self._history.append(entry.recalled)
        except OSError as error:
            self._trouble(f"no history from here on: {self._history.path}: {error.strerror}")
            self._history = None

    # --- what is done ---

    def _obey(self, entry: Entry) -> bool:
        """Do what an entry says; False ends the chat."""
        said = parse_entry(entry)
        if isinstance(said, str):
            self._conversation = self._answer(self._conversation, said)
            return True
        match said.name:
            case "quit":
                return False
            case "help":
                self._notice(help_text())
            case "stats":
                self._notice(self._conversation.stats())
            case "reset":
                self._conversation = self._conversation.reset()
                self._notice("a new conversation")
            case "regenerate":
                self._conversation = self._answer_again()
            case "system":
                self._set_system(said.argument)
            case "save":
                self._save(said)
        return True

    def _set_system(self, text: str) -> None:
        if text:
            self._conversation = self._conversation.with_system(None if text == "-" else text)
        system = self._conversation.system
        self._notice("no system message" if system is None else f"system message: {system}")

    def _save(self, command: SlashCommand) -> None:
        if not self._conversation.turns:
            raise UsageError("nothing was said yet")
        path = save_transcript(
            command.argument,
            self._conversation,
            model=self._generator.bundle.manifest.model.id,
            now=dt.datetime.now().astimezone(),
        )
        self._notice(f"saved as {path}")

    def _answer_again(self) -> Conversation:
        conversation = self._conversation
        if not conversation.turns:
            raise UsageError("nothing was said yet")
        last = conversation.turns[-1]
        again = self._answer(conversation.without_last(), last.question, last.attempt + 1)
        # Stopped before its first word: the earlier answer stays.
        if len(again.turns) < len(conversation.turns):
            return replace(conversation, spent=again.spent)
        return again

    def _answer(self, before: Conversation, question: str, attempt: int = 0) -> Conversation:
        sampling = self._settings.sampling
        if sampling.seed is not None:
            # Another answer that is repeatable, too.
            sampling = replace(sampling, seed=sampling.seed + attempt)
        return before.answered(question, self._stream(before.asking(question), sampling), attempt)

    def _stream(self, messages: list[Message], sampling: SamplingSettings) -> GenerationResult:
        """Show one answer as it comes; Ctrl-C ends it and keeps what was said."""
        settings = self._settings
        shown = stopped = False
        with contextlib.ExitStack() as stack:
            bar = stack.enter_context(progress_bar("prompt", "tokens", delay_s=_PROMPT_BAR_AFTER_S))
            stream = stack.enter_context(
                self._generator.stream(
                    messages,
                    max_new_tokens=settings.max_new_tokens,
                    sampling=sampling,
                    stop=settings.stop,
                    on_prompt=bar,
                )
            )
            try:
                with self._interrupts.breaking():
                    for piece in stream:
                        shown = True
                        sys.stdout.write(visible_on(sys.stdout, piece))
                        sys.stdout.flush()
            except KeyboardInterrupt:
                if not self._interactive:
                    raise
                stopped = True
            except LambdaSplitError:
                if shown:  # what is told of it begins on a line of its own
                    sys.stdout.write("\n")
                    sys.stdout.flush()
                raise
        sys.stdout.write(" …\n" if stopped else "\n")
        sys.stdout.flush()
        return stream.result

    # --- what is told ---

    def _notice(self, text: str) -> None:
        sys.stderr.write(f"{self._palette.notice(text)}\n")
        sys.stderr.flush()

    def _failed(self, text: str) -> None:
        self._all_done = False
        self._trouble(text)

    def _trouble(self, text: str) -> None:
        sys.stderr.write(f"{self._palette.trouble(text)}\n")
        sys.stderr.flush()
