"""A denoiser's engine by itself: steps, states, batches, room, guidance, the deep split."""

import msgspec
import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import rescale_noise_cfg

from cloud.pictures.denoiser import Conditioning, Denoiser, guided
from cloud.pictures.engine import DenoisingEngine
from cloud.pictures.works import PictureRequest
from lambda_split.diffusion.gaussian import standard_normal
from lambda_split.diffusion.scheduler_config import SchedulerConfig
from lambda_split.errors import (
    CapacityRefused,
    NonFinite,
    PictureImpossible,
    PictureRefused,
    PositionBeyondEnd,
    PositionGap,
    ServerDraining,
    SessionEvicted,
    StateMismatch,
)
from lambda_split.partition.pipelines.deep import FirstBlocks, LastBlocks, Told, deep_geometry
from lambda_split.wire.pictures.frames import PictureFrame, PictureFrameKind
from lambda_split.wire.pictures.handshake import AcceptedPictures
from lambda_split.wire.pictures.layout import (
    FLOAT_BYTES,
    DenoiserGeometry,
    conditioning_shapes,
    inner_shapes,
    state_shape,
)
from lambda_split.wire.pictures.server_session import (
    MAX_STATE_TENSORS,
    PictureStart,
    PictureStep,
)
from lambda_split.wire.pictures.settings import Denoising, PictureSettings, serialize_settings
from lambda_split.wire.pictures.trajectory import Trajectory
from lambda_split.wire.tensor_codecs import decode, encode
from lambda_split.wire.tensor_format import Base, TensorFormat
from tests.tiny_pipelines import build_tiny_pipeline

FP32, FP16 = TensorFormat(Base.FP32), TensorFormat(Base.FP16)
NF4_DELTA = TensorFormat(Base.NF4, delta=True)
INT8 = TensorFormat(Base.INT8, per_channel=True)
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
EULER = SchedulerConfig(class_name="EulerDiscreteScheduler", **BETAS)
ANCESTRAL = SchedulerConfig(class_name="EulerAncestralDiscreteScheduler", **BETAS)
DPM = SchedulerConfig(class_name="DPMSolverMultistepScheduler", **BETAS)
STEPS = 4


class Bench:
    """An engine of a tiny pipeline's UNet, and what a connection would ask of it."""

    def __init__(self, name, **limits):
        self.pipeline = build_tiny_pipeline(name)
        self.unet = self.pipeline.unet
        config = self.unet.config
        self.denoiser = Denoiser(
            self.unet,
            device=torch.device("cpu"),
            dtype=torch.float32,
            guidance_width=config.time_cond_proj_dim,
        )
        xl = config.addition_embed_type == "text_time"
        self.geometry = DenoiserGeometry(
            channels=config.in_channels,
            context_width=config.cross_attention_dim,
            pooled_width=40 if xl else 0,
            time_ids=6 if xl else 0,
            guidance_embedding=config.time_cond_proj_dim is not None,
            deep=self.denoiser.deep,
        )
        self.engine = self.make_engine(**limits)

    def make_engine(self, *, max_sessions=4, max_rows=10_000, memory=1 << 24):
        return DenoisingEngine(
            self.denoiser,
            geometry=self.geometry,
            max_sessions=max_sessions,
            max_rows=max_rows,
            memory=memory,
        )

    def open(self, *, split="whole", form=FP32):
        return self.engine.open(accepted(split, form))

    def settings(self, **changes):
        facts = {
            "images": 1,
            "height": 6,
            "width": 8,
            "context_tokens": 5,
            "negative": "sent",
            "guidance": 5.0,
            "time_ids": (24, 32, 0, 0, 24, 32) if self.geometry.time_ids else (),
            "guidance_embedding": 7.5 if self.geometry.guidance_embedding else None,
        }
        if "timesteps" not in changes:
            facts["denoising"] = Denoising(scheduler=EULER, steps=STEPS, seed=3)
        return PictureSettings(**(facts | changes))

    def conditioning(self, settings, seed=0):
        shapes = conditioning_shapes(settings, self.geometry)
        return [normal(shape, seed + number) for number, shape in enumerate(shapes)]

    def start(self, session, settings, conditioning=None, form=FP32):
        tensors = self.conditioning(settings) if conditioning is None else conditioning
        head = serialize_settings(settings)
        payload = head + b"".join(encode(tensor, form) for tensor in tensors)
        frame = PictureFrame(
            PictureFrameKind.PICTURE, form, 0, len(tensors), 0, payload, settings_bytes=len(head)
        )
        return self.work(session, PictureStart(settings, frame))

    def asked(self, session, settings, step, tensors=(), form=FP32):
        exact = FP32 if settings.denoising is not None else form
        payload = b"".join(encode(tensor, exact) for tensor in tensors)
        frame = PictureFrame(PictureFrameKind.STEP, form, step, len(tensors), 0, payload)
        return self.work(session, PictureStep(settings, frame))

    def work(self, session, asked):
        request = PictureRequest(asked, self.geometry)
        request.read()
        return request.piece(session, 0, 1)

    def run(self, *works):
        return list(self.engine.step(works))

    def begin(self, session, settings, conditioning=None):
        (outcome,) = self.run(self.start(session, settings, conditioning))
        assert outcome.payload == b""

    def step(self, session, settings, step, tensors=(), form=FP32):
        """What a step brings: its payload, or the error raised."""
        (outcome,) = self.run(self.asked(session, settings, step, tensors, form))
        if isinstance(outcome, Exception):
            raise outcome
        return outcome.payload

    def state(self, session):
        return self.engine._places[session].picture

    def trajectory(self, settings):
        shape = state_shape(settings, self.geometry)
        return Trajectory.of(settings.denoising, settings.images, shape[1:])

    def noise(self, payload, settings, form=FP32, reference=None):
        return decode(payload, form, state_shape(settings, self.geometry), reference)


def accepted(split="whole", form=FP32, max_latents=200, max_context=40):
    return AcceptedPictures(split, form, max_latents, max_context, max_steps=STEPS)


def normal(shape, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def xl():
    return Bench("sdxl")


@pytest.fixture
def bench(xl):
    """The same UNet in a fresh engine."""
    xl.engine = xl.make_engine()
    return xl


# --- steps --------------------------------------------------------------------------------------


@torch.inference_mode()
def plain(bench, settings, conditioning):
    """The picture's noise of each step, by diffusers' own UNet and nothing of the engine."""
    way = bench.trajectory(settings)
    context, pooled = (torch.from_numpy(tensor) for tensor in conditioning)
    ids = torch.tensor([settings.time_ids] * 2)
    state, noises = way.start(), []
    for step in range(STEPS):
        scaled = torch.from_numpy(way.solver.scale_input(state.sample, step))
        positive, negative = bench.unet(
            torch.cat([scaled, scaled]),
            way.solver.timesteps[step],
            encoder_hidden_states=context,
            added_cond_kwargs={"text_embeds": pooled, "time_ids": ids},
        ).sample.chunk(2)
        noise = (negative + settings.guidance * (positive - negative)).numpy()
        noises.append(noise)
        state = way.after(noise, step, state)
    return noises


@pytest.mark.parametrize("scheduler", [EULER, ANCESTRAL, DPM], ids=lambda each: each.class_name)
def test_steps_bring_what_the_unet_predicts(bench, scheduler):
    settings = bench.settings(denoising=Denoising(scheduler=scheduler, steps=STEPS, seed=3))
    conditioning = bench.conditioning(settings)
    session = bench.open()
    bench.begin(session, settings, conditioning)
    for step, expected in enumerate(plain(bench, settings, conditioning)):
        noise = bench.noise(bench.step(session, settings, step), settings)
        np.testing.assert_allclose(noise, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", [FP32, FP16, INT8, NF4_DELTA], ids=lambda form: form.label)
@pytest.mark.parametrize("scheduler", [EULER, ANCESTRAL, DPM], ids=lambda each: each.class_name)
def test_the_trunk_goes_the_way_of_what_it_sent(bench, scheduler, form):
    settings = bench.settings(denoising=Denoising(scheduler=scheduler, steps=STEPS, seed=3))
    session, way = bench.open(form=form), bench.trajectory(settings)
    bench.begin(session, settings)
    state = way.start()
    reference = way.first_reference(state)
    for step in range(STEPS):
        payload = bench.step(session, settings, step, form=form)
        reference = bench.noise(payload, settings, form, reference)
        state = way.after(reference, step, state)
        held = bench.state(session)
        assert held.step == step + 1
        assert np.array_equal(held.state.sample, state.sample)
        assert all(map(np.array_equal, held.state.memory, state.memory))


def test_without_synchronization_the_trunk_goes_its_own_way(bench):
    denoising = Denoising(scheduler=EULER, steps=STEPS, seed=3, synchronized=False)
    settings = bench.settings(denoising=denoising)
    exact, coded = bench.open(), bench.open(form=NF4_DELTA)
    for session in (exact, coded):
        bench.begin(session, settings)
    for step in range(2):
        bench.step(exact, settings, step)
        bench.step(coded, settings, step, form=NF4_DELTA)
        one, other = bench.state(exact), bench.state(coded)
        np.testing.assert_array_equal(one.state.sample, other.state.sample)
        assert not np.array_equal(one.reference, other.reference)  # what the device has


@pytest.mark.parametrize("form", [FP32, NF4_DELTA], ids=lambda form: form.label)
@pytest.mark.parametrize("scheduler", [EULER, ANCESTRAL, DPM], ids=lambda each: each.class_name)
def test_a_picture_goes_on_elsewhere_from_its_state(bench, scheduler, form):
    settings = bench.settings(denoising=Denoising(scheduler=scheduler, steps=STEPS, seed=3))
    first, second = bench.open(form=form), bench.open(form=form)
    bench.begin(first, settings)
    for step in range(2):
        bench.step(first, settings, step, form=form)
    held = bench.state(first)
    tensors = [held.state.sample, *held.state.memory]
    if form.delta:
        tensors.append(held.reference)
    bench.begin(second, settings)
    assert bench.step(first, settings, 2, form=form) == bench.step(
        second, settings, 2, tensors, form=form
    )
    assert bench.step(first, settings, 3, form=form) == bench.step(second, settings, 3, form=form)


def test_a_picture_may_start_from_latents_of_the_device_s_own(bench):
    settings = bench.settings()
    way = bench.trajectory(settings)
    latents = way.solver.start(normal((1, 4, 6, 8), 9)).sample
    session = bench.open(form=NF4_DELTA)
    bench.begin(session, settings)
    payload = bench.step(session, settings, 0, [latents], form=NF4_DELTA)
    reference = way.solver.scale_input(latents, 0)
    assert np.array_equal(
        bench.state(session).reference, bench.noise(payload, settings, NF4_DELTA, reference)
    )


# --- what is rejected ---------------------------------------------------------------------------


@pytest.mark.parametrize(("taken", "asked"), [(0, 1), (0, 3), (2, 1), (2, 3)])
def test_a_step_from_nowhere_is_a_gap(bench, taken, asked):
    settings, session = bench.settings(), bench.open()
    bench.begin(session, settings)
    payloads = [bench.step(session, settings, step) for step in range(taken)]
    with pytest.raises(PositionGap) as caught:
        bench.step(session, settings, asked)
    assert caught.value.wire_fields() == {"start": asked, "length": taken}
    bench.step(session, settings, taken)
    # The first is from the seed, whatever was before.
    assert bench.step(session, settings, 0) == (payloads or [bench.step(session, settings, 0)])[0]


@pytest.mark.parametrize(
    ("form", "step", "tensors", "expected"),
    [(FP32, 0, 2, 1), (FP32, 1, 2, 1), (NF4_DELTA, 1, 1, 2), (NF4_DELTA, 1, 3, 2)],
)
def test_a_state_has_as_many_tensors_as_its_step_needs(bench, form, step, tensors, expected):
    settings, session = bench.settings(), bench.open(form=form)
    bench.begin(session, settings)
    state = [normal((1, 4, 6, 8), seed) for seed in range(tensors)]
    with pytest.raises(StateMismatch) as caught:
        bench.step(session, settings, step, state, form=form)
    assert caught.value.wire_fields() == {"found": tensors, "expected": expected}
    assert bench.state(session).step == 0
    bench.step(session, settings, 0, form=form)


@pytest.mark.parametrize(
    "changes",
    [
        {"scheduler": SchedulerConfig(class_name="TCDScheduler")},
        {"scheduler": msgspec.structs.replace(EULER, beta_schedule="unheard-of")},
        {"scheduler": msgspec.structs.replace(EULER, num_train_timesteps=3)},
    ],
    ids=["solver", "schedule", "steps"],
)
def test_a_picture_that_cannot_be_made_is_told_and_ends_the_one_before(bench, changes):
    before, session = bench.settings(), bench.open()
    bench.begin(session, before)
    bench.step(session, before, 0)
    settings = bench.settings(denoising=msgspec.structs.replace(before.denoising, **changes))
    (outcome,) = bench.run(bench.start(session, settings))
    assert type(outcome) is PictureImpossible
    for step in (0, 1):
        with pytest.raises(PositionGap) as caught:
            bench.step(session, settings, step)
        assert caught.value.wire_fields() == {"start": step, "length": 0}
    again = bench.settings()
    bench.begin(session, again)
    bench.step(session, again, 0)


def test_a_step_without_a_picture_is_a_gap(bench):
    with pytest.raises(PositionGap):
        bench.step(bench.open(), bench.settings(), 0)


def test_a_step_beyond_those_that_the_solver_takes_is_told(bench):
    """A clipped schedule has fewer steps than were asked for."""
    scheduler = msgspec.structs.replace(DPM, timestep_spacing="trailing", lambda_min_clipped=-1.0)
    settings = bench.settings(denoising=Denoising(scheduler=scheduler, steps=STEPS, seed=3))
    taken = bench.trajectory(settings).solver.steps
    assert taken < STEPS
    session = bench.open()
    bench.begin(session, settings)
    for step in range(taken):
        bench.step(session, settings, step)
    for tensors in ([], [normal((1, 4, 6, 8), 0)]):
        with pytest.raises(PositionBeyondEnd) as caught:
            bench.step(session, settings, taken, tensors)
        assert caught.value.wire_fields() == {"end": taken + 1, "max_positions": taken}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_comes_in_is_finite(bench, value):
    settings, session = bench.settings(), bench.open()
    context, pooled = bench.conditioning(settings)
    head, data = serialize_settings(settings), context.tobytes() + pooled.tobytes()
    bad = np.float32(value).tobytes()
    frame = PictureFrame(
        PictureFrameKind.PICTURE, FP32, 0, 2, 0, head + data[:-4] + bad, settings_bytes=len(head)
    )
    with pytest.raises(NonFinite) as caught:
        bench.work(session, PictureStart(settings, frame))
    assert caught.value.where == "incoming"
    frame = PictureFrame(PictureFrameKind.STEP, FP32, 1, 1, 0, bad * (4 * 6 * 8))
    with pytest.raises(NonFinite):
        bench.work(session, PictureStep(settings, frame))


def test_what_comes_out_is_finite_and_a_failing_step_leaves_the_picture_as_it_was(bench):
    settings, session = bench.settings(), bench.open()
    bench.begin(session, settings)
    bench.step(session, settings, 0)
    before = bench.state(session)
    with pytest.raises(NonFinite) as caught:
        bench.step(session, settings, 1, [np.full((1, 4, 6, 8), 3e38, np.float32)])
    assert caught.value.where == "outgoing"
    assert bench.state(session) is before
    bench.step(session, settings, 1)


def test_a_fault_of_the_denoiser_leaves_the_picture_as_it_was(bench, monkeypatch):
    settings, session = bench.settings(), bench.open()
    bench.begin(session, settings)
    bench.step(session, settings, 0)
    before = bench.state(session)

    def failing(*_):
        raise torch.OutOfMemoryError

    with monkeypatch.context() as patch:
        patch.setattr(bench.denoiser, "predict", failing)
        with pytest.raises(PictureImpossible):
            bench.step(session, settings, 1)
    assert bench.state(session) is before
    bench.step(session, settings, 1)


def test_a_step_can_be_taken_back_once(bench):
    settings, session = bench.settings(), bench.open()
    bench.begin(session, settings)
    bench.step(session, settings, 0)
    payload = bench.step(session, settings, 1)
    for _ in range(2):
        bench.engine.revert(session)
        assert bench.state(session).step == 1
    assert bench.step(session, settings, 1) == payload


# --- several at once ----------------------------------------------------------------------------


def counted(bench, monkeypatch):
    rows, predict = [], bench.denoiser.predict

    def counting(latents, *rest):
        rows.append(len(latents))
        return predict(latents, *rest)

    monkeypatch.setattr(bench.denoiser, "predict", counting)
    return rows


@pytest.mark.parametrize(
    ("max_rows", "runs"), [(10_000, [6]), (5 * 48, [3, 3]), (1, [2, 1, 3])], ids=str
)
def test_pictures_in_one_run_are_what_each_is_alone(bench, monkeypatch, max_rows, runs):
    bench.engine = bench.make_engine(max_rows=max_rows)
    several = [
        bench.settings(guidance=3.0),
        bench.settings(negative="none", denoising=Denoising(scheduler=DPM, steps=STEPS, seed=1)),
        bench.settings(images=3, negative="none"),
    ]
    told = [bench.conditioning(each, seed) for seed, each in enumerate(several)]
    alone = []
    for settings, conditioning in zip(several, told, strict=True):
        session = bench.open()
        bench.begin(session, settings, conditioning)
        alone.append([bench.step(session, settings, step) for step in range(STEPS)])
        bench.engine.close(session)
    rows = counted(bench, monkeypatch)
    sessions = [bench.open() for _ in several]
    starts = map(bench.start, sessions, several, told)
    assert [outcome.payload for outcome in bench.run(*starts)] == [b""] * 3
    for step in range(STEPS):
        outcomes = bench.run(
            *(bench.asked(*each, step) for each in zip(sessions, several, strict=True))
        )
        for settings, outcome, expected in zip(several, outcomes, alone, strict=True):
            np.testing.assert_allclose(
                bench.noise(outcome.payload, settings),
                bench.noise(expected[step], settings),
                rtol=1e-3,
                atol=1e-3,
            )
    assert rows == runs * STEPS


def test_pictures_of_other_sizes_run_apart(bench, monkeypatch):
    several = [bench.settings(), bench.settings(width=4), bench.settings(context_tokens=3)]
    sessions = [bench.open() for _ in several]
    for session, settings in zip(sessions, several, strict=True):
        bench.begin(session, settings)
    rows = counted(bench, monkeypatch)
    works = [bench.asked(*each, 0) for each in zip(sessions, several, strict=True)]
    sizes = [len(outcome.payload) for outcome in bench.run(*works)]
    assert sizes == [4 * 4 * 6 * 8, 4 * 4 * 6 * 4, 4 * 4 * 6 * 8]
    assert rows == [2, 2, 2]


def test_who_is_at_fault_fails_alone(bench, monkeypatch):
    settings, sessions = bench.settings(), [bench.open() for _ in range(3)]
    for session in sessions:
        bench.begin(session, settings)
    predict = bench.denoiser.predict

    def failing(latents, *rest):
        if (latents == 1).all(dim=(1, 2, 3)).any():
            raise ValueError("a hard one")
        return predict(latents, *rest)

    monkeypatch.setattr(bench.denoiser, "predict", failing)
    scale = bench.trajectory(settings).solver.rows[0].input_scale
    latents = np.full((1, 4, 6, 8), 1 / scale, np.float32)
    works = [bench.asked(session, settings, 0) for session in sessions[:2]]
    first, hard, gap = bench.run(
        works[0],
        bench.asked(sessions[2], settings, 0, [latents]),
        bench.asked(sessions[1], settings, 2),
    )
    assert len(first.payload) == 4 * 4 * 6 * 8
    assert isinstance(hard, ValueError)
    assert isinstance(gap, PositionGap)


def test_a_draining_engine_ends_its_step():
    bench = Bench("sd1")
    settings, session = bench.settings(), bench.open()
    bench.begin(session, settings)
    bench.engine.interrupt()
    with pytest.raises(ServerDraining):
        bench.step(session, settings, 0)


# --- room ---------------------------------------------------------------------------------------


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


# --- guidance -----------------------------------------------------------------------------------


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("rescale", [0.0, 0.7, 1.0])
def test_guidance_is_diffusers_own(images, rescale):
    torch.manual_seed(0)
    prompt, negative = torch.randn(images, 4, 6, 8), torch.randn(images, 4, 6, 8)
    expected = negative + 7.5 * (prompt - negative)
    if rescale:
        expected = rescale_noise_cfg(expected, prompt, guidance_rescale=rescale)
    result = guided(torch.cat([prompt, negative]), images, 7.5, rescale)
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-6)


def test_zeros_need_not_be_sent(bench):
    sent, zeros = bench.settings(), bench.settings(negative="zeros")
    told = bench.conditioning(zeros)
    one, other = bench.open(), bench.open()
    bench.begin(one, zeros, told)
    bench.begin(other, sent, [np.concatenate([each, np.zeros_like(each)]) for each in told])
    assert bench.step(one, zeros, 0) == bench.step(other, sent, 0)


def test_each_image_has_its_prompt(bench):
    settings = bench.settings(images=2, prompts=2)
    told = bench.conditioning(settings)
    session = bench.open()
    bench.begin(session, settings, told)
    both = bench.noise(bench.step(session, settings, 0), settings)
    for image in range(2):
        denoising = msgspec.structs.replace(settings.denoising, first_image=image)
        single = bench.settings(denoising=denoising)
        bench.begin(session, single, [each[[image, image + 2]] for each in told])
        noise = bench.noise(bench.step(session, single, 0), single)
        np.testing.assert_allclose(both[image : image + 1], noise, rtol=1e-4, atol=1e-4)


def test_a_distilled_denoiser_is_told_its_scale():
    bench = Bench("lcm")
    settings = bench.settings(negative="none")
    (context,) = bench.conditioning(settings)
    session, way = bench.open(), bench.trajectory(settings)
    bench.begin(session, settings, [context])
    noise = bench.noise(bench.step(session, settings, 0), settings)
    embedded = bench.pipeline.get_guidance_scale_embedding(
        torch.tensor([settings.guidance_embedding - 1]), embedding_dim=24
    )
    with torch.inference_mode():
        expected = bench.unet(
            torch.from_numpy(way.solver.scale_input(way.start().sample, 0)),
            way.solver.timesteps[0],
            encoder_hidden_states=torch.from_numpy(context),
            timestep_cond=embedded,
        ).sample
    np.testing.assert_allclose(noise, expected.numpy(), rtol=1e-4, atol=1e-4)


# --- the deep split -----------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(8, 8), (6, 10), (7, 9), (5, 4), (3, 3)], ids=str)
@pytest.mark.parametrize("name", ["sdxl", "sd1", "sd2", "lcm"])
@torch.inference_mode()
def test_first_inner_and_last_blocks_are_the_whole_denoiser(name, height, width):
    bench = Bench(name)
    settings = bench.settings(
        images=2, height=height, width=width, timesteps=(801.0, 401.0, 1.0), prompts=2
    )
    conditioning = bench.conditioning(settings)
    context, *pooled = (torch.from_numpy(each) for each in conditioning)
    latents = torch.from_numpy(standard_normal(5, 0, range(4), (4, height, width)))
    added = embedded = None
    if pooled:
        ids = torch.tensor(settings.time_ids)[None].expand(4, -1)
        added = {"text_embeds": pooled[0], "time_ids": ids}
    if settings.guidance_embedding is not None:
        scale = torch.tensor([settings.guidance_embedding - 1] * 4)
        embedded = bench.pipeline.get_guidance_scale_embedding(scale, embedding_dim=24)
    first, last = FirstBlocks(bench.unet), LastBlocks(bench.unet)
    session = bench.open(split="deep")
    bench.begin(session, settings, conditioning)
    entering, leaving = inner_shapes(settings, bench.geometry.deep)
    for step in (2, 0, 1):  # in any order
        timesteps = torch.full((4,), settings.timesteps[step])
        told = Told(timesteps, context, added, embedded)
        features, embedding, *skips = first(latents, told)
        assert features.shape == entering
        payload = bench.step(session, settings, step, [features.numpy()])
        inner = torch.from_numpy(decode(payload, FP32, leaving))
        noise = last(inner, embedding, context, *skips)
        expected = bench.unet(
            latents,
            timesteps,
            encoder_hidden_states=context,
            timestep_cond=embedded,
            added_cond_kwargs=added,
        ).sample
        torch.testing.assert_close(noise, expected, rtol=1e-4, atol=1e-4)


def test_the_whole_denoiser_is_whole_after_it_was_cut(bench):
    assert bench.unet.up_blocks[-2].upsamplers is not None
    assert bench.denoiser.deep == deep_geometry(bench.unet)


def test_whole_and_deep_pictures_run_apart(bench):
    deep, whole = bench.settings(timesteps=(1.0,)), bench.settings()
    one, other = bench.open(split="deep"), bench.open()
    bench.begin(one, deep)
    bench.begin(other, whole)
    entering, leaving = inner_shapes(deep, bench.geometry.deep)
    outcomes = bench.run(
        bench.asked(one, deep, 0, [normal(entering, 0)]), bench.asked(other, whole, 0)
    )
    assert [len(outcome.payload) for outcome in outcomes] == [4 * np.prod(leaving), 4 * 4 * 48]


def test_a_denoiser_of_one_block_cannot_be_cut():
    unet = UNet2DConditionModel(
        block_out_channels=(32,),
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=32,
    )
    denoiser = Denoiser(unet, device=torch.device("cpu"), dtype=torch.float32)
    assert denoiser.deep is None
    with pytest.raises(PictureImpossible):
        denoiser.predict_inner(
            torch.zeros(1, 32, 4, 4), torch.ones(1), Conditioning(torch.zeros(1, 5, 32))
        )
