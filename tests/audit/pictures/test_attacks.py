"""What is read of a picture's messages leads back to it; noise in their place does not."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from audit.pictures import attack_deep, attack_whole, likeness, make_own, read_messages
from audit.pictures.maps import LinearMap, channel_mean, first_channels
from audit.pictures.searching import search
from audit.pictures.sessions import deep_sessions, whole_sessions
from audit.pictures.tapped import TappedPicture, watch
from lambda_split.errors import UsageError
from tests.audit.pictures.some_model import PLAN, form_of, pictures_of


def seen_of(model, sessions) -> list[TappedPicture]:
    return [read_messages(one.up, one.down, model.geometry)[0] for one in sessions]


def shown_of(model, sessions) -> np.ndarray:
    return model.show(np.concatenate([one.latents for one in sessions]))


@pytest.mark.parametrize("label", ["fp32", "fp16", "int2", "nf4-channel-delta"])
def test_the_messages_of_the_whole_split_hold_the_picture(sdxl, label) -> None:
    sessions = whole_sessions(sdxl, pictures_of(sdxl, label), form_of(label))
    seen, shown = seen_of(sdxl, sessions), shown_of(sdxl, sessions)
    for session, picture in zip(sessions, seen, strict=True):
        assert np.array_equal(watch(picture, PLAN.steps), session.latents)
    (half,) = attack_whole(sdxl, seen, shown, 2, samples=1)
    (last,) = attack_whole(sdxl, seen, shown, PLAN.steps, samples=1)
    assert last.likeness.psnr == (np.inf, np.inf)
    assert last.likeness.ssim == pytest.approx((1, 1))
    assert np.array_equal(last.pictures, shown[:1])
    assert max(half.likeness.ssim) < 1


def test_noise_in_place_of_the_answers_shows_nothing(sdxl) -> None:
    sessions = whole_sessions(sdxl, pictures_of(sdxl, "fp16"), form_of("fp16"))
    seen, shown = seen_of(sdxl, sessions), shown_of(sdxl, sessions)
    random = np.random.default_rng(0)
    for picture in seen:
        for step, payload in picture.answers.items():
            noise = random.normal(size=len(payload) // 2).astype(np.float16)
            picture.answers[step] = noise.tobytes()
    (found,) = attack_whole(sdxl, seen, shown, PLAN.steps, samples=1)
    assert max(found.likeness.psnr) < 20


@pytest.mark.parametrize("label", ["fp16", "int8-channel"])
def test_features_of_the_deep_split_lead_back_to_the_latents(sdxl, label) -> None:
    sessions = deep_sessions(sdxl, pictures_of(sdxl, label), form_of(label))
    seen = seen_of(sdxl, sessions)
    assert seen[0].features[0].shape == (2, 32, 8, 8)
    assert seen[0].settings.denoising is None  # neither seed nor solver crossed
    found, off = search(sdxl, seen, PLAN.steps - 1, guidance=PLAN.guidance)
    assert off < 0.3  # of random weights, which are harder to go back through than trained ones
    wanted = np.concatenate([one.latents for one in sessions])
    assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.7


def test_noise_in_place_of_the_features_shows_nothing(sdxl) -> None:
    sessions = deep_sessions(sdxl, pictures_of(sdxl, "fp16"), form_of("fp16"))
    seen = seen_of(sdxl, sessions)
    random = np.random.default_rng(0)
    last = PLAN.steps - 1
    for picture in seen:
        true = picture.features[last]
        noise = random.normal(true.mean(), true.std(), true.shape)
        picture.features[last] = noise.astype(np.float32)
    found, off = search(sdxl, seen, last, guidance=PLAN.guidance, rounds=100)
    assert off > 0.5
    wanted = np.concatenate([one.latents for one in sessions])
    assert abs(np.corrcoef(found.ravel(), wanted.ravel())[0, 1]) < 0.3


def test_more_pictures_of_his_own_teach_more(sdxl) -> None:
    sessions = deep_sessions(sdxl, pictures_of(sdxl, "fp16"), form_of("fp16"))
    seen, shown = seen_of(sdxl, sessions), shown_of(sdxl, sessions)
    few = make_own(sdxl, PLAN, 3)
    more = make_own(sdxl, PLAN, 40, known=[few])
    assert np.array_equal(few.latents, more.latents[:3])
    found = attack_deep(sdxl, seen, shown, PLAN.steps, [few, more], samples=2, rounds=5)
    linear = {one.pairs: np.mean(one.likeness.psnr) for one in found if one.name == "a linear map"}
    assert sorted(linear) == [3, 40]
    assert linear[40] > linear[3]
    assert {one.pictures.shape for one in found} == {(2, 64, 64, 3)}


def test_timesteps_of_another_scheduler_are_refused(sdxl) -> None:
    (one, _) = deep_sessions(sdxl, pictures_of(sdxl, "fp16"), form_of("fp16"))
    (picture,) = seen_of(sdxl, [one])
    others = (1.0, 2.0, 3.0, 4.0)
    picture.settings = msgspec.structs.replace(picture.settings, timesteps=others)
    with pytest.raises(UsageError, match="timesteps"):
        search(sdxl, [picture], 0)


def test_a_linear_map_finds_what_is_linear() -> None:
    random = np.random.default_rng(0)
    latents = random.normal(size=(20, 4, 8, 6)).astype(np.float32)
    # (20, 4, 4, 2, 3, 2) -> (20, 4, 2, 2, 4, 3) -> (20, 16, 4, 3): each place's four latents
    cells = latents.reshape(20, 4, 4, 2, 3, 2).transpose(0, 1, 3, 5, 2, 4).reshape(20, 16, 4, 3)
    features = np.einsum("fc,nchw->nfhw", random.normal(size=(24, 16)), cells).astype(np.float32)
    linear = LinearMap.fitted(features[:15], latents[:15])
    np.testing.assert_allclose(linear(features[15:]), latents[15:], atol=1e-3)


def test_simple_looks_have_the_shape_of_what_they_look_for() -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(3, 32, 8, 8)).astype(np.float32)
    likely = random.normal(2, 0.5, size=(5, 4, 16, 16)).astype(np.float32)
    guessed = first_channels(features, likely)
    assert guessed.shape == (3, 4, 16, 16)
    assert guessed.mean() == pytest.approx(2, abs=0.1)
    assert guessed.std() == pytest.approx(0.5, abs=0.1)
    grey = channel_mean(features, (64, 64))
    assert grey.shape == (3, 64, 64, 3)
    assert (grey.min(), grey.max()) == (0, 255)


def test_likeness_is_one_value_a_picture() -> None:
    random = np.random.default_rng(0)
    wanted = random.uniform(0, 255, size=(2, 32, 32, 3))
    found = likeness([wanted[0], wanted[1] + 2], wanted)
    assert found.psnr == (np.inf, pytest.approx(20 * np.log10(255 / 2)))
    assert found.ssim[0] == pytest.approx(1)
    assert found.ssim[1] < 1
    with pytest.raises(ValueError, match="zip"):
        likeness(wanted[:1], wanted)
