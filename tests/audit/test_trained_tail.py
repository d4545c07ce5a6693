from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from audit.capture import Setting, Victim
from audit.costs import perplexity, root_mean_square
from audit.defending.noise import Defence
from audit.defending.trained_tail import TrainedTailSettings, train_tail
from audit.whole_model import load_whole
from lambda_split.partition import open_checkpoint
from lambda_split.split import Split


def test_it_writes_better_through_noise_and_changes_nothing_else() -> None:
    model = load_whole(open_checkpoint("demo"))
    setting = Setting(Split(1, 1), defence=Defence("gaussian", 1.0))
    # Text in the model's own language matters less here than that it is the same on both sides.
    random = np.random.default_rng(0)
    texts = [tuple(random.integers(8, 1000, 24).tolist()) for _ in range(24)]
    plain = Victim(model, setting, 1.0)
    victim = replace(plain, rms=root_mean_square(plain, texts))
    before = {name: value.clone() for name, value in model.stack.state_dict().items()}
    settings = TrainedTailSettings(steps=12, rows=8)
    trained = train_tail(victim, texts, settings)

    def distance(candidate):
        clean = replace(victim, setting=Setting(Split(1, 1)))
        return abs(
            np.log(perplexity(replace(victim, model=candidate), texts))
            - np.log(perplexity(clean, texts))
        )

    assert distance(trained) < distance(model)
    for name, value in model.stack.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert trained.stack.layers[0] is not model.stack.layers[0]
    assert trained.stack.layers[3] is model.stack.layers[3]
