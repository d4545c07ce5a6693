"""The fuzzer's targets, on the inputs that are kept and on some random ones; no fuzzer needed."""

import random
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.inputs import found, seeds
from tests.fuzz.mutations import mutate
from tests.fuzz.targets import TARGETS

KEPT = [(target, name) for target in TARGETS for name in found(target)]


@pytest.mark.parametrize(("target", "name"), KEPT, ids=str)
def test_what_once_broke_a_target_does_not_any_more(target, name):
    TARGETS[target](found(target)[name])


@pytest.mark.parametrize("target", TARGETS)
def test_the_inputs_to_begin_from_hold(target):
    inputs = seeds(target)
    assert len(inputs) >= 5
    for data in inputs:
        TARGETS[target](data)


@pytest.mark.parametrize("target", TARGETS)
def test_mutated_inputs_hold_and_take_little_memory(target):
    rng = random.Random(7)
    inputs = seeds(target)
    TARGETS[target](inputs[0])  # what is made once is not counted
    tracemalloc.start()
    try:
        for _ in range(3000):
            data = mutate(rng.choice(inputs), rng, inputs)
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            TARGETS[target](data)
            _, peak = tracemalloc.get_traced_memory()
            # Whatever length is announced: what is held follows from what came, and no more.
            assert peak - before < 300_000 + 40 * len(data)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=200)
@given(data=st.binary(max_size=300))
def test_any_bytes_hold(target, data):
    TARGETS[target](data)
