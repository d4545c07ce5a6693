"""What a generation must give: the whole model, unsplit, alone, one generation after the other.

It shares nothing with what is tested but the rule of drawing tokens, which has its own tests.
"""

from __future__ import annotations

import pathlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from edge_runtime.sampling import Sampler, probabilities
from tests.load.plan import Case

__all__ = ["MARGIN", "Deviation", "WholeModel"]

MARGIN = 1e-4


@dataclass(frozen=True)
class Deviation:
    """An output that is not the reference's, judged.

    Attributes:
        case: What was generated.
        found: The tokens.
        expected: The reference's.
        place: Index of the first token that differs.
        margin: How far that token was from being the reference's choice. Greedy: the best logit
            less its own. Drawn: the distance between the point drawn and the token's share of the
            unit interval.
        is_rounding: Whether every token, given those before it, is within ``MARGIN``.
    """

    case: Case
    found: tuple[int, ...]
    expected: tuple[int, ...]
    place: int
    margin: float
    is_rounding: bool

    def __str__(self) -> str:
        how = "greedy" if self.case.seed is None else f"seed {self.case.seed}"
        return (
            f"prompt of {len(self.case.prompt)} tokens, {how}: token {self.place} of "
            f"{len(self.found)} differs, margin {self.margin:.2e}"
        )


class WholeModel:
    """The reference for one checkpoint, in float32.

    Args:
        folder: The checkpoint.
        stop_token_ids: Tokens that end a generation.
    """

    def __init__(self, folder: pathlib.Path, stop_token_ids: frozenset[int]) -> None:
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self._stops = stop_token_ids
        self._known: dict[Case, tuple[int, ...]] = {}

    def expected(self, case: Case) -> tuple[int, ...]:
        """The tokens of a generation; computed once."""
        if case not in self._known:
            self._known[case] = self._generate(case)
        return self._known[case]

    @torch.inference_mode()
    def _generate(self, case: Case) -> tuple[int, ...]:
        sampler = Sampler(case.sampling)
        history = list(case.prompt)
        fed, past = history, None
        for _ in range(case.new_tokens):
            out = self._model(torch.tensor([fed]), past_key_values=past, use_cache=True)
            past = out.past_key_values
            token = sampler.sample(out.logits[0, -1].numpy(), history)
            history.append(token)
            fed = [token]
            if token in self._stops:
                break
        return tuple(history[len(case.prompt) :])

    @torch.inference_mode()
    def judge(self, case: Case, found: tuple[int, ...], *, whole: bool) -> Deviation | None:
        """Compare an output with the reference.

        Args:
            case: What was generated.
            found: The tokens.
            whole: Whether the generation went to its end; otherwise what is there must fit.

        Returns:
            None where it is equal.
        """
        expected = self.expected(case)
        wanted = expected if whole else expected[: len(found)]
        if found == wanted:
            return None
        pairs = zip(found, wanted, strict=False)
        shorter = min(len(found), len(wanted))
        place = next((index for index, (a, b) in enumerate(pairs) if a != b), shorter)
        margins = self._margins(case, found)
        ended = found[-1:] and found[-1] in self._stops
        has_its_length = not whole or ended or len(found) == case.new_tokens
        margin = margins[place] if place < len(margins) else float("inf")
        is_rounding = has_its_length and margin <= MARGIN and max(margins) <= MARGIN
        return Deviation(case, found, wanted, place, margin, is_rounding)

    def _margins(self, case: Case, found: tuple[int, ...]) -> list[float]:
        """How far each token is from the reference's choice, given the tokens before it."""
        if not found:
            return []
        sequence = [*case.prompt, *found]
        logits = self._model(torch.tensor([sequence])).logits[0].numpy()  # (positions, vocabulary)
        rows = logits[len(case.prompt) - 1 : -1]
        if case.seed is None:
            return [float(row.max() - row[token]) for row, token in zip(rows, found, strict=True)]
        draws = np.random.Generator(np.random.PCG64(case.seed)).random(len(found))
        margins = []
        for row, token, point in zip(rows, found, draws.tolist(), strict=True):
            # Weights lie side by side in the unit interval; a token is drawn where the point hits.
            shares = probabilities(row, [], case.sampling)
            low = float(shares[:token].sum())
            high = low + float(shares[token])
            margins.append(max(low - point, point - high, 0.0))
        return margins
