"""How many sessions of pictures an engine takes, by number and by memory."""

import pytest

from lambda_split.errors import CapacityRefused, PictureRefused, SessionEvicted
from lambda_split.wire.pictures.layout import FLOAT_BYTES
from lambda_split.wire.pictures.server_session import MAX_STATE_TENSORS
from tests.cloud.pictures.bench import STEPS, accepted


def session_bytes(bench, *, max_latents, max_context):
    widths = bench.geometry.context_width + bench.geometry.pooled_width
    latents = (MAX_STATE_TENSORS + 1) * bench.geometry.channels * max_latents
    return FLOAT_BYTES * (max_context * widths + latents)


def test_sessions_are_as_many_as_were_allowed(bench):
    engine = bench.make_engine(max_sessions=2)
    first, _ = engine.open(accepted()), engine.open(accepted())
    with pytest.raises(CapacityRefused):
        engine.open(accepted())
    assert engine.open_sessions == engine.pool_use.used_blocks == engine.pool_use.total_blocks == 2
    for _ in range(2):
        engine.close(first)
    assert engine.open_sessions == 1
    engine.open(accepted())


def test_sessions_share_the_memory(bench):
    size = session_bytes(bench, max_latents=200, max_context=40)
    engine = bench.make_engine(memory=2 * size - 1)
    first = engine.open(accepted())
    assert engine.reserve(first, STEPS)
    with pytest.raises(CapacityRefused):
        engine.open(accepted())
    engine.close(first)
    engine.open(accepted())


def test_a_session_that_would_never_fit_is_refused_for_good(bench):
    size = session_bytes(bench, max_latents=200, max_context=40)
    bench.make_engine(memory=size).open(accepted())
    with pytest.raises(PictureRefused) as caught:
        bench.make_engine(memory=size - 1).open(accepted())
    assert caught.value.asked == 200


def test_a_closed_session_has_no_steps(bench):
    settings, session = bench.settings(), bench.open()
    bench.begin(session, settings)
    bench.engine.close(session)
    bench.engine.revert(session)
    for work in (bench.start(session, settings), bench.asked(session, settings, 0)):
        (outcome,) = bench.run(work)
        assert isinstance(outcome, SessionEvicted)
