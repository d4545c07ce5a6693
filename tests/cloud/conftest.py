"""A tiny llama, saved and loaded once for all tests of the trunk service."""

import threading
import time

import pytest
import torch

from cloud.engine import required_attention
from lambda_split.partition import load_trunk, open_checkpoint
from tests.cloud.serving import LAYERS, Model
from tests.tiny_models import save_tiny


def served_trunk(checkpoint):
    return load_trunk(checkpoint, LAYERS, attention=required_attention())


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Model:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("cloud") / "llama"
    save_tiny("llama", folder)
    checkpoint = open_checkpoint(str(folder))
    reference = load_trunk(checkpoint, LAYERS)
    return Model(folder, checkpoint, reference, served_trunk(checkpoint))


@pytest.fixture
def slow(model):
    """A trunk that takes a fifth of a second for each of its four layers; tells when it begins."""
    trunk = served_trunk(model.checkpoint)
    trunk.begun = threading.Event()

    def delay(module, args):
        trunk.begun.set()
        time.sleep(0.2)

    for layer in trunk.stack.layers:
        layer.register_forward_pre_hook(delay)
    return trunk


@pytest.fixture
def fragile(model):
    """A trunk that gives NaN, or raises, for marked input: a model's own faults, on demand."""
    trunk = served_trunk(model.checkpoint)

    def poison(module, args, output):
        marks = args[0][0, :, 0]  # of each row
        if (marks > 1e30).any():
            raise RuntimeError("a kernel failed")
        return torch.where((marks > 1e20)[None, :, None], float("nan"), output)

    trunk.stack.layers[-1].register_forward_hook(poison)
    return trunk
