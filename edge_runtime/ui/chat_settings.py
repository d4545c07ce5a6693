"""The chat's settings: their fields on the page, and what they mean."""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr

from edge_runtime.sampling import SamplingSettings
from edge_runtime.ui.chatting import AnswerSettings
from edge_runtime.ui.fields import FieldValue, read_number, read_seed, read_text, read_whole
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
            temperature = gr.Number(
                defaults.temperature,
                label="Temperature",
                info="0 always takes the most likely token",
                minimum=0,
                step=0.1,
                min_width=140,
                elem_id="ls-temperature",
            )
            new_tokens = gr.Number(
                min(_NEW_TOKENS, most),
                label="Most new tokens",
                info=f"the chat holds {max_positions:,} in all",
                minimum=1,
                maximum=most,
                precision=0,
                min_width=140,
                elem_id="ls-new-tokens",
            )
            seed = gr.Textbox(
                label="Seed",
                info="the same seed, the same text",
                placeholder="any",
                max_lines=1,
                min_width=140,
                elem_id="ls-seed",
            )
        with gr.Row():
            top_p = gr.Number(
                defaults.top_p,
                label="Top p",
                info="1 is off",
                minimum=0,
                maximum=1,
                step=0.05,
                min_width=120,
            )
            top_k = gr.Number(
                defaults.top_k,
                label="Top k",
                info="0 is off",
                minimum=0,
                precision=0,
                min_width=120,
            )
            min_p = gr.Number(
                defaults.min_p,
                label="Min p",
                info="0 is off",
                minimum=0,
                maximum=1,
                step=0.05,
                min_width=120,
            )
            penalty = gr.Number(
                defaults.repetition_penalty,
                label="Repetition penalty",
                info="1 is off",
                minimum=0.001,
                step=0.05,
                min_width=120,
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
