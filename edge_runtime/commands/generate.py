"""Complete one prompt: head and tail here, the trunk at --url.

The text goes to stdout as it is made, a summary of speed and traffic to stderr. Prompt, text and
token ids stay on this device; only hidden states cross the wire.

--json prints one object: text, token_ids (with the stop token), finish_reason (stop or length),
split, usage, timing in seconds, wire in bytes and round trips.

Try:
  lambda-split generate --bundle ./bundle --url ws://127.0.0.1:8765 --prompt "Once upon a time"
  lambda-split generate --bundle ./bundle --url ws://127.0.0.1:8765 --chat --prompt "Hello!" --json
  echo "Once upon a time" | lambda-split generate --bundle ./bundle --url …
"""

from __future__ import annotations

import argparse
import sys

import msgspec

from edge_runtime.chat import Message
from edge_runtime.commands.arguments import (
    add_session_arguments,
    open_generator,
    sampling_settings,
)
from edge_runtime.commands.prompts import read_prompt
from edge_runtime.prompt import Prompt
from edge_runtime.stream import GenerationResult
from edge_runtime.terminal.progress import progress_bar
from edge_runtime.terminal.visible import visible_on
from lambda_split.split import Split

__all__ = ["add_arguments", "run"]

_PROMPT_BAR_AFTER_S = 1.0  # most prompts are done before it would be read


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--prompt",
        metavar="TEXT",
        help="what to continue; '-', or none where something is piped in, reads it from stdin",
    )
    parser.add_argument(
        "--chat", action="store_true", help="put the prompt through the model's chat template"
    )
    parser.add_argument("--system", metavar="TEXT", help="system message (implies --chat)")
    parser.add_argument(
        "--json", action="store_true", help="one JSON object on stdout instead of streamed text"
    )
    parser.add_argument("--quiet", action="store_true", help="no summary on stderr")
    add_session_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    prompt = _prompt(args)
    with (
        open_generator(args) as generator,
        progress_bar("prompt", "tokens", delay_s=_PROMPT_BAR_AFTER_S, show=not args.quiet) as bar,
    ):
        stream = generator.stream(
            prompt,
            max_new_tokens=args.max_new_tokens,
            sampling=sampling_settings(args, generator.default_sampling),
            stop=args.stop,
            on_prompt=bar,
        )
        for piece in stream:
            if not args.json:
                sys.stdout.write(visible_on(sys.stdout, piece))
                sys.stdout.flush()
    if args.json:
        sys.stdout.write(as_json(stream.result, generator.split))
    sys.stdout.write("\n")
    sys.stdout.flush()
    if not args.quiet and not args.json:
        sys.stderr.write(f"\n{stream.result.stats.summary()}\n")
    return 0


def as_json(result: GenerationResult, split: Split) -> str:
    """The object that ``--json`` prints."""
    stats = result.stats
    return msgspec.json.encode(
        {
            "text": result.text,
            "token_ids": result.token_ids,
            "finish_reason": result.finish_reason,
            "split": {"head_layers": split.head_layers, "tail_layers": split.tail_layers},
            "usage": {
                "prompt_tokens": stats.prompt_tokens,
                "cached_tokens": stats.cached_tokens,
                "completion_tokens": stats.completion_tokens,
            },
            "timing": {
                "ttft_s": stats.ttft_s,
                "total_s": stats.total_s,
                "tokens_per_s": stats.tokens_per_s,
                "head_s": stats.head_s,
                "link_s": stats.link_s,
                "trunk_s": stats.trunk_s,
                "tail_s": stats.tail_s,
            },
            "wire": {
                "bytes_up": stats.bytes_up,
                "bytes_down": stats.bytes_down,
                "round_trips": stats.round_trips,
                "reconnects": stats.reconnects,
            },
        }
    ).decode()


def _prompt(args: argparse.Namespace) -> Prompt:
    text = read_prompt(args.prompt)
    if args.system is not None:
        return [Message("system", args.system), Message("user", text)]
    return [Message("user", text)] if args.chat else text
