"""Text that a model writes itself: what it can be distilled on, and what attackers have of it."""

from __future__ import annotations

from collections.abc import Callable

import torch

from audit.whole_model import WholeModel

__all__ = ["sampled_texts"]

Ids = tuple[int, ...]
_AT_ONCE = 128
_LONGEST = 192


def sampled_texts(
    model: WholeModel,
    start: Ids,
    stop_ids: frozenset[int],
    positions: int,
    *,
    seed: int,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[Ids, ...]:
    """Sample texts at temperature 1 until there are enough tokens.

    Args:
        model: The model.
        start: The tokens that a text begins with; where there are none, one is drawn.
        stop_ids: Tokens that may end a text: it is cut after the last of them.
        positions: How many tokens at least.
        seed: Of the sampling.
        progress: Is told how many there are.

    Returns:
        Token ids of each text, the start included.
    """
    generator = torch.Generator().manual_seed(seed)
    texts: list[Ids] = []
    while (seen := sum(map(len, texts))) < positions:
        progress(seen)
        texts += _sample_batch(model, start, stop_ids, generator)
    return tuple(texts)


@torch.inference_mode()
def _sample_batch(
    model: WholeModel, start: Ids, stop_ids: frozenset[int], generator: torch.Generator
) -> list[Ids]:
    if start:
        ids = torch.tensor([start] * _AT_ONCE)  # (B, T)
    else:
        ids = torch.randint(model.vocab_size, (_AT_ONCE, 1), generator=generator)
    cache = model.new_cache()
    new = ids
    while ids.shape[1] < min(_LONGEST, model.max_positions):
        begin = ids.shape[1] - new.shape[1]
        positions = torch.arange(begin, ids.shape[1]).expand_as(new)
        hidden = model.run(model.embed(new, positions), begin, range(model.layer_count), cache)
        chances = model.logits(hidden[:, -1]).softmax(-1)  # (B, V)
        new = torch.multinomial(chances, 1, generator=generator)  # (B, 1)
        ids = torch.cat([ids, new], dim=1)
    return [_whole_turns(row, stop_ids) for row in ids.tolist()]


def _whole_turns(row: list[int], stop_ids: frozenset[int]) -> Ids:
    """Without what comes after the last end of a turn; all of it where no turn ends."""
    ends = [place for place, token in enumerate(row) if place and token in stop_ids]
    return tuple(row[: ends[-1] + 1] if ends else row)
