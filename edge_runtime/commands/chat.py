"""Chat with a model: head and tail here, the trunk at --url.

Each turn sends only what is new: all three parts still hold the conversation so far. Type a message
and press Enter; a line is a turn. Ctrl-C stops the answer, Ctrl-D ends the program.

  /stats   what the last answer cost: tokens/s, milliseconds in each part, bytes
  /reset   begin a new conversation
  /help    these lines
  /quit    end, as Ctrl-D does
"""

from __future__ import annotations

import argparse
import inspect
import sys

from edge_runtime.chat import Message
from edge_runtime.commands.arguments import (
    add_session_arguments,
    open_generator,
    sampling_settings,
)
from edge_runtime.generator import TextGenerator
from edge_runtime.sampling import SamplingSettings
from edge_runtime.stats import GenerationStats
from edge_runtime.stream import GenerationResult
from lambda_split.errors import LinkError, PromptTooLong, TlsError, WireError

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--system", metavar="TEXT", help="system message")
    add_session_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    opening = [Message("system", args.system)] if args.system is not None else []
    if sys.stdin.isatty():
        import readline  # noqa: F401  # importing it gives input() line editing and history
    with open_generator(args) as generator:
        sampling = sampling_settings(args, generator.default_sampling)
        name = generator.bundle.manifest.model.id
        sys.stderr.write(f"{name}: /help for commands, Ctrl-C stops an answer, Ctrl-D ends\n")
        _converse(generator, opening, sampling, args)
    return 0


def _converse(
    generator: TextGenerator,
    opening: list[Message],
    sampling: SamplingSettings,
    args: argparse.Namespace,
) -> None:
    messages = list(opening)
    stats: GenerationStats | None = None
    while (line := _ask()) is not None:
        match line:
            case "":
                continue
            case "/quit":
                return
            case "/reset":
                messages, stats = list(opening), None
                sys.stderr.write("a new conversation\n")
                continue
            case "/stats":
                sys.stderr.write((stats.summary() if stats else "nothing was said yet") + "\n")
                continue
            case "/help":
                sys.stderr.write(inspect.cleandoc(__doc__ or "").partition("\n\n")[2] + "\n")
                continue
            case _ if line.startswith("/") and " " not in line:
                sys.stderr.write(f"no command {line}: /stats /reset /help /quit\n")
                continue
        messages.append(Message("user", line))
        try:
            answer = _answer(generator, messages, sampling, args)
        except PromptTooLong as error:
            messages.pop()
            sys.stderr.write(
                f"the conversation is full: {error.tokens} tokens, the session holds "
                f"{error.max_positions} (see --max-positions); /reset begins a new one\n"
            )
            continue
        except (LinkError, TlsError, WireError) as error:
            # Nothing is lost: the conversation is here, and the next turn connects again.
            messages.pop()
            sys.stderr.write(f"\n{error}\nsay it again to try once more\n")
            continue
        stats = answer.stats
        if answer.finish_reason == "cancelled" and not answer.text:
            messages.pop()  # stopped before anything was said: as if it had not been asked
        else:
            messages.append(Message("assistant", answer.text))


def _ask() -> str | None:
    """The next line, None at the end of input."""
    while True:
        try:
            # The prompt belongs to a terminal's dialogue only; piped output holds answers alone.
            return input("\n> " if sys.stdin.isatty() else "").strip()
        except KeyboardInterrupt:
            continue  # clears the line, as in a shell
        except EOFError:
            sys.stderr.write("\n" if sys.stdin.isatty() else "")
            return None


def _answer(
    generator: TextGenerator,
    messages: list[Message],
    sampling: SamplingSettings,
    args: argparse.Namespace,
) -> GenerationResult:
    """Stream one answer; Ctrl-C ends the answer and keeps what was said."""
    with generator.stream(
        messages, max_new_tokens=args.max_new_tokens, sampling=sampling, stop=args.stop
    ) as stream:
        try:
            for piece in stream:
                sys.stdout.write(piece)
                sys.stdout.flush()
        except KeyboardInterrupt:
            sys.stdout.write(" …")
    sys.stdout.write("\n")
    sys.stdout.flush()
    return stream.result
