"""What a run of the benchmark was asked to do; stored with its results."""

from __future__ import annotations

from typing import Literal

import msgspec

from bench.cases import Link, Mode
from lambda_split.bundle import WeightFormat
from lambda_split.split import Split

__all__ = ["BenchSettings", "Dtype", "WireCodec", "differences"]

Dtype = Literal["auto", "float32", "float16", "bfloat16"]
WireCodec = Literal["fp16", "bf16", "fp32"]


class BenchSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured and how. Results of other settings are not continued.

    Attributes:
        server: Whether this program serves the model, or somebody else does.
        modes: Ways to generate.
        splits: Where the model is cut.
        links: What lies between device and cloud.
        prompt_tokens: Tokens of the prompt.
        max_new_tokens: Tokens of each generation; stop tokens do not end one.
        repetitions: Generations of each case, after a short one that warms up.
        max_context: Up to how many positions the context grows in the table of its cost; 0 leaves
            the table out.
        dtype: Of what runs in the cloud; ``auto``, and not known, where that is somebody else's.
        weights: Format of what runs on the device.
        codec: How hidden states cross the wire.
        threads: CPU threads of each side that is this program's; its own choice where None.
    """

    server: Literal["own", "given"]
    modes: tuple[Mode, ...]
    splits: tuple[Split, ...]
    links: tuple[Link, ...]
    prompt_tokens: int
    max_new_tokens: int
    repetitions: int
    max_context: int
    dtype: Dtype
    weights: WeightFormat
    codec: WireCodec
    threads: int | None


def differences(one: msgspec.Struct, other: msgspec.Struct) -> tuple[str, ...]:
    """The names of the fields in which two structs of one type differ."""
    return tuple(
        name for name in one.__struct_fields__ if getattr(one, name) != getattr(other, name)
    )
