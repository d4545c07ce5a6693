"""The image model that is shipped: what its files say of it is true."""

from __future__ import annotations

import json
import pathlib

import pytest

import lambda_split
from training.demo_image.card import model_card
from training.demo_image.following import prompted, scenes_to_ask_for
from training.demo_image.prompts import shipped_prompts
from training.demo_image.rendering import load_pipeline

FOLDER = pathlib.Path(lambda_split.__file__).parent / "demo_models" / "image"
LOG = json.loads((FOLDER / "training_log.json").read_text(encoding="utf-8"))
_MOST_BYTES = 20_000_000


def test_it_is_small() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= _MOST_BYTES


def test_the_card_is_that_of_the_log() -> None:
    assert (FOLDER / "README.md").read_text(encoding="utf-8") == model_card(LOG)


def test_the_prompts_are_those_of_the_recipe() -> None:
    prompts = json.loads((FOLDER / "prompts.json").read_text(encoding="utf-8"))
    assert prompts == json.loads(json.dumps(shipped_prompts()))
    assert len(prompts) == 20


def test_no_path_of_a_machine_is_told() -> None:
    for path in FOLDER.rglob("*.json"):
        assert "/tmp" not in path.read_text(encoding="utf-8")  # noqa: S108  # what is looked for


@pytest.mark.slow
def test_its_pictures_follow_their_prompts() -> None:
    pipeline = load_pipeline(FOLDER)
    found = prompted(pipeline, scenes_to_ask_for("seen", 24))
    told = LOG["evaluation"]["seen"]
    assert found.background >= 22
    # The log's rate is of 200 captions: of 24, a fifth fewer would be no accident.
    assert found.all_right / found.asked >= told["all_right"] / told["asked"] - 0.2
    assert found.places / found.asked >= 0.6
