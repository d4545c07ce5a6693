"""Log-probabilities in the two forms that OpenAI's API has for them."""

from __future__ import annotations

from collections.abc import Sequence

from edge_runtime.api.generating import SampledToken
from edge_runtime.api.replies import (
    ChatLogprobs,
    CompletionLogprobs,
    Likelihood,
    TokenLikelihood,
)
from edge_runtime.token_text import text_of_token
from edge_runtime.tokenizer import Tokenizer

__all__ = ["chat_logprobs", "completion_logprobs"]

_LEAST = -9999.0  # OpenAI's word for "as good as never"; JSON has no infinity


def chat_logprobs(tokens: Sequence[SampledToken], tokenizer: Tokenizer) -> ChatLogprobs:
    """The form of chats."""
    return ChatLogprobs(content=[_of_token(token, tokenizer) for token in tokens])


def completion_logprobs(tokens: Sequence[SampledToken], tokenizer: Tokenizer) -> CompletionLogprobs:
    """The form of completions, which knows tokens by their texts: equal ones are one.

    As OpenAI's has it, the sampled token is always among the most likely ones, as one more where it
    is none of them.
    """
    tops = []
    for token in tokens:
        likelihoods: dict[str, float] = {}
        sampled = (token.logprobs.token_id, token.logprobs.logprob)
        for token_id, logprob in (*token.logprobs.top, sampled):  # the likeliest first
            likelihoods.setdefault(text_of_token(tokenizer, token_id).text, max(logprob, _LEAST))
        tops.append(likelihoods)
    return CompletionLogprobs(
        tokens=[text_of_token(tokenizer, token.logprobs.token_id).text for token in tokens],
        token_logprobs=[max(token.logprobs.logprob, _LEAST) for token in tokens],
        top_logprobs=tops,
        text_offset=[token.offset for token in tokens],
    )


def _of_token(token: SampledToken, tokenizer: Tokenizer) -> TokenLikelihood:
    own = text_of_token(tokenizer, token.logprobs.token_id)
    top = []
    for token_id, logprob in token.logprobs.top:
        other = text_of_token(tokenizer, token_id)
        top.append(
            Likelihood(token=other.text, logprob=max(logprob, _LEAST), bytes=_listed(other.data))
        )
    return TokenLikelihood(
        token=own.text,
        logprob=max(token.logprobs.logprob, _LEAST),
        bytes=_listed(own.data),
        top_logprobs=top,
    )


def _listed(data: bytes | None) -> list[int] | None:
    return None if data is None else list(data)
