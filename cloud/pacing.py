"""How much of the waiting prompts goes into one step: pure arithmetic on what steps have cost.

A step that carries a piece of a prompt takes longer, and every session that is decoding waits for
it. So a piece is only as long as lets the step take a stated multiple of a step without it; where
nobody is decoding, as long as is efficient, bounded in seconds so that a newcomer need not wait.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Pace", "Pacing"]

_FRESH = 0.2  # weight of the newest step in the running averages
# Where prompts wait at any time, every so many steps one goes without them. Otherwise nobody would
# notice that decoding takes longer by now: the excess would count as the prompts' cost, their
# pieces become shorter, and their cost for each position higher still.
_MOST_MIXED_STEPS = 16


@dataclass(frozen=True, kw_only=True)
class Pacing:
    """The rules of a step.

    Attributes:
        step_tokens: The most positions of prompts in one step.
        short_tokens: A forward of at most so many positions is decoding (one token, or a few that
            were speculated): it runs whole in the next step.
        slowdown: A step with a piece of a prompt may take that much longer than one without.
        lone_step_s: The longest step in seconds while nobody decodes.
        decoding_s: For so long after its last short forward somebody counts as decoding.
    """

    step_tokens: int = 512
    short_tokens: int = 16
    slowdown: float = 2.0
    lone_step_s: float = 0.25
    decoding_s: float = 1.0


class Pace:
    """Learns what steps cost and says how many positions of prompts the next one takes."""

    def __init__(self, pacing: Pacing) -> None:
        self._pacing = pacing
        self._decode_s: float | None = None  # a step without prompts
        self._prompt_token_s: float | None = None  # what a position of a prompt adds
        self._mixed_steps = 0  # since the last one that was decoding only

    def is_short(self, tokens: int) -> bool:
        """Whether a forward of so many positions runs whole."""
        return tokens <= self._pacing.short_tokens

    def decodes(self, decoded_at: float, now: float) -> bool:
        """Whether a session whose last short forward ran then is waiting for its next token."""
        return now - decoded_at < self._pacing.decoding_s

    @property
    def wants_decoding_alone(self) -> bool:
        """Whether the next step with short forwards should have no prompts, to be measured."""
        return self._mixed_steps >= _MOST_MIXED_STEPS

    def prompt_tokens(self, *, decoding: bool) -> int:
        """Positions of prompts for the next step.

        Args:
            decoding: Others than those whose prompts they are wait for tokens, or will in a moment.

        Returns:
            At least 1.
        """
        pacing = self._pacing
        if decoding:
            if self._decode_s is None or self._prompt_token_s is None:
                wanted = float(pacing.short_tokens)  # carefully, until both are known
            else:
                wanted = (pacing.slowdown - 1) * self._decode_s / self._prompt_token_s
            return max(pacing.short_tokens // 2, min(int(wanted), pacing.step_tokens), 1)
        if self._prompt_token_s is None:
            return pacing.step_tokens
        efficient = 4 * pacing.short_tokens
        wanted = max(efficient, pacing.lone_step_s / self._prompt_token_s)
        return max(1, min(int(wanted), pacing.step_tokens))

    def ran(self, *, decode_tokens: int, prompt_tokens: int, seconds: float) -> None:
        """Learn from a step that has ended."""
        if not prompt_tokens:
            self._mixed_steps = 0
            self._decode_s = _average(self._decode_s, seconds)
            return
        self._mixed_steps += bool(decode_tokens)
        own = seconds - (self._decode_s or 0.0) if decode_tokens else seconds
        # A step that was quicker than expected says little, but must not say nothing or less.
        per_token = max(own, 0.05 * seconds) / prompt_tokens
        self._prompt_token_s = _average(self._prompt_token_s, per_token)


def _average(old: float | None, new: float) -> float:
    return new if old is None else (1 - _FRESH) * old + _FRESH * new
