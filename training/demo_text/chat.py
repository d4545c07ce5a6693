"""Talking with a trained model, for evaluation: greedy, so that the same model says the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase

from .messages import Message


@dataclass(frozen=True)
class Storyteller:
    """A model with its tokenizer."""

    model: LlamaForCausalLM
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def load(cls, folder: Path) -> Storyteller:
        """Load a shipped model; its float16 weights are computed with in float32."""
        model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
        model.train(mode=False)
        return cls(model, AutoTokenizer.from_pretrained(folder))

    def answer(self, messages: Sequence[Message], max_new_tokens: int = 200) -> str:
        """The most likely next message of a chat."""
        text = self.tokenizer.apply_chat_template(
            [message.as_dict() for message in messages],
            tokenize=False,
            add_generation_prompt=True,
        )
        return self.complete(str(text), max_new_tokens, markup=True)[1]

    def complete(
        self, text: str, max_new_tokens: int = 200, *, markup: bool = False
    ) -> tuple[str, str]:
        """Continue a text.

        Args:
            text: Where to begin.
            max_new_tokens: Where to stop at the latest.
            markup: The text holds its own special tokens, so that none is added.

        Returns:
            The text and its continuation.
        """
        encoded = self.tokenizer(text, add_special_tokens=not markup, return_tensors="pt")
        ids = encoded["input_ids"]
        # The library's annotation of ``generate`` refuses its own models.
        model: Any = self.model
        with torch.inference_mode():
            out = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=max_new_tokens,
                do_sample=False,
            )
        continuation = out[0, ids.shape[1] :]
        return text, str(self.tokenizer.decode(continuation, skip_special_tokens=True))

    def talk(self, users: Sequence[str], system: str = "") -> tuple[Message, ...]:
        """A whole chat: answer each of the user's messages in turn."""
        messages = [Message("system", system)] if system else []
        for user in users:
            messages.append(Message("user", user))
            messages.append(Message("assistant", self.answer(messages)))
        return tuple(messages)
