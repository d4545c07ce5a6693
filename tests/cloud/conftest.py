"""A tiny llama, saved and loaded once for all tests of the trunk service."""

import time

import pytest
import torch

from lambda_split.partition import load_trunk, open_checkpoint
from tests.cloud.serving import LAYERS, Model
from tests.tiny_models import save_tiny


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Model:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("cloud") / "llama"
    save_tiny("llama", folder)
    checkpoint = open_checkpoint(str(folder))
    return Model(folder, checkpoint, load_trunk(checkpoint, LAYERS))


@pytest.fixture
def slow(model):
    """A trunk that takes a fifth of a second for each of its four layers."""
    trunk = load_trunk(model.checkpoint, LAYERS)

    def delay(module, args):
        time.sleep(0.2)

    for layer in trunk.stack.layers:
        layer.register_forward_pre_hook(delay)
    return trunk


@pytest.fixture
def fragile(model):
    """A trunk that gives NaN, or raises, for marked input: a model's own faults, on demand."""
    trunk = load_trunk(model.checkpoint, LAYERS)

    def poison(module, args, output):
        mark = float(args[0][0, -1, 0])
        if mark > 1e30:
            raise RuntimeError("a kernel failed")
        return output * float("nan") if mark > 1e20 else output

    trunk.stack.layers[-1].register_forward_hook(poison)
    return trunk
