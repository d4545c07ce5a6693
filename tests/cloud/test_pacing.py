"""How much of a prompt goes into a step, from what steps have cost."""

import pytest

from cloud.admission import Standing, gives_way, longest_idle
from cloud.engine import SessionCache
from cloud.pacing import Pace, Pacing

RULES = Pacing(step_tokens=512, short_tokens=16, slowdown=2.0, lone_step_s=0.25, decoding_s=1.0)


def experienced(decode_s, prompt_token_s):
    pace = Pace(RULES)
    for _ in range(40):
        pace.ran(decode_tokens=8, prompt_tokens=0, seconds=decode_s)
        pace.ran(decode_tokens=8, prompt_tokens=64, seconds=decode_s + 64 * prompt_token_s)
    return pace


def test_a_piece_takes_as_long_as_the_step_would_take_without_it():
    pace = experienced(decode_s=0.020, prompt_token_s=0.0002)
    assert pace.prompt_tokens(decoding=True) == pytest.approx(100, abs=2)


def test_where_prompts_cost_nothing_the_budget_is_the_limit():
    assert experienced(0.020, 1e-7).prompt_tokens(decoding=True) == 512


def test_a_prompt_always_goes_on():
    assert experienced(0.001, 0.01).prompt_tokens(decoding=True) == 8


def test_who_decoded_a_moment_ago_still_counts():
    assert Pace(RULES).decodes(9.5, 10.0)
    assert not Pace(RULES).decodes(8.9, 10.0)


def test_alone_a_piece_is_bounded_in_seconds_but_not_too_short_to_be_efficient():
    assert experienced(0.02, 0.001).prompt_tokens(decoding=False) == pytest.approx(250, abs=3)
    assert experienced(0.02, 0.1).prompt_tokens(decoding=False) == 64


def test_before_anything_is_known():
    assert Pace(RULES).prompt_tokens(decoding=False) == 512
    assert Pace(RULES).prompt_tokens(decoding=True) == 16


def test_a_step_that_was_quicker_than_expected_does_not_break_the_estimate():
    pace = experienced(decode_s=0.020, prompt_token_s=0.0002)
    for _ in range(50):
        pace.ran(decode_tokens=1, prompt_tokens=100, seconds=0.001)
    assert 16 <= pace.prompt_tokens(decoding=True) <= 512


def test_what_is_short():
    assert Pace(RULES).is_short(16)
    assert not Pace(RULES).is_short(17)


def standing(admitted, idle_since, *, busy=False):
    return Standing(SessionCache(range(1), 8), admitted, idle_since, busy)


def test_the_longest_idle_goes_first_if_it_is_idle_for_long_enough():
    busy, short, long = standing(0, 0.0, busy=True), standing(1, 8.0), standing(2, 3.0)
    assert longest_idle([busy, short, long], 10.0, 5.0) is long.session
    assert longest_idle([busy, short, long], 10.0, 7.5) is None
    assert longest_idle([], 10.0, 0.0) is None


def test_the_last_admitted_gives_way():
    first, last, middle = standing(3, 0.0), standing(7, 0.0, busy=True), standing(5, 0.0)
    assert gives_way([first, last, middle], first.session) is last.session
    assert gives_way([first, last, middle], last.session) is last.session


def test_prompts_go_on_where_there_are_more_who_decode_than_there_were():
    pace = experienced(decode_s=0.020, prompt_token_s=0.0002)
    taken = []
    for _ in range(400):  # somebody decodes and a prompt waits at any time
        tokens = 0 if pace.wants_decoding_alone else pace.prompt_tokens(decoding=True)
        pace.ran(decode_tokens=32, prompt_tokens=tokens, seconds=0.060 + 0.0002 * tokens)
        taken.append(tokens)
    assert sum(taken[-100:]) / 100 > 200  # 300 would take as long as the step without them
