from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from lambda_split.errors import PositionBeyondEnd, PositionGap, UsageError
from lambda_split.partition import GrowingKVCache, causal_masks, load_trunk, minimal_masks
from tests.partition.conftest import Tiny


def chunk(tokens: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (2, 3, tokens, 4)  # batch, kv heads, tokens, head_dim
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


def test_what_is_appended_comes_back_in_order() -> None:
    cache = GrowingKVCache(2000, range(1))
    keys: list[torch.Tensor] = []
    values: list[torch.Tensor] = []
    for seed, tokens in enumerate([1, 7, 300, 1, 500, 2, 1189]):  # grows several times
        key, value = chunk(tokens, seed)
        keys.append(key)
        values.append(value)
        found_key, found_value = cache.update(key, value, 0)
        assert torch.equal(found_key, torch.cat(keys, dim=2))
        assert torch.equal(found_value, torch.cat(values, dim=2))
    assert cache.length == 2000


def test_appending_writes_in_place() -> None:
    cache = GrowingKVCache(4096, range(1))
    first, _ = cache.update(*chunk(10), 0)
    second, _ = cache.update(*chunk(10, 1), 0)
    assert second.data_ptr() == first.data_ptr()
    assert torch.equal(second[:, :, :10], first)


def test_capacity_doubles_and_stops_at_the_maximum() -> None:
    cache = GrowingKVCache(1000, range(1))
    bytes_per_position = 2 * 2 * 3 * 4 * 4  # key and value, batch, heads, head_dim, float32
    sizes = set()
    for _ in range(1000):
        cache.update(*chunk(1), 0)
        sizes.add(cache.nbytes // bytes_per_position)
    assert sizes == {256, 512, 1000}
    with pytest.raises(PositionBeyondEnd):
        cache.update(*chunk(1), 0)
    assert cache.length == 1000


def test_length_is_what_every_layer_has() -> None:
    cache = GrowingKVCache(100, range(3, 5))
    cache.update(*chunk(5), 3)
    assert cache.length == 0  # layer 4 has nothing yet
    cache.update(*chunk(5), 4)
    assert cache.length == 5
    cache.update(*chunk(2), 3)  # a step that broke off in between
    assert cache.length == 5
    cache.truncate(5)
    key, _ = cache.update(*chunk(1), 3)
    assert key.shape[2] == 6


def test_truncating_forgets_and_cannot_invent() -> None:
    cache = GrowingKVCache(100, range(1))
    key, value = chunk(10)
    cache.update(key, value, 0)
    cache.truncate(4)
    other = chunk(3, 1)
    found, _ = cache.update(*other, 0)
    assert torch.equal(found, torch.cat([key[:, :, :4], other[0]], dim=2))
    for length in (8, -1):
        with pytest.raises(PositionGap):
            cache.truncate(length)


def test_a_cache_without_layers_takes_any_position() -> None:
    cache = GrowingKVCache(100, range(0))
    cache.truncate(50)
    assert cache.length == 0


def allowed(mask: torch.Tensor | None) -> list[list[int]]:
    assert mask is not None
    return [[int(value == 0) for value in row] for row in mask[0, 0].tolist()]


def test_masks_are_causal_and_windows_include_the_query() -> None:
    masks = causal_masks(torch.tensor([[2, 3]]), 5, 2, torch.float32)
    assert allowed(masks.full) == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]
    assert allowed(masks.sliding) == [[0, 1, 1, 0, 0], [0, 0, 1, 1, 0]]
    assert masks.full is not None
    assert masks.full.shape == (1, 1, 2, 5)
    assert causal_masks(torch.tensor([[0]]), 1, None, torch.float32).sliding is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_masks_are_finite_in_their_dtype(dtype: torch.dtype) -> None:
    mask = causal_masks(torch.tensor([[0, 1]]), 2, None, dtype).full
    assert mask is not None
    assert mask.dtype == dtype
    assert mask.isfinite().all()


@pytest.mark.parametrize(
    ("start", "tokens", "window", "explicit", "full", "sliding"),
    [
        (0, 8, None, False, False, False),  # a prompt: scaled-dot-product attention knows the rule
        (0, 8, None, True, True, False),  # eager attention does not
        (9, 1, None, True, False, False),  # one query sees every key
        (9, 4, None, False, True, False),  # a chunk after a past
        (0, 8, 8, False, False, False),  # the window holds all of it
        (0, 9, 8, False, False, True),
        (7, 1, 8, False, False, False),
        (8, 1, 8, False, False, True),
        (9, 4, 8, False, True, True),
        (2, 4, 8, False, True, True),
    ],
)
def test_masks_are_made_only_where_they_matter(
    *, start: int, tokens: int, window: int | None, explicit: bool, full: bool, sliding: bool
) -> None:
    positions = torch.arange(start, start + tokens)[None]
    masks = minimal_masks(positions, start, window, torch.float32, explicit=explicit)
    complete = causal_masks(positions, start + tokens, window, torch.float32)
    assert (masks.full is not None) == full
    if masks.full is not None:
        assert complete.full is not None
        assert torch.equal(masks.full, complete.full)
    if window is not None:
        assert (masks.sliding is not None) == sliding
        if masks.sliding is not None:
            assert complete.sliding is not None
            assert torch.equal(masks.sliding, complete.sliding)


def test_a_trunk_refuses_layers_it_lacks_and_caches_of_others(
    tiny: Callable[[str], Tiny],
) -> None:
    trunk = load_trunk(tiny("llama").checkpoint, range(2, 4))
    hidden, positions = torch.zeros(1, 1, 64), torch.zeros(1, 1, dtype=torch.int64)
    with pytest.raises(UsageError, match=r"range\(2, 5\) were asked for"):
        trunk(hidden, positions, GrowingKVCache(8, range(2, 5)), range(2, 5))
    with pytest.raises(UsageError, match="the cache is for layers"):
        trunk(hidden, positions, GrowingKVCache(8, range(2, 4)), range(2, 3))
    # A cache that is as short as it can be, so that a chunk too many is refused.
    cache = GrowingKVCache(1, range(2, 4))
    trunk(hidden, positions, cache)
    with pytest.raises(PositionBeyondEnd):
        trunk(hidden, positions + 1, cache)
    assert cache.length == 1
