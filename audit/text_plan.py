"""What an audit of a language model tries, and in which settings."""

from __future__ import annotations

from dataclasses import dataclass

from audit.defending.noise import Defence
from lambda_split.split import Split
from lambda_split.wire.frames import Codec

__all__ = ["TextPlan", "default_splits"]

_TRAINING_POSITIONS = 60_000  # that tails and private ends are trained on


@dataclass(frozen=True, kw_only=True)
class TextPlan:
    """What to try.

    Attributes:
        splits: Where the model is cut; the defences and the learned attacks are tried on the first.
        codec: The wire's layout.
        defences: What is done to the upload, each a setting of its own beside doing nothing.
        prompts: Texts that are attacked.
        defended_prompts: Those of them that are attacked where there is noise: every token of the
            vocabulary has to be tried then.
        prompt_tokens: The most tokens of each.
        reply_tokens: Tokens that are generated to each.
        measured: Texts that perplexity is measured on.
        known_positions: How much known text the learned attacks train on, smallest first.
        inverter_steps: Optimizer steps of each.
        transformer: Also train a transformer, on the most known text.
        beams: Prefixes that the search keeps where there is noise.
        seeds: Each defence is tried with each of these.
        train_tail: Beside noise, also try a tail that is trained for it.
        private_ends: Strengths of private ends to try.
        training_steps: Optimizer steps of tails and private ends.
    """

    splits: tuple[Split, ...]
    codec: Codec = Codec.FP16
    defences: tuple[Defence, ...] = (
        Defence("permutation"),
        *(Defence("gaussian", strength) for strength in (0.25, 0.5, 1.0, 2.0, 4.0)),
    )
    prompts: int = 8
    defended_prompts: int = 4
    prompt_tokens: int = 32
    reply_tokens: int = 24
    measured: int = 12
    known_positions: tuple[int, ...] = (1000, 8000, 24000)
    inverter_steps: int = 200
    transformer: bool = True
    beams: int = 2
    seeds: tuple[int, ...] = (0,)
    train_tail: bool = False
    private_ends: tuple[float, ...] = ()
    training_steps: int = 300

    @property
    def training_positions(self) -> int:
        """How many positions of other text are needed."""
        known = max(self.known_positions, default=0)
        return max(known, _TRAINING_POSITIONS) if self.train_tail or self.private_ends else known


def default_splits(layer_count: int) -> tuple[Split, ...]:
    """One layer on each side, as by default; a few; and as deep as the model allows."""
    most = layer_count - 1
    middle = min(4, (layer_count - 1) // 2)
    tried = (Split(1, 1), Split(middle, middle), Split(most - 1, 1), Split(most, 0))
    fitting = [split for split in tried if 0 < split.head_layers + split.tail_layers <= most]
    return tuple(dict.fromkeys(fitting))[:3] or (Split(most, 0),)
