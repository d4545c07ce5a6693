"""What a device and the service of a whole model say to each other.

The device sends a :class:`Prompt` as a text message. Each new token comes back as a text message,
its text (empty where it has none), and a :class:`Done` as a binary one at the end.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

__all__ = ["MAX_MESSAGE_BYTES", "Done", "Prompt"]

MAX_MESSAGE_BYTES = 1 << 20


class Prompt(msgspec.Struct, frozen=True):
    """What is to be continued.

    Attributes:
        text: The prompt.
        max_new_tokens: Tokens to make; stop tokens do not end it.
    """

    text: Annotated[str, msgspec.Meta(min_length=1)]
    max_new_tokens: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a reply.

    Attributes:
        prompt_tokens: Tokens of the prompt.
        first_s: The model's time for the first token.
        rest_s: Its time for the others.
    """

    prompt_tokens: int
    first_s: float
    rest_s: float
