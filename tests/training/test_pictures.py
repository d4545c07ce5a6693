"""The demo image model: its pictures, its captions, its recipe, and a tiny training."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np
import pytest

from training.demo_image.captions import caption, random_caption
from training.demo_image.drawing import View, draw, plain_view, random_view
from training.demo_image.judge import judge
from training.demo_image.prompts import SHEET, shipped_prompts
from training.demo_image.scene import Scene, Split, Thing, random_scene
from training.demo_image.shapes import coverage
from training.demo_image.world import (
    BACKGROUNDS,
    COLOURS,
    KINDS,
    PLACES,
    SHAPE_COLOURS,
)

PARTS: Final = {
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "text_encoder_2/config.json",
    "text_encoder_2/model.safetensors",
    *(
        f"{tokenizer}/{name}"
        for tokenizer in ("tokenizer", "tokenizer_2")
        for name in (
            "merges.txt",
            "special_tokens_map.json",
            "tokenizer_config.json",
            "vocab.json",
        )
    ),
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
}


def _scenes(split: Split, count: int, seed: int = 0) -> Iterator[Scene]:
    rng = Random(seed)
    return (random_scene(split, rng) for _ in range(count))


@pytest.mark.parametrize("kind", KINDS)
def test_a_shape_covers_the_same_share_at_any_size(kind: str) -> None:
    small = coverage(kind, 64, 64, (32, 32), 10).sum() / 100
    large = coverage(kind, 256, 256, (128, 128), 80).sum() / 6400
    assert small == pytest.approx(large, rel=0.02)
    assert 0.9 < large < 3.2


@pytest.mark.parametrize("kind", KINDS)
def test_edges_are_smooth_and_the_rest_is_not(kind: str) -> None:
    covered = coverage(kind, 64, 64, (31.3, 32.7), 13)
    assert covered.dtype == np.float32
    assert covered.min() == 0
    assert covered.max() == 1
    between = ((covered > 0) & (covered < 1)).sum()
    assert 0 < between < 0.08 * covered.size


def test_a_shape_beyond_the_edge_is_cut() -> None:
    inside = coverage("circle", 64, 64, (32, 32), 10)
    assert coverage("circle", 64, 64, (0, 32), 10).sum() == pytest.approx(
        inside.sum() / 2, rel=0.01
    )
    assert coverage("circle", 64, 64, (-40, 32), 10).sum() == 0


def test_an_unknown_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="blob"):
        coverage("blob", 8, 8, (4, 4), 2)


def test_the_same_seed_draws_the_same() -> None:
    scene = next(_scenes("train", 1))
    view = random_view((64, 96), Random(5))
    assert np.array_equal(draw(scene, view, Random(1)), draw(scene, view, Random(1)))
    assert not np.array_equal(draw(scene, view, Random(1)), draw(scene, view, Random(2)))


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (96, 64), (128, 128)])
def test_a_drawing_shows_its_scene(size: tuple[int, int]) -> None:
    for number, scene in enumerate(_scenes("train", 40)):
        picture = draw(scene, plain_view(size), Random(number))
        assert picture.shape == (*size, 3)
        assert picture.dtype == np.uint8
        assert judge(picture, scene).all_right, caption(scene)


def test_the_judge_sees_what_is_wrong() -> None:
    left = Thing("circle", "red", "left")
    right = Thing("square", "blue", "right")
    picture = draw(Scene((left, right), "white"), plain_view((64, 64)), Random(0))

    def wrong(*things: Thing, background: str = "white") -> set[str]:
        verdict = judge(picture, Scene(things, background))
        names = ("background", "colours", "places", "kinds", "nothing_else")
        return {name for name in names if not getattr(verdict, name)}

    assert wrong(left, right) == set()
    assert wrong(left, right, background="black") == {"background", "nothing_else"}
    assert wrong(replace(left, kind="star"), right) == {"kinds"}
    assert wrong(replace(left, place="top"), right) == {"places"}
    assert wrong(left) == {"nothing_else"}
    assert "colours" in wrong(left, replace(right, colour="green"))
    # The colours of two things swapped: all there, in the wrong places.
    assert "places" in wrong(replace(left, colour="blue"), replace(right, colour="red"))


def test_a_scaled_picture_is_blurred_and_a_cut_one_moved() -> None:
    scene = Scene((Thing("square", "black", "bottom right"),), "white")
    plain = draw(scene, plain_view((64, 64)), Random(0)).astype(int)
    scaled = draw(scene, View((24, 24), (0, 0), (64, 64)), Random(0)).astype(int)
    cut = draw(scene, View((80, 80), (16, 16), (64, 64)), Random(0)).astype(int)
    assert np.abs(np.diff(scaled, axis=1)).max() < np.abs(np.diff(plain, axis=1)).max()
    assert plain.shape == scaled.shape == cut.shape
    assert View((80, 80), (16, 8), (64, 64)).time_ids == (80, 80, 16, 8, 64, 64)


def test_held_out_things_are_never_in_training() -> None:
    assert not any(scene.held_out for scene in _scenes("train", 2000))
    assert not any(scene.held_out for scene in _scenes("seen", 200))
    assert all(scene.held_out for scene in _scenes("unseen", 200))
    things = [Thing(k, c, p) for k in KINDS for c in SHAPE_COLOURS for p in PLACES]
    assert 0.03 < sum(thing.held_out for thing in things) / len(things) < 0.1
    # Each word is in training all the same.
    shown = {
        word
        for scene in _scenes("train", 2000)
        for thing in scene.things
        for word in (thing.kind, thing.colour, thing.place)
    }
    assert shown == {*KINDS, *SHAPE_COLOURS, *PLACES}


def test_things_are_apart_and_differ_in_colour() -> None:
    for scene in _scenes("train", 500):
        colours = [scene.background, *(thing.colour for thing in scene.things)]
        assert len(set(colours)) == len(colours)
        assert scene.background in BACKGROUNDS
        if len(scene.things) == 2:
            first, second = (PLACES[thing.place] for thing in scene.things)
            assert first.apart_from(second)


def test_captions() -> None:
    scene = Scene((Thing("circle", "red", "left"), Thing("star", "orange", "right")), "white")
    assert caption(scene) == (
        "a red circle on the left and an orange star on the right, on a white background"
    )
    said = {random_caption(scene, Random(number)) for number in range(100)}
    assert "a red circle left of an orange star, on a white background" in said
    assert "an orange star right of a red circle on white" in said
    assert all(
        {"red", "circle", "orange", "star"} <= set(re.findall(r"\w+", text)) for text in said
    )


def test_the_shipped_prompts_cover_the_world() -> None:
    prompts = [entry["prompt"] for entry in shipped_prompts()]
    assert len(prompts) == 20
    assert max(SHEET) < 20
    text = " ".join(prompts)
    for word in (*KINDS, *SHAPE_COLOURS, *BACKGROUNDS, "small", "large"):
        assert re.search(rf"\b{word}\b", text), word
    for place in PLACES.values():
        assert place.phrase in text or place.phrase == "at the top", place


def test_no_two_colours_are_close() -> None:
    values = [np.array(value) for value in COLOURS.values()]
    gaps = [np.linalg.norm(a - b) for i, a in enumerate(values) for b in values[:i]]
    assert min(gaps) > 80


def test_tokenizers_spell_any_text_and_know_their_words(tmp_path: Path) -> None:
    _needs_the_libraries()
    from training.demo_image.recipe import MAX_TOKENS
    from training.demo_image.tokenizer import load_tokenizers, save_tokenizers

    save_tokenizers(tmp_path)
    first, second = load_tokenizers(tmp_path)
    assert len(first) == len(second)
    assert (first.pad_token, second.pad_token) == ("<|endoftext|>", "!")
    assert second.pad_token_id == 0
    assert first.eos_token_id == len(first) - 1
    for scene in _scenes("unseen", 200):
        text = caption(scene)
        ids = first(text).input_ids
        # A token for each word and comma, and both ends.
        assert len(ids) == len(re.findall(r"\w+|,", text)) + 2 <= MAX_TOKENS
        assert ids == second(text).input_ids
        assert first.decode(ids, skip_special_tokens=True).replace(" ,", ",") == text
    odd = first("A  Grüße: 42 λ—!").input_ids
    assert first.unk_token_id not in odd[1:-1]
    padded = second("a ring", padding="max_length", max_length=MAX_TOKENS).input_ids
    assert padded[4:] == [0] * (MAX_TOKENS - 4)


def test_the_text_encoders_are_asked_what_is_where() -> None:
    _needs_the_libraries()
    from training.demo_image.wording import right_answers

    scene = Scene((Thing("ring", "blue", "left", "small"),), "grey")
    places, backgrounds = right_answers([scene])
    assert backgrounds.tolist() == [BACKGROUNDS.index("grey")]
    there = places[0, list(PLACES).index("left")].tolist()
    assert there == [SHAPE_COLOURS.index("blue"), KINDS.index("ring"), 0]
    nothing = [len(SHAPE_COLOURS), len(KINDS), 3]
    assert places[0].tolist().count(nothing) == len(PLACES) - 1


def test_the_learning_rate_follows_clock_or_steps() -> None:
    _needs_the_libraries()
    from training.demo_image.loop import Progress
    from training.demo_image.recipe import Recipe

    schedule = replace(Recipe().denoiser, steps=1000, minutes=10.0, warmup_steps=10)
    assert schedule.learning_rate_at(0, 0.0) == pytest.approx(schedule.learning_rate / 10)
    assert schedule.learning_rate_at(10, 0.0) == schedule.learning_rate
    assert schedule.learning_rate_at(500, 1.0) == pytest.approx(schedule.final_learning_rate)
    assert Progress(step=500, seconds=60).share(schedule) == 0.5
    assert Progress(step=100, seconds=540).share(schedule) == 0.9


def test_gradients_of_parts_are_those_of_the_batch() -> None:
    torch = _needs_the_libraries()
    from training.demo_image.parallel import Workers

    layer = torch.nn.Linear(5, 3)
    data = torch.randn(8, 5)
    whole = layer(data).square().mean()
    whole.backward()
    expected = layer.weight.grad.clone()
    layer.zero_grad()
    halves = [lambda part=part: layer(part).square().mean() for part in data.chunk(2)]
    loss = Workers(2).backward(halves)
    assert loss == pytest.approx(float(whole), rel=1e-5)
    torch.testing.assert_close(layer.weight.grad, expected)


def test_a_tiny_training_yields_a_pipeline_that_diffusers_opens(tmp_path: Path) -> None:
    """A few steps, stopped in the middle and gone on with; then a picture that is not square."""
    _needs_the_libraries()
    from training.demo_image.parallel import Workers
    from training.demo_image.recipe import Recipe
    from training.demo_image.rendering import load_pipeline, render
    from training.demo_image.train import train

    default = Recipe()
    recipe = replace(
        default,
        autoencoder=replace(default.autoencoder, steps=3, batch=4, part=2),
        wording=replace(default.wording, steps=2, batch=4, part=2),
        denoiser=replace(default.denoiser, steps=2, batch=4, part=2),
        pictures=8,
    )
    work, out, workers = tmp_path / "work", tmp_path / "out", Workers(2)
    stop = threading.Event()
    stop.set()
    assert train(recipe, out, work, workers, stop) is None
    assert not out.exists()
    assert {path.name for path in work.iterdir()} == {"autoencoder.pt"}
    first = replace(recipe, autoencoder=replace(recipe.autoencoder, steps=1))
    stop.clear()
    log = train(first, out, work, workers, stop)
    assert log is not None
    assert (log["autoencoder"]["step"], log["denoiser"]["step"]) == (1, 2)
    further = replace(recipe, denoiser=replace(recipe.denoiser, steps=3))
    log = train(further, out, work, workers, stop)
    assert log is not None
    assert (log["autoencoder"]["step"], log["denoiser"]["step"]) == (3, 3)
    assert {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} == PARTS
    pipeline = load_pipeline(out)
    assert pipeline.vae.config.scaling_factor == pytest.approx(log["scaling_factor"])
    made = render(pipeline, ["a red ring", ""], seeds=[0, 1], size=(32, 48), steps=2)
    assert [picture.shape for picture in made] == [(32, 48, 3)] * 2
    alone = render(pipeline, ["a red ring"], seeds=[0], size=(32, 48), steps=2)
    assert np.abs(alone[0].astype(int) - made[0]).max() <= 1


def _needs_the_libraries() -> Any:
    """Skip where torch or diffusers is missing; otherwise give torch."""
    pytest.importorskip("diffusers")
    return pytest.importorskip("torch")
