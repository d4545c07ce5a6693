"""A tiny text grammar: templates with choices in brackets and fields in braces.

    "[One|Late one] evening {Hero} [walked|went] to {place}."

A bracket offers alternatives separated by ``|``; brackets nest. A brace names a field. Choices
are made before fields are filled in, so that a field's value is never read as markup.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from random import Random
from typing import Final

_INNERMOST_CHOICE: Final = re.compile(r"\[([^\[\]]*)\]")
_FIELD: Final = re.compile(r"\{(\w+)\}")
# A full stop inside closing quotes ends a sentence; "!" or "?" inside them may not, because
# `"Look!" said the fox` goes on in lower case.
_SENTENCE_START: Final = re.compile(r'(^"?|[.!?]\s+"?|\."\s+"?)([a-z])')
_SPACES: Final = re.compile(r" {2,}")


def expand(template: str, rng: Random, fields: Mapping[str, str]) -> str:
    """Write one text from a template.

    Args:
        template: Text with ``[a|b]`` choices and ``{name}`` fields.
        rng: Source of the choices; the only state that this function changes.
        fields: A value for each field that the template names.

    Returns:
        The text with single spaces and a capital letter at the start of each sentence.

    Raises:
        KeyError: The template names a field that is not given.
    """
    text = template
    while match := _INNERMOST_CHOICE.search(text):
        chosen = rng.choice(match.group(1).split("|"))
        text = text[: match.start()] + chosen + text[match.end() :]
    text = _FIELD.sub(lambda found: fields[found.group(1)], text)
    return capitalise(_SPACES.sub(" ", text).strip())


def alternatives(template: str) -> list[str]:
    """All ways to make the choices of a template, fields left as they are."""
    match = _INNERMOST_CHOICE.search(template)
    if not match:
        return [template]
    before, after = template[: match.start()], template[match.end() :]
    return [
        text
        for chosen in match.group(1).split("|")
        for text in alternatives(before + chosen + after)
    ]


def capitalise(text: str) -> str:
    """Put a capital letter at the start of each sentence."""
    return _SENTENCE_START.sub(lambda found: found.group(1) + found.group(2).upper(), text)


def with_article(noun_phrase: str) -> str:
    """Put ``a`` or ``an`` before a noun phrase, by its first letter."""
    return f"{'an' if noun_phrase[0].lower() in 'aeiou' else 'a'} {noun_phrase}"


def join_list(words: Sequence[str]) -> str:
    """Join words as in running text: ``a``, ``a and b``, ``a, b and c``."""
    if len(words) <= 1:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"
