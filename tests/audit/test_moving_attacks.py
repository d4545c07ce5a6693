from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from audit.attacks.inverter import InverterSettings
from audit.capture import Setting, Victim, capture
from audit.moving_attacks import attack_moving_split, draw
from audit.results import SettingRecord
from audit.text_attacks import AttackedSetting
from audit.texts import open_reader
from audit.whole_model import load_whole
from lambda_split.partition import open_checkpoint
from lambda_split.split import Split
from tests.tiny_models import save_tiny


def test_every_split_is_drawn_and_a_seed_draws_the_same() -> None:
    assert set(draw(50, 3, seed=0)) == {0, 1, 2}
    assert draw(50, 3, seed=0) == draw(50, 3, seed=0) != draw(50, 3, seed=1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny("llama", folder)
    checkpoint = open_checkpoint(str(folder))
    return load_whole(checkpoint), open_reader(checkpoint)


def test_the_search_takes_the_depth_that_was_drawn(tiny) -> None:
    model, reader = tiny
    random = np.random.default_rng(0)
    prompts = [tuple(random.integers(3, 300, 12).tolist()) for _ in range(4)]
    victims = [Victim(model, Setting(split), 1.0) for split in (Split(1, 1), Split(4, 1))]
    taps = tuple(capture(victims[n % 2], prompt, 3, n) for n, prompt in enumerate(prompts))
    assert [tap.split.head_layers for tap in taps] == [1, 4, 1, 4]
    record = SettingRecord(head_layers=1, tail_layers=1, codec="fp16", defence="moving split")
    attacked = AttackedSetting(record, victims[0], taps, model, reader)
    known = [tuple(random.integers(3, 300, 16).tolist()) for _ in range(12)]
    searched, learned = attack_moving_split(
        attacked, victims, known, 100, InverterSettings(steps=10, positions=50)
    )
    assert searched.recovered.value == 1.0
    assert learned.known_positions == 100
    # The control: at one depth for all, half of the texts are not found.
    wrong = replace(attacked, taps=tuple(replace(tap, split=Split(1, 1)) for tap in taps))
    assert wrong.search().recovered.value < 0.7
