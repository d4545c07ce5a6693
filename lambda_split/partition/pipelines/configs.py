"""The configs of a pipeline's parts, checked before anything is built from them.

diffusers checks little of what a config leads to. The bounds here are far beyond every published
model, and small enough that nothing built from them is large; what does more than the pipelines
that can be cut is refused, not ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lambda_split.errors import CheckpointInvalid
from lambda_split.partition.pipelines.components import Component, unsupported

__all__ = ["UNetFacts", "check_text_encoder", "unet_facts", "vae_scale_factor"]

_MAX_BLOCKS = 16
_MAX_LAYERS = 128
_MAX_WIDTH = 1 << 16
_MAX_SAMPLE = 1 << 14
_UNET_BLOCKS = {"DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"}
_VAE_BLOCKS = {"DownEncoderBlock2D", "UpDecoderBlock2D", "AttnDownEncoderBlock2D"} | {
    "AttnUpDecoderBlock2D"
}
# Settings that would make the denoiser take more, or compute otherwise, than is described here.
_PLAIN_UNET: dict[str, tuple[object, ...]] = {
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "addition_embed_type": (None, "text_time"),
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "time_embedding_type": ("positional",),
    "attention_type": ("default",),
}
_UNET_DEFAULTS: dict[str, object] = {
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "time_embedding_type": "positional",
    "attention_type": "default",
}
_TIME_IDS = 6  # height and width, crop's corner, wanted height and width


@dataclass(frozen=True)
class UNetFacts:
    """What a UNet takes and gives.

    Attributes:
        latent_channels: Of latents and of the predicted noise.
        conditioning_width: Of the joined hidden states of the text encoders.
        pooled_width: Of the pooled embedding; None if it takes none.
        time_ids: Whether it takes the picture's six sizes.
        guidance_embedding: Width of the embedded guidance scale; None if it takes none.
        height: The latents' height that it was trained with.
        width: As ``height``.
    """

    latent_channels: int
    conditioning_width: int
    pooled_width: int | None
    time_ids: bool
    guidance_embedding: int | None
    height: int
    width: int


class _Reader:
    """Settings by name, each bounded."""

    def __init__(self, component: Component) -> None:
        self.component = component
        self.config: Mapping[str, object] = component.config

    def refuse(self, name: str, wanted: str) -> CheckpointInvalid:
        found = repr(self.config.get(name))[:80]
        path = self.component.file("config.json")
        return CheckpointInvalid(path, f"{name} is {found}, not {wanted}")

    def number(self, name: str, largest: int, default: int | None = None) -> int:
        value = self.config.get(name)
        return self._one(name, default if value is None else value, largest)

    def optional(self, name: str, largest: int) -> int | None:
        return None if self.config.get(name) is None else self.number(name, largest)

    def numbers(self, name: str, largest: int) -> tuple[int, ...]:
        values = self.config.get(name)
        if not isinstance(values, list | tuple) or not 1 <= len(values) <= _MAX_BLOCKS:
            raise self.refuse(name, f"a list of 1 to {_MAX_BLOCKS} numbers")
        return tuple(self._one(name, value, largest) for value in values)

    def nested(self, name: str, largest: int) -> None:
        """A number, or lists of numbers, or lists of such lists; it may be absent."""
        pending = [self.config.get(name)]
        for _ in range(3):
            flat: list[object] = []
            for value in pending:
                if not isinstance(value, list | tuple):
                    flat.append(value)
                elif len(value) > _MAX_BLOCKS:
                    raise self.refuse(name, f"at most {_MAX_BLOCKS} numbers")
                else:
                    flat += value
            pending = flat
        for value in pending:
            if value is not None:
                self._one(name, value, largest)

    def blocks(self, name: str, known: set[str], count: int) -> None:
        values = self.config.get(name)
        if not isinstance(values, list | tuple) or len(values) != count:
            raise self.refuse(name, f"a list of {count} blocks")
        for value in values:
            if value not in known:
                raise unsupported(self.component.class_name, f"{name} has {value!r}")

    def _one(self, name: str, value: object, largest: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= largest:
            raise self.refuse(name, f"from 1 to {largest}")
        return value


def unet_facts(component: Component) -> UNetFacts:
    """Check a UNet's config.

    Raises:
        CheckpointInvalid: a number is missing or beyond every model.
        UnsupportedFamily: it takes more than text, time and sizes, or has blocks of another kind.
    """
    reader = _Reader(component)
    config = component.config
    for name, plain in _PLAIN_UNET.items():
        found = config.get(name, _UNET_DEFAULTS.get(name))
        if found not in plain:
            raise unsupported(component.class_name, f"{name} is {found!r}")
    channels = reader.number("in_channels", _MAX_WIDTH, 4)
    if reader.number("out_channels", _MAX_WIDTH, 4) != channels:
        reason = f"it takes {channels} channels: more than latents, as for inpainting"
        raise unsupported(component.class_name, reason)
    count = len(reader.numbers("block_out_channels", _MAX_WIDTH))
    reader.blocks("down_block_types", _UNET_BLOCKS, count)
    reader.blocks("up_block_types", _UNET_BLOCKS, count)
    for name, largest in (
        ("layers_per_block", _MAX_LAYERS),
        ("transformer_layers_per_block", _MAX_LAYERS),
        ("reverse_transformer_layers_per_block", _MAX_LAYERS),
        ("attention_head_dim", _MAX_WIDTH),
        ("num_attention_heads", _MAX_WIDTH),
        ("norm_num_groups", _MAX_WIDTH),
        ("time_embedding_dim", _MAX_WIDTH),
        ("conv_in_kernel", 31),
        ("conv_out_kernel", 31),
    ):
        reader.nested(name, largest)
    height, width = _sample_size(reader)
    return UNetFacts(
        latent_channels=channels,
        conditioning_width=reader.number("cross_attention_dim", _MAX_WIDTH, 1280),
        pooled_width=_pooled_width(reader),
        time_ids=config.get("addition_embed_type") == "text_time",
        guidance_embedding=reader.optional("time_cond_proj_dim", _MAX_WIDTH),
        height=height,
        width=width,
    )


def _pooled_width(reader: _Reader) -> int | None:
    if reader.config.get("addition_embed_type") is None:
        return None
    each = reader.number("addition_time_embed_dim", _MAX_WIDTH)
    joined = reader.number("projection_class_embeddings_input_dim", _MAX_WIDTH * 8)
    pooled = joined - _TIME_IDS * each
    if pooled < 1:
        # The refiner's five ids, or none at all: not what the six sizes fit into.
        wanted = f"more than {_TIME_IDS} embeddings of {each}"
        raise reader.refuse("projection_class_embeddings_input_dim", wanted)
    return pooled


def _sample_size(reader: _Reader) -> tuple[int, int]:
    if isinstance(reader.config.get("sample_size"), list):
        sizes = reader.numbers("sample_size", _MAX_SAMPLE)
        if len(sizes) != 2:
            raise reader.refuse("sample_size", "a height and a width")
        return sizes[0], sizes[1]
    size = reader.number("sample_size", _MAX_SAMPLE, 64)
    return size, size


def check_text_encoder(component: Component) -> None:
    """Check a CLIP text encoder's config.

    Raises:
        CheckpointInvalid: a number is missing or beyond every model.
    """
    reader = _Reader(component)
    for name, largest in (
        ("hidden_size", _MAX_WIDTH),
        ("intermediate_size", _MAX_WIDTH * 8),
        ("num_hidden_layers", _MAX_LAYERS),
        ("num_attention_heads", _MAX_WIDTH),
        ("max_position_embeddings", 1 << 16),
        ("vocab_size", 1 << 24),
    ):
        reader.number(name, largest)
    reader.optional("projection_dim", _MAX_WIDTH)
    heads = reader.number("num_attention_heads", _MAX_WIDTH)
    if reader.number("hidden_size", _MAX_WIDTH) % heads:
        raise reader.refuse("hidden_size", f"a multiple of {heads} attention heads")


def vae_scale_factor(component: Component) -> int:
    """Check a VAE's config, and say how many pixels a latent stands for, along each side.

    Raises:
        CheckpointInvalid: a number is missing or beyond every model.
        UnsupportedFamily: it has blocks of another kind.
    """
    reader = _Reader(component)
    reader.number("latent_channels", _MAX_WIDTH, 4)
    if component.class_name == "AutoencoderTiny":
        for name in ("encoder_block_out_channels", "decoder_block_out_channels"):
            reader.nested(name, _MAX_WIDTH)
        for name in ("num_encoder_blocks", "num_decoder_blocks"):
            reader.nested(name, _MAX_LAYERS)
        if reader.number("upsampling_scaling_factor", 16, 2) != 2:
            raise unsupported(component.class_name, "its blocks do not double a side")
        channels = component.config.get("decoder_block_out_channels")
        count = len(channels) if isinstance(channels, list | tuple) else 4
    else:
        count = len(reader.numbers("block_out_channels", _MAX_WIDTH))
        reader.blocks("down_block_types", _VAE_BLOCKS, count)
        reader.blocks("up_block_types", _VAE_BLOCKS, count)
        reader.number("layers_per_block", _MAX_LAYERS, 1)
        reader.number("norm_num_groups", _MAX_WIDTH, 32)
    return int(2 ** (count - 1))
