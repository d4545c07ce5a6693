"""Chat templates: from messages to the prompt that the model was trained on.

A template is a jinja2 program that comes with the model. It is run as transformers'
``apply_chat_template`` runs it (block trimming, loop controls, ``raise_exception``,
``strftime_now``, plain JSON, ``generation`` blocks), and as what it is: someone else's program. It
sees strings only, runs in jinja2's sandbox, and what it may compute is bounded.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn, Self

import jinja2
import jinja2.exceptions
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from lambda_split.errors import ChatTemplateError, ChatTemplateInvalid

__all__ = ["ChatTemplate", "Message"]

_MAX_SOURCE_CHARACTERS = 1 << 20  # the longest templates that models ship have some 20,000
_MAX_TEXT_CHARACTERS = 1 << 24  # far more than any context holds
_MAX_INTEGER_BITS = 4096


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: Who speaks: ``system``, ``user``, ``assistant``, or what else the template knows.
        content: What was said.
    """

    role: str
    content: str


class ChatTemplate:
    """A compiled chat template."""

    def __init__(self, template: jinja2.Template, special_tokens: Mapping[str, str]) -> None:
        """Use :meth:`from_source`, which compiles one."""
        self._template = template
        self._special_tokens = dict(special_tokens)

    @classmethod
    def from_source(cls, source: str, special_tokens: Mapping[str, str]) -> Self:
        """Compile a template.

        Args:
            source: The jinja2 template.
            special_tokens: Names to texts that it may use (``bos_token`` …).

        Raises:
            ChatTemplateInvalid: it is too long or does not compile.
        """
        if len(source) > _MAX_SOURCE_CHARACTERS:
            raise ChatTemplateInvalid(f"it has more than {_MAX_SOURCE_CHARACTERS} characters")
        try:
            return cls(_environment().from_string(source), special_tokens)
        except (jinja2.TemplateError, SyntaxError, ValueError, RecursionError) as error:
            raise ChatTemplateInvalid(str(error)) from error

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> str:
        """The prompt for a conversation, special tokens included.

        Args:
            messages: The turns so far.
            add_generation_prompt: Also what opens the assistant's next turn.

        Raises:
            ChatTemplateError: the template refuses the messages (a role that it does not know, an
                order that it does not take), fails on them, or leaves its bounds.
        """
        for item in messages:
            # Anything else could hand the template methods that the sandbox knows nothing of.
            if type(item.role) is not str or type(item.content) is not str:
                raise ChatTemplateError("a message's role and content must be strings")
        turns = [{"role": item.role, "content": item.content} for item in messages]
        variables = {
            **self._special_tokens,
            "messages": turns,
            "tools": None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        pieces: list[str] = []
        length = 0
        try:
            for piece in self._template.generate(variables):
                length += len(piece)
                _check_size(length, _MAX_TEXT_CHARACTERS)
                pieces.append(piece)
        except jinja2.TemplateError as error:
            raise ChatTemplateError(error.message or type(error).__name__) from error
        except Exception as error:  # a template can fail as any program can
            raise ChatTemplateError(f"{type(error).__name__}: {error}") from error
        return "".join(pieces)


class _GenerationBlocks(jinja2.ext.Extension):
    """``{% generation %}`` marks the assistant's words for training; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012  # jinja2 declares it a class attribute, untyped by design

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """jinja2's sandbox, which keeps a template from the interpreter, with bounds on sizes.

    A short expression could otherwise fill the memory. How long a template runs is bounded by what
    it can loop over: the messages, and ranges, of which jinja2 allows 100,000 numbers each.
    """

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(
        self, context: jinja2.runtime.Context, operator: str, left: object, right: object
    ) -> object:
        """Refuse products that are too large; jinja2 calls this for the operators named above."""
        if operator == "**":
            if isinstance(left, int) and isinstance(right, int):
                _check_size(left.bit_length() * right, _MAX_INTEGER_BITS)
        else:
            for sequence, times in ((left, right), (right, left)):
                if isinstance(sequence, str | list | tuple) and isinstance(times, int):
                    _check_size(len(sequence) * times, _MAX_TEXT_CHARACTERS)
        return super().call_binop(context, operator, left, right)

    # Positional only, lest they clash with the names of a template's own arguments.
    def call(
        self, context: jinja2.runtime.Context, obj: object, /, *args: object, **kwargs: object
    ) -> object:
        """Refuse widths and counts that are too large, as in ``"x".ljust(10 ** 10)``."""
        for value in (*args, *kwargs.values()):
            if isinstance(value, int):
                _check_size(value, _MAX_TEXT_CHARACTERS)
        return super().call(context, obj, *args, **kwargs)


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise jinja2.exceptions.SecurityError(f"the template makes something larger than {limit}")


def _environment() -> jinja2.Environment:
    environment = _Sandbox(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_GenerationBlocks, jinja2.ext.loopcontrols],
    )
    environment.filters["tojson"] = _to_json
    del environment.globals["lipsum"]  # makes up text of any length
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(layout: str) -> str:
    # The user's own clock and time zone, as transformers has it.
    return dt.datetime.now().astimezone().strftime(layout)


def _to_json(
    value: object,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002  # templates may pass these by position
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002
) -> str:
    """JSON as it is: jinja2's own filter escapes it for HTML, which no model was trained on."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
