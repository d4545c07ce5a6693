"""Head → trunk → tail is the whole model: logits and greedy text, family by family."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from lambda_split.partition import GrowingKVCache, load_trunk
from lambda_split.split import Split
from tests.partition.conftest import Tiny
from tests.partition.split_model import SplitModel
from tests.tiny_models import LAYERS, VARIANTS, VOCABULARY

SPLITS = [Split(1, 1), Split(0, 0), Split(2, 1)]
NEW_TOKENS = 32
# Of the logits' standard deviation. Modules and operations are the same, but products over other
# numbers of rows are summed in another order, and the tiny models amplify that on purpose.
TOLERANCE = 1e-4

pytestmark = pytest.mark.parametrize("name", VARIANTS)


def prompt_of(length: int) -> torch.Tensor:
    return torch.randint(
        3, VOCABULARY, (1, length), generator=torch.Generator().manual_seed(length)
    )


@torch.no_grad()
def whole_logits(tiny: Tiny, token_ids: torch.Tensor) -> torch.Tensor:
    return tiny.model(token_ids).logits


def difference(logits: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest one, in standard deviations of what is expected."""
    return float((logits - expected).abs().max() / expected.std())


@pytest.mark.parametrize("split", SPLITS, ids=lambda s: f"{s.head_layers}-{s.tail_layers}")
def test_logits_and_greedy_text_equal_the_whole_model(
    tiny: Callable[[str], Tiny], name: str, split: Split
) -> None:
    case = tiny(name)
    parts = SplitModel(case.checkpoint, split)
    for length in (1, 7, 300):
        prompt = prompt_of(length)
        parts.reset()
        logits = parts.forward(prompt, 0)
        assert difference(logits, whole_logits(case, prompt)) < TOLERANCE
        generated = case.model.generate(prompt, max_new_tokens=NEW_TOKENS, do_sample=False)
        assert parts.greedy(prompt, NEW_TOKENS) == generated[0, length:].tolist()


def test_the_greedy_text_is_not_degenerate(tiny: Callable[[str], Tiny], name: str) -> None:
    # Guards the tests above: a model that repeats one token would pass with broken positions.
    generated = tiny(name).model.generate(prompt_of(7), max_new_tokens=NEW_TOKENS, do_sample=False)
    assert generated.shape[1] == 7 + NEW_TOKENS
    assert len(set(generated[0, 7:].tolist())) >= NEW_TOKENS // 4


def test_a_prompt_in_chunks_equals_the_prompt_at_once(
    tiny: Callable[[str], Tiny], name: str
) -> None:
    case = tiny(name)
    parts = SplitModel(case.checkpoint, Split(1, 1))
    prompt = prompt_of(300)
    whole = whole_logits(case, prompt)
    start = 0
    for tokens in (1, 5, 14, 1, 60, 219):  # before, across and far beyond the window
        logits = parts.forward(prompt[:, start : start + tokens], start)
        assert difference(logits, whole[:, start : start + tokens]) < TOLERANCE
        start += tokens
    assert start == 300


def test_cutting_back_and_going_on_equals_a_fresh_session(
    tiny: Callable[[str], Tiny], name: str
) -> None:
    case = tiny(name)
    parts = SplitModel(case.checkpoint, Split(1, 1))
    first = prompt_of(40)
    parts.forward(first, 0)
    other = torch.cat([first[:, :23], prompt_of(9)], dim=1)
    logits = parts.forward(other[:, 23:], 23)
    assert difference(logits, whole_logits(case, other)[:, 23:]) < TOLERANCE
    again = parts.forward(other[:, 23:], 23)
    assert difference(logits, again) == 0


def test_a_batch_of_two_equals_each_alone(tiny: Callable[[str], Tiny], name: str) -> None:
    case = tiny(name)
    parts = SplitModel(case.checkpoint, Split(2, 1))
    prompts = torch.cat([prompt_of(30), prompt_of(31)[:, :30]])
    logits = parts.forward(prompts, 0)
    assert difference(logits, whole_logits(case, prompts)) < TOLERANCE


def test_bfloat16_parts_equal_the_library_in_bfloat16(
    tiny: Callable[[str], Tiny], name: str
) -> None:
    case = tiny(name)
    whole = type(case.model).from_pretrained(case.folder, dtype=torch.bfloat16).eval()
    parts = SplitModel(case.checkpoint, Split(1, 1), torch.bfloat16)
    assert {p.dtype for p in parts.trunk.parameters()} == {torch.bfloat16}
    prompt = prompt_of(40)
    with torch.no_grad():
        expected = whole(prompt).logits
    logits = parts.forward(prompt, 0)
    assert logits.dtype == torch.bfloat16
    assert difference(logits, expected) == 0


def test_a_trunk_runs_a_part_of_its_layers(tiny: Callable[[str], Tiny], name: str) -> None:
    case = tiny(name)
    more = load_trunk(case.checkpoint, range(LAYERS))
    exact = load_trunk(case.checkpoint, range(2, 4))
    hidden = torch.randn(1, 20, case.checkpoint.hidden_size)
    positions = torch.arange(20)[None]
    out = more(hidden, positions, GrowingKVCache(64, range(2, 4)), range(2, 4))
    assert torch.equal(out, exact(hidden, positions, GrowingKVCache(64, range(2, 4))))
