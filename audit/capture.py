"""What crosses the wire while a text is generated, as somebody there sees it.

The device's side and the cloud's are run in one process, on the wire's own codecs, so that many
settings can be tried; ``tests/audit`` holds that a real session's frames decode to the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from audit.defending.noise import NOTHING, Defence, apply, noise_scale
from audit.device_ends import DeviceEnds, ModelEnds
from audit.whole_model import WholeModel
from lambda_split.split import Split
from lambda_split.wire.codecs import decode, encode
from lambda_split.wire.frames import Codec

__all__ = ["Setting", "Tap", "Victim", "capture", "over_the_wire"]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Setting:
    """How a device is set up.

    Attributes:
        split: Where the model is cut.
        codec: How hidden states are laid out on the wire.
        defence: What is done to the upload.
    """

    split: Split
    codec: Codec = Codec.FP16
    defence: Defence = NOTHING


@dataclass(frozen=True, eq=False)
class Victim:
    """Somebody's device, and the trunk that it uses.

    Attributes:
        model: The model that runs: public trunk, and the device's own ends.
        setting: How the device is set up.
        rms: Root-mean-square value of what the head sends, which noise is measured by.
        seed: Of the noise; or of the secret permutation.
        graphs: A bundle's head and tail, which the device runs instead of the model's modules.
    """

    model: WholeModel
    setting: Setting
    rms: float
    seed: int = 0
    graphs: DeviceEnds | None = None

    def ends(self) -> DeviceEnds:
        """Head and tail, with nothing of another text."""
        if self.graphs is None:
            return ModelEnds(self.model, self.setting.split)
        self.graphs.forget()
        return self.graphs

    @property
    def scale(self) -> float:
        """The noise's parameter."""
        return noise_scale(self.setting.defence, self.rms, self.model.hidden_size)

    def generator(self, text: int = 0) -> np.random.Generator:
        """Random numbers for one text; a permutation is the same for all of a device's texts."""
        fixed = self.setting.defence.kind == "permutation"
        return np.random.default_rng((self.seed, 0 if fixed else text + 1))


@dataclass(frozen=True, eq=False)
class Tap:
    """One generation: what was secret, and what crossed.

    Attributes:
        split: Where the model was cut: the hello says it.
        prompt_ids: The prompt's tokens.
        reply_ids: The tokens that were generated.
        up: float32 (P + R - 1, W): what the cloud got, for every token but the last.
        down: float32 (P + R - 1, W): what it answered. The rows from P - 1 on decide the reply.
    """

    split: Split
    prompt_ids: tuple[int, ...]
    reply_ids: tuple[int, ...]
    up: Floats
    down: Floats

    @property
    def token_ids(self) -> tuple[int, ...]:
        """Prompt and reply."""
        return self.prompt_ids + self.reply_ids


def over_the_wire(hidden: Floats, codec: Codec) -> Floats:
    """Hidden states as the other side reads them; errors as :func:`encode`."""
    encoded = encode(hidden, codec)
    tokens, width = hidden.shape
    return decode(encoded.payload, codec, tokens, width, scaled=encoded.scaled)


@torch.inference_mode()
def capture(victim: Victim, prompt_ids: Sequence[int], reply_tokens: int, text: int = 0) -> Tap:
    """Generate greedily, and keep what crosses.

    A secret permutation is put on the captured upload only: the trunk is taken to undo it.

    Args:
        victim: The device and its trunk.
        prompt_ids: At least one token.
        reply_tokens: How many tokens to generate; stop tokens do not end it.
        text: Number of the text, so that each has noise of its own.
    """
    model, setting = victim.model, victim.setting
    split, count = setting.split, model.layer_count
    ends = victim.ends()
    cache = model.new_cache(split.trunk(count))
    generator = victim.generator(text)
    permuted = setting.defence.kind == "permutation"
    up: list[Floats] = []
    down: list[Floats] = []
    ids, new = list(prompt_ids), list(prompt_ids)
    for _ in range(reply_tokens):
        start = len(ids) - len(new)
        sent = ends.head(new, start)
        if not permuted:
            sent = apply(sent, setting.defence, victim.scale, generator)
        arrived = over_the_wire(sent, setting.codec)
        up.append(arrived)
        out = model.run(torch.from_numpy(arrived)[None], start, split.trunk(count), cache)
        answer = over_the_wire(out[0].numpy(), setting.codec)
        down.append(answer)
        new = [int(ends.tail(answer, start, [len(answer) - 1])[0].argmax())]
        ids += new
    captured = np.concatenate(up)
    if permuted:
        captured = apply(captured, setting.defence, 0.0, generator)
    replies = tuple(ids[len(prompt_ids) :])
    return Tap(split, tuple(prompt_ids), replies, captured, np.concatenate(down))
