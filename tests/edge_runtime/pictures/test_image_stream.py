"""A picture on its way: steps, previews, and what there is at the end."""

from __future__ import annotations

import json
import time
from collections.abc import Generator

import numpy as np
import pytest

from edge_runtime.pictures.decoder import load_decoder
from edge_runtime.pictures.orders import make_order
from edge_runtime.pictures.prompts import load_prompt_encoders
from edge_runtime.pictures.request import PictureSpec
from edge_runtime.pictures.runs import DenoisingStep, PictureOrder
from edge_runtime.pictures.stream import ImageStats, ImageStream
from edge_runtime.stats import Meter
from lambda_split.diffusion.scheduler_config import parse_scheduler_config
from lambda_split.errors import ConnectionLost, GraphInvalid, UsageError
from tests.edge_runtime.pictures import some_pictures
from tests.edge_runtime.pictures.some_denoiser import predict
from tests.edge_runtime.pictures.some_pictures import ONE_THREAD

STEPS = 7


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return some_pictures.write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def decoder(bundle):
    return load_decoder(bundle, ONE_THREAD)


@pytest.fixture
def order(bundle) -> PictureOrder:
    return _order(bundle, PictureSpec(steps=STEPS, seed=5, images=2))


def _order(bundle, spec: PictureSpec, **changes) -> PictureOrder:
    scheduler = parse_scheduler_config(json.dumps(some_pictures.SCHEDULER).encode())
    encoders = load_prompt_encoders(bundle, ONE_THREAD)
    settings = {"manifest": bundle.manifest, "encoders": encoders, "scheduler": scheduler}
    return make_order(spec, "a red cat", "dog", exact=True, **settings, **changes)


def _steps(order: PictureOrder, meter: Meter) -> Generator[DenoisingStep]:
    """What the trunk would say: 10 bytes up, 20 down, 30 ms each, a third of them its own."""
    state = order.start or order.trajectory.start()
    for number in range(order.trajectory.solver.steps):
        noise = predict(number, state.sample)
        before, state = state, order.trajectory.after(noise, number, state)
        meter.bytes_up += 10
        meter.bytes_down += 20
        meter.waited(0.03, 10_000)
        yield DenoisingStep(number, noise, before, state)


def _stream(order: PictureOrder, decoder, *, meter=None, steps=None, every=0) -> ImageStream:
    meter = Meter() if meter is None else meter
    return ImageStream(
        _steps(order, meter) if steps is None else steps,
        order,
        decoder,
        spec=PictureSpec(steps=STEPS, images=2),
        meter=meter,
        began=meter.reading(),
        encode_s=0.25,
        preview_every=every,
    )


def test_there_is_no_result_before_the_end(order, decoder) -> None:
    stream = _stream(order, decoder)
    for number in range(1, STEPS + 1):
        with pytest.raises(UsageError, match="not finished"):
            _ = stream.result
        step = next(stream)
        assert (step.number, step.steps) == (number, STEPS)
    with pytest.raises(UsageError, match="not finished"):
        _ = stream.result
    assert list(stream) == []
    assert stream.result.spec.images == 2


def test_the_result_is_the_last_steps_latents_decoded_once(order, decoder) -> None:
    stream = _stream(order, decoder)
    assert len(list(stream)) == STEPS
    last = list(_steps(order, Meter()))[-1].after.sample
    result = stream.result
    assert np.array_equal(result.latents, last)
    assert np.array_equal(result.images, decoder.decode(last))
    assert result.images.shape == (2, some_pictures.SIDE, some_pictures.SIDE, 3)
    assert result.seed == 5
    assert list(stream) == []  # and again
    assert stream.result is result


@pytest.mark.parametrize(
    ("every", "with_preview"),
    [(0, []), (1, [1, 2, 3, 4, 5, 6, 7]), (3, [3, 6]), (7, [7]), (8, [])],
)
def test_previews_come_every_so_many_steps(order, decoder, every, with_preview) -> None:
    steps = list(_stream(order, decoder, every=every))
    assert [step.number for step in steps if step.preview is not None] == with_preview


def test_a_preview_is_what_the_step_takes_the_picture_to_be(order, decoder) -> None:
    solver = order.trajectory.solver
    previews = [step.preview for step in _stream(order, decoder, every=1)]
    for taken, preview in zip(_steps(order, Meter()), previews, strict=True):
        guess = solver.predicted_original(taken.noise, taken.number, taken.before)
        assert np.array_equal(preview, decoder.decode(guess))
    assert np.array_equal(previews[-1], decoder.decode(taken.after.sample))  # Euler ends in it


def test_previews_change_nothing(order, decoder) -> None:
    plain, shown = _stream(order, decoder), _stream(order, decoder, every=2)
    for stream in (plain, shown):
        list(stream)
    assert np.array_equal(plain.result.latents, shown.result.latents)


def test_stats_add_up_and_are_this_pictures_alone(order, decoder) -> None:
    meter = Meter()
    first = _stream(order, decoder, meter=meter)
    list(first)
    began, slept_s = time.perf_counter(), 0.0
    second = _stream(order, decoder, meter=meter, every=1)
    for _ in second:
        asleep = time.perf_counter()
        time.sleep(0.1)  # the caller's own time
        slept_s += time.perf_counter() - asleep
    busy_s = time.perf_counter() - began - slept_s
    for stream in (first, second):
        stats = stream.result.stats
        assert (stats.bytes_up, stats.bytes_down) == (10 * STEPS, 20 * STEPS)
        assert stats.trunk_s == pytest.approx(0.01 * STEPS)
        assert stats.link_s == pytest.approx(0.02 * STEPS)
        assert stats.encode_s == 0.25
        assert 0 < stats.decode_s <= stats.total_s - stats.encode_s
        assert stats.reconnects == 0
    assert second.result.stats.total_s <= 0.25 + busy_s


def test_the_summary_tells_of_reconnects_where_there_were_any() -> None:
    stats = ImageStats(total_s=1.5, trunk_s=0.5, bytes_up=13_000, bytes_down=3_000)
    assert "1.50 s" in stats.summary()
    assert "13,000 bytes up, 3,000 bytes down" in stats.summary()
    assert "reconnect" not in stats.summary()
    assert "2 reconnects" in ImageStats(reconnects=2).summary()


def test_what_was_lost_on_the_way_is_no_result(order, decoder) -> None:
    def steps() -> Generator[DenoisingStep]:
        yield next(_steps(order, Meter()))
        raise ConnectionLost("gone")

    stream = _stream(order, decoder, steps=steps())
    next(stream)
    with pytest.raises(ConnectionLost):
        next(stream)
    assert next(stream, None) is None  # asked again
    with pytest.raises(UsageError, match="not finished"):
        _ = stream.result


def test_a_closed_stream_takes_no_more_steps_and_has_no_result(order, decoder) -> None:
    meter = Meter()
    with _stream(order, decoder, meter=meter) as stream:
        next(stream)
    assert list(stream) == []
    assert meter.bytes_up == 10
    with pytest.raises(UsageError, match="not finished"):
        _ = stream.result


def test_closing_changes_nothing_after_the_end(order, decoder) -> None:
    with _stream(order, decoder) as stream:
        list(stream)
    assert list(stream) == []
    assert stream.result.seed == 5


def test_a_decoder_that_fails_leaves_no_result(order, tmp_path) -> None:
    chosen = "chosen = Gather <axis = 1> (latents, colours)\n picture = Div(chosen, zero)"
    bundle = some_pictures.write_bundle(tmp_path, some_pictures.Wanted(decoder=chosen))
    stream = _stream(order, load_decoder(bundle, ONE_THREAD))
    with pytest.raises(GraphInvalid):
        list(stream)
    with pytest.raises(UsageError, match="not finished"):
        _ = stream.result


# --- what the trunk is asked ----------------------------------------------------------------------


def test_with_guidance_both_prompts_go(order) -> None:
    assert order.settings.negative == "sent"
    assert order.settings.guidance == 5.0
    context, pooled = order.conditioning
    width = some_pictures.FIRST_WIDTH + some_pictures.SECOND_WIDTH
    assert context.shape == (2, some_pictures.TOKENS, width)
    assert pooled.shape == (2, some_pictures.SECOND_WIDTH)
    assert order.start is None  # the trunk draws it too


def test_without_guidance_one_prompt_is_enough(bundle) -> None:
    order = _order(bundle, PictureSpec(guidance=1.0, rescale=0.7))
    assert (order.settings.negative, order.settings.guidance) == ("none", 1.0)
    assert order.settings.rescale == 0
    assert order.conditioning[0].shape[0] == 1


def test_pictures_without_a_seed_differ(bundle) -> None:
    seeds = {_order(bundle, PictureSpec()).settings.denoising.seed for _ in range(5)}
    assert len(seeds) > 1


def test_latents_of_ones_own_are_scaled_and_sent(bundle) -> None:
    side = some_pictures.SIDE
    noise = np.ones((1, some_pictures.CHANNELS, side, side), np.float32)
    order = _order(bundle, PictureSpec(), latents=noise)
    assert order.start is not None
    scaled = order.trajectory.solver.start(noise).sample
    assert np.array_equal(order.start.sample, scaled)
    with pytest.raises(UsageError, match="latents of shape"):
        _order(bundle, PictureSpec(images=2), latents=noise)
    shape = (1, *noise.shape[1:])
    for wrong in (np.full(shape, np.nan), np.full(shape, 1e300), np.zeros(shape, complex)):
        with pytest.raises(UsageError, match="finite real numbers"):
            _order(bundle, PictureSpec(), latents=wrong)
    for wrong in ([[1.0]], [[1.0], [2.0, 3.0]]):
        with pytest.raises(UsageError, match="latents"):
            _order(bundle, PictureSpec(), latents=wrong)
