"""What clients may ask for, as OpenAI's API reference defines it, and this server's extensions."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from edge_runtime.api.parameters import Neutral
from edge_runtime.logprobs import MOST_ALTERNATIVES

__all__ = [
    "CHAT_NEUTRAL",
    "COMPLETION_NEUTRAL",
    "IMAGE_NEUTRAL",
    "MESSAGE_NEUTRAL",
    "ChatMessage",
    "ChatRequest",
    "CompletionRequest",
    "ImageRequest",
    "StreamOptions",
    "TextPart",
]

_LONGEST_REPLY = 2**31 - 1

MaxTokens = Annotated[int, Meta(ge=1, le=_LONGEST_REPLY)]
Temperature = Annotated[float, Meta(ge=0, le=2)]
Share = Annotated[float, Meta(ge=0, le=1)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Choices = Annotated[int, Meta(ge=1, le=16)]
# Each text prepares its stop strings anew, which nothing interrupts: a megabyte takes a second.
StopString = Annotated[str, Meta(min_length=1, max_length=1024)]
Stop = StopString | Annotated[list[StopString], Meta(max_length=4)]
TokenId = Annotated[int, Meta(ge=0, le=_LONGEST_REPLY)]
Repetition = Annotated[float, Meta(ge=1e-3, le=1e3)]

# By name, the values that change nothing; any other is refused. Null is OpenAI's "not given".
_SAMPLING_NEUTRAL: Final[Neutral] = {
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "logit_bias": (None, {}),
    "store": (None, False),
}
CHAT_NEUTRAL: Final[Neutral] = {
    **_SAMPLING_NEUTRAL,
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "parallel_tool_calls": (None, True, False),
    "functions": (None, []),
    "function_call": (None, "none", "auto"),
    "response_format": (None, {"type": "text"}),
    "modalities": (None, ["text"]),
    "audio": (None,),
    "prediction": (None,),
    "reasoning_effort": (None,),
    "verbosity": (None,),
    "moderation": (None,),
    "web_search_options": (None,),
}
MESSAGE_NEUTRAL: Final[Neutral] = {
    "name": (None,),
    "refusal": (None,),
    "annotations": (None, []),
    "audio": (None,),
    "function_call": (None,),
    "tool_calls": (None, []),
}
COMPLETION_NEUTRAL: Final[Neutral] = {
    **_SAMPLING_NEUTRAL,
    "best_of": (None, 1),
    "echo": (None, False),
    "suffix": (None, ""),
}
IMAGE_NEUTRAL: Final[Neutral] = {
    "response_format": (None, "b64_json"),
    "output_format": (None, "png"),
    "output_compression": (None, 100),
    "background": (None, "auto", "opaque"),
    "quality": (None, "auto", "standard"),
    "style": (None,),
    "moderation": (None, "auto"),
    "stream": (None, False),
    "partial_images": (None, 0),
}


class TextPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A piece of a message; pieces are joined by a line break."""

    type: Literal["text"]
    text: str


class ChatMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One turn. ``developer`` is taken for ``system``, which models' chat templates know."""

    role: Literal["developer", "system", "user", "assistant"]
    content: str | Annotated[list[TextPart], Meta(min_length=1)]


class StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a stream is sent. There is no padding against who watches packets: it is local."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class _TextRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What chats and completions have in common.

    Sampling that is not given is the bundle's own. ``top_k``, ``min_p`` and ``repetition_penalty``
    are extensions, the same as the command line's.
    """

    model: str
    max_tokens: MaxTokens | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    top_k: TokenId | None = None
    min_p: Share | None = None
    repetition_penalty: Repetition | None = None
    seed: Seed | None = None
    n: Choices | None = None
    stop: Stop | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None


class ChatRequest(_TextRequest, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A conversation to go on with."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=4096)]
    max_completion_tokens: MaxTokens | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MOST_ALTERNATIVES)] | None = None


class CompletionRequest(_TextRequest, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Texts to continue: one, several, one as token ids, or several as token ids."""

    prompt: (
        str
        | Annotated[
            list[str | TokenId | Annotated[list[TokenId], Meta(min_length=1)]],
            Meta(min_length=1, max_length=65536),
        ]
    )
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None


class ImageRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Pictures to make. All below ``size`` are extensions, the same as the command line's."""

    model: str
    prompt: str
    n: Annotated[int, Meta(ge=1, le=10)] | None = None
    size: Annotated[str, Meta(pattern=r"^(auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$")] | None = None
    seed: Annotated[int, Meta(ge=0, le=2**53 - 1)] | None = None
    steps: Annotated[int, Meta(ge=1, le=1000)] | None = None
    guidance: Annotated[float, Meta(ge=0, le=1000)] | None = None
    negative_prompt: str | None = None
