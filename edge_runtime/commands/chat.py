"""Chat with a model: head and tail here, the trunk at --url.

Each turn sends only what is new: all three parts still hold the conversation so far. Type a message
and press Enter. Ctrl-C stops the answer, Ctrl-D ends the program.

{commands}

What you enter is kept for the Up key, readable by you only, in $XDG_STATE_HOME/lambda-split
(~/.local/state/lambda-split); --no-history keeps nothing. It never leaves this device.

From a pipe each line is a message, and stdout holds the answers alone; the exit code is 1 where one
could not be answered.
"""

from __future__ import annotations

import argparse
import sys

from edge_runtime.commands.arguments import (
    add_session_arguments,
    open_generator,
    sampling_settings,
)
from edge_runtime.generator import TextGenerator
from edge_runtime.terminal.chatting import Chat, ChatSettings
from edge_runtime.terminal.colours import palette_for
from edge_runtime.terminal.history import ChatHistory, history_path
from edge_runtime.terminal.lines import EditedLines, LineSource, PlainLines, load_editor
from edge_runtime.terminal.slash import help_text
from lambda_split.errors import UsageError

__all__ = ["add_arguments", "run"]

__doc__ = (__doc__ or "").format(commands=help_text())  # one list of commands, told twice


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--system", metavar="TEXT", help="system message")
    parser.add_argument(
        "--no-history", action="store_true", help="neither read nor keep what is entered"
    )
    add_session_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        UsageError: the model has no chat template, or the arguments make no sense.
        BundleError: the bundle is missing, altered or malformed.
        LinkError: the server cannot be reached.
        TlsError: there is no trusted connection to it.
        WireError: it refuses the session.
    """
    interactive = sys.stdin.isatty()
    history = None
    if interactive and not args.no_history:
        history = _history()
    with open_generator(args) as generator:
        _check(generator)
        chat = Chat(
            generator,
            ChatSettings(
                max_new_tokens=args.max_new_tokens,
                sampling=sampling_settings(args, generator.default_sampling),
                stop=args.stop,
            ),
            _lines(history, interactive=interactive),
            system=args.system,
            history=history,
            interactive=interactive,
        )
        name = generator.bundle.manifest.model.id
        hint = f"{name}: /help for commands, Ctrl-C stops an answer, Ctrl-D ends"
        sys.stderr.write(f"{palette_for(sys.stderr).notice(hint)}\n")
        all_done = chat.run()
    return 0 if all_done or interactive else 1  # a person has seen it


def _check(generator: TextGenerator) -> None:
    """Tell a model that cannot chat before anything is typed."""
    text = generator.bundle.manifest.text
    if text is None or text.chat_template is None:
        raise UsageError(
            "this model has no chat template, so it cannot chat: use 'lambda-split generate'"
        )


def _history() -> ChatHistory | None:
    try:
        return ChatHistory(history_path())
    except RuntimeError as error:
        sys.stderr.write(f"no history: {error}\n")
        return None


def _lines(history: ChatHistory | None, *, interactive: bool) -> LineSource:
    editor = load_editor() if interactive else None
    if editor is None:
        return PlainLines(prompt=interactive)
    earlier: list[str] = []
    try:
        earlier = [] if history is None else history.load()
    except OSError as error:
        sys.stderr.write(f"the history cannot be read: {error}\n")
    return EditedLines(editor, palette_for(sys.stdout), earlier)
