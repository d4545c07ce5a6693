"""The recipe: the architecture and the numbers of the training run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from transformers import LlamaConfig

from .tokenizer import BOS, END_OF_TURN, EOS, PAD, SPECIAL_TOKENS, VOCABULARY

MAX_POSITIONS: Final = 1024
PAD_ID: Final = SPECIAL_TOKENS.index(PAD)
BOS_ID: Final = SPECIAL_TOKENS.index(BOS)
EOS_ID: Final = SPECIAL_TOKENS.index(EOS)
END_OF_TURN_ID: Final = SPECIAL_TOKENS.index(END_OF_TURN)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides how a run goes, apart from the corpus.

    The run ends after ``steps`` or after ``minutes``, whichever comes first, and the learning
    rate follows the one that is nearer to its end: on a busy machine the run gets shorter
    instead of ending with the learning rate still high.
    """

    steps: int = 10_000
    minutes: float = 48.0
    #: Tokens of a batch, padding included.
    batch_tokens: int = 2048
    learning_rate: float = 3e-3
    final_learning_rate: float = 2e-5
    warmup_steps: int = 100
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    seed: int = 0

    def learning_rate_at(self, step: int, progress: float) -> float:
        """The learning rate: a linear warmup, then a cosine down to the final rate."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        return self.final_learning_rate + (self.learning_rate - self.final_learning_rate) * cosine


def model_config() -> LlamaConfig:
    """The architecture: a Llama with grouped-query attention, small enough to ship in a repository.

    Eight layers leave room for many ways to split; all widths are multiples of 32, the block
    size of int4 quantization.
    """
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=8,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=MAX_POSITIONS,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        attention_bias=False,
        mlp_bias=False,
        bos_token_id=BOS_ID,
        eos_token_id=[EOS_ID, END_OF_TURN_ID],
        pad_token_id=PAD_ID,
    )
