"""The chat's settings: their fields on the page, and what they mean."""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr

from edge_runtime.sampling import SamplingSettings
from edge_runtime.ui.chatting import AnswerSettings
from edge_runtime.ui.fields import (
    FieldValue,
    add_number,
    add_seed,
    read_number,
    read_seed,
    read_text,
    read_whole,
)
from lambda_split.errors import UsageError

__all__ = ["add_chat_settings", "read_chat_settings"]

_NEW_TOKENS = 256
_MOST_NEW_TOKENS = 4096


def add_chat_settings(
    defaults: SamplingSettings, *, max_positions: int, with_system: bool
) -> list[gr.components.Component]:
    """Add the fields, in the order in which :func:`read_chat_settings` takes their values.

    Args:
        defaults: The bundle's own sampling settings.
        max_positions: Tokens that a conversation may have.
        with_system: The model's chat template knows a system message.
    """
    most = min(_MOST_NEW_TOKENS, max_positions)
    with gr.Accordion("Settings", open=False, elem_id="ls-chat-settings"):
        system = gr.Textbox(
            label="System message",
            lines=2,
            visible=with_system,
            placeholder="none",
            elem_id="ls-system",
        )
        with gr.Row():
            temperature = add_number(
                "temperature",
                defaults.temperature,
                "Temperature",
                "0 always takes the most likely token",
                step=0.1,
            )
            new_tokens = add_number(
                "new-tokens",
                min(_NEW_TOKENS, most),
                "Most new tokens",
                f"the chat holds {max_positions:,} in all",
            )
            seed = add_seed("seed", "text")
        with gr.Row():
            top_p = add_number("top-p", defaults.top_p, "Top p", "1 is off", step=0.05)
            top_k = add_number("top-k", defaults.top_k, "Top k", "0 is off")
            min_p = add_number("min-p", defaults.min_p, "Min p", "0 is off", step=0.05)
            penalty = add_number(
                "penalty",
                defaults.repetition_penalty,
                "Repetition penalty",
                "1 is off",
                step=0.05,
            )
        stop = gr.Textbox(
            label="Stop at", info="texts that end an answer, one a line", lines=1, max_lines=4
        )
    return [system, temperature, new_tokens, seed, top_p, top_k, min_p, penalty, stop]


def read_chat_settings(values: Sequence[FieldValue], defaults: SamplingSettings) -> AnswerSettings:
    """What the fields say; an empty one means the bundle's own.

    Args:
        values: Of the fields, as Gradio gives them.
        defaults: The bundle's own sampling settings.

    Raises:
        UsageError: a value makes no sense.
    """
    system, temperature, new_tokens, seed, top_p, top_k, min_p, penalty, stop = values
    budget = read_whole(new_tokens, "most new tokens", _NEW_TOKENS)
    if not 1 <= budget <= _MOST_NEW_TOKENS:
        raise UsageError(f"the most new tokens must be from 1 to {_MOST_NEW_TOKENS:,}")
    sampling = SamplingSettings(
        temperature=read_number(temperature, "temperature", defaults.temperature),
        top_k=read_whole(top_k, "top k", defaults.top_k),
        top_p=read_number(top_p, "top p", defaults.top_p),
        min_p=read_number(min_p, "min p", defaults.min_p),
        repetition_penalty=read_number(penalty, "repetition penalty", defaults.repetition_penalty),
        seed=read_seed(seed),
    )
    lines = tuple(line for line in read_text(stop).splitlines() if line)
    return AnswerSettings(read_text(system).strip() or None, budget, sampling, lines)
