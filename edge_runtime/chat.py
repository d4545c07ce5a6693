"""Chat templates: from messages to the prompt that the model was trained on.

A template is a jinja2 program that comes with the model. It is run as transformers'
``apply_chat_template`` runs it (block trimming, loop controls, ``raise_exception``,
``strftime_now``, plain JSON, ``generation`` blocks), and as what it is: someone else's program. It
sees strings only and runs in a sandbox that bounds its memory and its time.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn, Self

import jinja2
import jinja2.exceptions
import jinja2.ext
import jinja2.nodes
import jinja2.parser

from edge_runtime.template_sandbox import Sandbox, allot
from lambda_split.errors import ChatTemplateError, ChatTemplateInvalid

__all__ = ["ChatTemplate", "Message"]

_MAX_SOURCE_CHARACTERS = 1 << 20  # the longest templates that models ship have some 20,000
# With these bounds, JSON is at most a few times as long as what it is made of.
_MAX_JSON_INDENT = 8
# Neither widths, which C libraries know here, too, nor anything but one flag before the letter.
_STRFTIME = re.compile(r"(?:[^%]|%%|%[-_#^0]?[A-Za-z])*")


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
        try:
            with allot():
                return self._template.render(variables)
        except jinja2.TemplateError as error:
            raise ChatTemplateError(error.message or type(error).__name__) from error
        except Exception as error:  # a template can fail as any program can
            raise ChatTemplateError(f"{type(error).__name__}: {error}") from error


class _GenerationBlocks(jinja2.ext.Extension):
    """``{% generation %}`` marks the assistant's words for training; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012  # jinja2 declares it a class attribute, untyped by design

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> jinja2.Environment:
    environment = Sandbox(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_GenerationBlocks, jinja2.ext.loopcontrols],
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(layout: str) -> str:
    if not _STRFTIME.fullmatch(layout):
        raise jinja2.exceptions.SecurityError("the template asks for a date in an unusual format")
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
    if isinstance(indent, str) or (indent is not None and indent > _MAX_JSON_INDENT):
        raise jinja2.exceptions.SecurityError("the template indents JSON far")
    if separators is not None and max(map(len, separators)) > _MAX_JSON_INDENT:
        raise jinja2.exceptions.SecurityError("the template separates JSON by long texts")
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
