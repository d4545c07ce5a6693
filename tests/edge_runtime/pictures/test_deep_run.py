"""The split ``deep`` on the device: what is sent, what stays, and how a loss is met."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edge_runtime import ImageGenerator, PictureSpec, RetryPolicy
from edge_runtime.pictures.blocks import Told, load_blocks
from edge_runtime.pictures.deep_run import DeepRun
from edge_runtime.pictures.guidance import Guidance
from edge_runtime.stats import Meter
from lambda_split.diffusion.scheduler_config import parse_scheduler_config
from lambda_split.errors import GraphInvalid, ManifestInvalid, UsageError
from lambda_split.wire.pictures.frames import PictureFrame, PictureFrameKind
from lambda_split.wire.pictures.settings import Denoising, parse_settings
from lambda_split.wire.pictures.trajectory import Trajectory
from lambda_split.wire.tensor_codecs import decode
from lambda_split.wire.tensor_format import Base, TensorFormat
from tests.edge_runtime.hostile_server import hostile_server
from tests.edge_runtime.pictures import some_blocks, some_pictures
from tests.edge_runtime.pictures.some_blocks import WantedBlocks, serve_twice, write_deep_bundle
from tests.edge_runtime.pictures.some_pictures import CHANNELS, ONE_THREAD, SIDE

SPEC = PictureSpec(steps=6, seed=3, guidance=3.0, images=2)
ROWS = 4
RETRY = RetryPolicy(give_up_after_s=60, connect_timeout_s=60, reply_timeout_s=60)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_deep_bundle(tmp_path_factory.mktemp("bundle"))


def _open(bundle, url, form="fp32") -> ImageGenerator:
    return ImageGenerator.open(bundle, url, format=form, runtime=ONE_THREAD, retry=RETRY)


def _paint(bundle, spec=SPEC, form="fp32", **script):
    seen: list = []
    with (
        hostile_server(lambda peer: serve_twice(peer, seen=seen, **script)) as server,
        _open(bundle, server.url, form) as painter,
    ):
        return painter.generate("a red cat", negative_prompt="dog", spec=spec), seen


def _frames(seen, kind, connection=0):
    return [
        frame
        for number, frame, _ in seen
        if number == connection and isinstance(frame, PictureFrame) and frame.kind is kind
    ]


def _by_hand(bundle, seen, spec) -> np.ndarray:
    """The latents that come of the conditioning which the first connection was sent."""
    (begin,) = _frames(seen, PictureFrameKind.PICTURE)
    settings = parse_settings(begin.payload[: begin.settings_bytes])
    prompts = settings.branches
    width = some_pictures.FIRST_WIDTH + some_pictures.SECOND_WIDTH
    pooled_bytes = 4 * prompts * some_pictures.SECOND_WIDTH
    pooled = decode(
        begin.payload[-pooled_bytes:],
        TensorFormat(Base.FP32),
        (prompts, some_pictures.SECOND_WIDTH),
    ).repeat(spec.images, axis=0)
    assert len(begin.payload) - begin.settings_bytes - pooled_bytes == (
        4 * prompts * some_pictures.TOKENS * width
    )
    scheduler = parse_scheduler_config(bundle.file(bundle.manifest.scheduler.file).read_bytes())
    denoising = Denoising(scheduler=scheduler, steps=spec.steps, seed=spec.seed)
    trajectory = Trajectory.of(denoising, spec.images, (CHANNELS, SIDE, SIDE))
    assert settings.timesteps == trajectory.solver.timesteps
    state = trajectory.start()
    for step in range(spec.steps):
        scaled = np.concatenate([trajectory.solver.scale_input(state.sample, step)] * prompts)
        sent = some_blocks.features_of(scaled, settings.timesteps[step])
        rows = some_blocks.noise_of(scaled, 2 * sent, pooled)
        noise = Guidance(spec.guidance, spec.rescale).apply(rows) if prompts == 2 else rows
        state = trajectory.after(noise, step, state)
    return state.sample


@pytest.mark.parametrize(
    ("changes", "rows"),
    [
        ({}, 4),
        ({"rescale": 0.5}, 4),
        ({"guidance": 1.0}, 2),
        ({"images": 1, "steps": 1}, 2),
        ({"images": 1, "guidance": 0.5, "steps": 25}, 1),
        ({"solver": "dpm++2m"}, 4),
    ],
)
def test_a_picture_is_what_its_parts_say(bundle, changes, rows) -> None:
    spec = dataclasses.replace(SPEC, **changes)
    result, seen = _paint(bundle, spec, rows=rows)
    if spec.solver is None:
        wanted = _by_hand(bundle, seen, spec)
        np.testing.assert_allclose(result.latents, wanted, rtol=1e-4, atol=1e-4)
    frames = _frames(seen, PictureFrameKind.STEP)
    assert [frame.step for frame in frames] == list(range(spec.steps))
    values = rows * CHANNELS * some_blocks.HALF**2
    assert all((frame.tensors, len(frame.payload)) == (1, 4 * values) for frame in frames)
    assert result.stats.blocks_s > 0
    assert result.stats.trunk_s == pytest.approx(0.001 * (spec.steps + 1))
    assert result.stats.reconnects == 0


def test_neither_seed_nor_solver_nor_guidance_is_told(bundle) -> None:
    _, seen = _paint(bundle, rows=ROWS)
    (begin,) = _frames(seen, PictureFrameKind.PICTURE)
    settings = parse_settings(begin.payload[: begin.settings_bytes])
    assert settings.denoising is None
    assert (settings.guidance, settings.rescale, settings.negative) == (1.0, 0.0, "sent")
    _, hello, text = seen[0]
    assert hello.split == "deep"
    for word in (b"seed", b"scheduler"):
        assert word not in text


def test_a_server_that_lets_one_wait_is_enough(bundle) -> None:
    one, _ = _paint(bundle, rows=ROWS, in_flight=1)
    four, _ = _paint(bundle, rows=ROWS)
    assert np.array_equal(one.latents, four.latents)


@pytest.mark.parametrize("form", ["fp32", "int8-channel"])
def test_after_a_loss_the_same_bytes_go_again(bundle, form) -> None:
    wanted, _ = _paint(bundle, form=form, rows=ROWS)
    seen: list = []

    def script(peer) -> None:
        serve_twice(peer, steps=3 if peer.number == 0 else None, rows=ROWS, seen=seen)

    with hostile_server(script) as server, _open(bundle, server.url, form) as painter:
        result = painter.generate("a red cat", negative_prompt="dog", spec=SPEC)
    assert result.stats.reconnects == 1
    assert np.array_equal(result.latents, wanted.latents)
    lost = _frames(seen, PictureFrameKind.STEP)[-1]
    again = _frames(seen, PictureFrameKind.STEP, connection=1)
    assert [frame.step for frame in again] == [3, 4, 5]
    assert (lost.step, lost.payload) == (again[0].step, again[0].payload)
    hello = next(message for number, message, _ in seen if number == 1)
    assert hello.resumed_step == 3
    begins = [_frames(seen, PictureFrameKind.PICTURE, connection=number) for number in (0, 1)]
    assert begins[0][0].payload == begins[1][0].payload


def test_latents_of_ones_own_stay_here(bundle) -> None:
    noise = np.random.default_rng(1).normal(size=(2, CHANNELS, SIDE, SIDE)).astype(np.float32)
    seen: list = []
    with (
        hostile_server(lambda peer: serve_twice(peer, seen=seen, rows=ROWS)) as server,
        _open(bundle, server.url) as painter,
    ):
        first = painter.generate("a red cat", spec=SPEC, latents=noise)
        second = painter.generate("a red cat", spec=SPEC)
    assert not np.array_equal(first.latents, second.latents)
    assert all(noise.tobytes() not in message for _, _, message in seen)


def test_previews_are_made_here(bundle) -> None:
    with (
        hostile_server(lambda peer: serve_twice(peer, rows=ROWS)) as server,
        _open(bundle, server.url) as painter,
    ):
        stream = painter.stream("a red cat", spec=SPEC, preview_every=2)
        assert [step.number for step in stream if step.preview is not None] == [2, 4, 6]


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["nf4-delta", "fp16-delta", "int8-channel-delta"])
def test_differences(bundle, form) -> None:
    with pytest.raises(UsageError, match="differences"):
        ImageGenerator.open(bundle, "ws://127.0.0.1:1", format=form)


def test_drifting_apart(bundle) -> None:
    with (
        hostile_server(serve_twice) as server,
        _open(bundle, server.url) as painter,
        pytest.raises(UsageError, match="drifts"),
    ):
        painter.stream("a cat", spec=PictureSpec(synchronized=False))


def test_an_order_for_a_whole_denoiser(bundle, tmp_path) -> None:
    from tests.edge_runtime.pictures.test_image_stream import _order

    order = _order(some_pictures.write_bundle(tmp_path), PictureSpec())
    with pytest.raises(UsageError, match="whole denoiser"):
        DeepRun(order, load_blocks(bundle, ONE_THREAD), Meter())


def test_a_bundle_without_blocks(tmp_path) -> None:
    with pytest.raises(ManifestInvalid, match="no blocks"):
        load_blocks(some_pictures.write_bundle(tmp_path), ONE_THREAD)


def test_blocks_of_other_widths(tmp_path) -> None:
    bundle = write_deep_bundle(tmp_path, WantedBlocks(input_channels=CHANNELS + 1))
    with pytest.raises(GraphInvalid, match="features"):
        load_blocks(bundle, ONE_THREAD)


def test_a_file_that_is_no_graph(bundle, tmp_path) -> None:
    broken = write_deep_bundle(tmp_path)
    broken.file("unet_last/model.onnx").write_bytes(b"?")
    with pytest.raises(GraphInvalid, match="unet_last"):
        load_blocks(broken, ONE_THREAD)


WRONG = {
    "first: nothing finite": (WantedBlocks(features="features = Div(means, zero)"), "NaN"),
    "first: another size": (
        WantedBlocks(features="features = AveragePool <kernel_shape = [2, 2]> (means)"),
        "it gives",
    ),
    "last: nothing finite": (WantedBlocks(noise="noise = Div(most, zero)"), "NaN"),
    "last: another size": (
        WantedBlocks(noise="noise = AveragePool <kernel_shape = [2, 2]> (most)"),
        "it gives",
    ),
}


@pytest.mark.parametrize(("wanted", "words"), WRONG.values(), ids=WRONG)
def test_what_blocks_may_not_give(tmp_path, wanted, words) -> None:
    runner = load_blocks(write_deep_bundle(tmp_path, wanted), ONE_THREAD)
    latents = np.ones((1, CHANNELS, 4, 6), np.float32)
    told = Told(
        {
            "context": np.ones((1, 2, 3), np.float32),
            "pooled": np.ones((1, some_pictures.SECOND_WIDTH), np.float32),
        }
    )

    def run() -> None:
        first = runner.first(latents, 1.0, told)
        runner.last(first.features, first, latents.shape[1:])

    with pytest.raises(GraphInvalid, match=words):
        run()
