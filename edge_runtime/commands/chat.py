"""Chat with a model: head and tail here, the trunk at --url.

Each turn sends only what is new: all three parts still hold the conversation so far. Type a message
and press Enter; Ctrl-C stops the answer, /stats shows the last turn's cost, /reset begins anew,
/quit (or Ctrl-D) ends.
"""

from __future__ import annotations

import argparse
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
from lambda_split.errors import LinkError, PromptTooLong, WireError

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
        sys.stderr.write(f"{generator.bundle.manifest.model.id}: /stats /reset /quit\n")
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
                messages = list(opening)
                sys.stderr.write("a new conversation\n")
                continue
            case "/stats":
                sys.stderr.write((stats.summary() if stats else "nothing was said yet") + "\n")
                continue
        messages.append(Message("user", line))
        try:
            answer, stats = _answer(generator, messages, sampling, args)
        except PromptTooLong as error:
            messages.pop()
            sys.stderr.write(f"{error}\n/reset begins a new conversation\n")
            continue
        except (LinkError, WireError) as error:
            # Nothing is lost: the conversation is here, and the next turn connects again.
            messages.pop()
            sys.stderr.write(f"\n{error}\nsay it again to try once more\n")
            continue
        messages.append(Message("assistant", answer))


def _ask() -> str | None:
    """The next line, None at the end of input."""
    try:
        # The prompt belongs to the dialogue of a terminal only; piped output holds answers alone.
        return input("\n> " if sys.stdin.isatty() else "").strip()
    except (EOFError, KeyboardInterrupt):
        return None


def _answer(
    generator: TextGenerator,
    messages: list[Message],
    sampling: SamplingSettings,
    args: argparse.Namespace,
) -> tuple[str, GenerationStats | None]:
    """Stream one answer; Ctrl-C ends the answer and keeps what was said."""
    stream = generator.stream(
        messages, max_new_tokens=args.max_new_tokens, sampling=sampling, stop=args.stop
    )
    said: list[str] = []
    try:
        for piece in stream:
            said.append(piece)
            sys.stdout.write(piece)
            sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stdout.write(" …\n")
        return "".join(said), None
    sys.stdout.write("\n")
    sys.stdout.flush()
    return stream.result.text, stream.result.stats
