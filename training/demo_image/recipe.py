"""The recipe: the architecture and the numbers of the training run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Final

from transformers import CLIPTextConfig

from .drawing import Size

#: Side of a picture in use; training shows wider and taller ones as well.
SIDE: Final = 64
#: Sizes of training pictures and how often each is drawn.
SIZES: Final[dict[Size, float]] = {(64, 64): 0.7, (64, 96): 0.15, (96, 64): 0.15}
#: Tokens of a prompt, with both ends. The longest caption has 27.
MAX_TOKENS: Final = 32
LATENT_CHANNELS: Final = 4
TRAINING_TIMESTEPS: Final = 1000

_FIRST_WIDTH: Final = 64
_SECOND_WIDTH: Final = 96
_TIME_ID_WIDTH: Final = 16


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long a stage runs and how its learning rate goes.

    It ends after ``steps`` or after ``minutes``, whichever comes first, and the learning rate
    follows the one that is nearer to its end: on a busy machine the run gets shorter instead of
    ending with the learning rate still high.
    """

    steps: int
    minutes: float
    learning_rate: float
    final_learning_rate: float
    warmup_steps: int
    #: Pictures of a step, and of each part of it that a thread works on.
    batch: int
    part: int

    def learning_rate_at(self, step: int, progress: float) -> float:
        """The learning rate: a linear warmup, then a cosine down to the final rate."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        return self.final_learning_rate + (self.learning_rate - self.final_learning_rate) * cosine


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides how a run goes, apart from the pictures."""

    autoencoder: Schedule = field(
        default_factory=lambda: Schedule(
            steps=6000, minutes=38, learning_rate=2e-3, final_learning_rate=2e-5,
            warmup_steps=50, batch=8, part=4,
        )
    )  # fmt: skip
    wording: Schedule = field(
        default_factory=lambda: Schedule(
            steps=600, minutes=5, learning_rate=2e-3, final_learning_rate=2e-4,
            warmup_steps=50, batch=64, part=32,
        )
    )  # fmt: skip
    denoiser: Schedule = field(
        default_factory=lambda: Schedule(
            steps=40_000, minutes=100, learning_rate=1.2e-3, final_learning_rate=1e-5,
            warmup_steps=200, batch=16, part=8,
        )
    )  # fmt: skip
    #: Pictures whose latents are computed once and used again and again.
    pictures: int = 24_000
    #: Weight of the divergence from the normal distribution, beside the errors of pixels.
    kl_weight: float = 1e-4
    #: How often a caption is dropped, which is what classifier-free guidance needs.
    dropped_captions: float = 0.1
    #: How often it is empty instead: an empty negative prompt is encoded like any other.
    empty_captions: float = 0.02
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    seed: int = 0


def autoencoder_config() -> dict[str, Any]:
    """The VAE: SDXL's with three levels, so that a latent stands for 4 × 4 pixels."""
    return {
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": LATENT_CHANNELS,
        "block_out_channels": (16, 32, 64),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "sample_size": SIDE,
    }


def unet_config() -> dict[str, Any]:
    """The UNet: SDXL's, with two levels and one block of layers each.

    As in SDXL the first level has no attention, and the number of heads grows with the width.
    """
    return {
        "sample_size": SIDE // 4,
        "in_channels": LATENT_CHANNELS,
        "out_channels": LATENT_CHANNELS,
        "block_out_channels": (32, 96),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        # What diffusers calls the dimension of a head is their number, in this class.
        "attention_head_dim": (1, 3),
        "transformer_layers_per_block": (1, 1),
        "cross_attention_dim": _FIRST_WIDTH + _SECOND_WIDTH,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": _TIME_ID_WIDTH,
        "projection_class_embeddings_input_dim": _SECOND_WIDTH + 6 * _TIME_ID_WIDTH,
        "norm_num_groups": 16,
    }


def text_config(*, second: bool, vocabulary: int) -> CLIPTextConfig:
    """A text encoder; its special tokens are the last two of the vocabulary.

    Both have a layer more than the denoiser's attention uses, since SDXL takes the states before
    the last layer; only the second one's last layer counts, for the pooled embedding.
    """
    width = _SECOND_WIDTH if second else _FIRST_WIDTH
    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=3,
        num_attention_heads=4,
        projection_dim=width,
        max_position_embeddings=MAX_TOKENS,
        hidden_act="gelu" if second else "quick_gelu",
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=0 if second else vocabulary - 1,
    )


def scheduler_config() -> dict[str, Any]:
    """The noise schedule: SDXL's; steps are spaced from the last timestep down.

    So that few steps start from noise, too.
    """
    return {
        "num_train_timesteps": TRAINING_TIMESTEPS,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "prediction_type": "epsilon",
        "timestep_spacing": "trailing",
        "steps_offset": 1,
        "interpolation_type": "linear",
        "use_karras_sigmas": False,
    }
