from __future__ import annotations

import pathlib
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from transformers import PreTrainedModel

from lambda_split.partition import Checkpoint, open_checkpoint
from tests.tiny_models import save_tiny

torch.set_num_threads(1)


@dataclass(frozen=True)
class Tiny:
    """A saved tiny model: where it lies, the whole of it, and the opened checkpoint."""

    folder: pathlib.Path
    model: PreTrainedModel
    checkpoint: Checkpoint


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tiny]:
    """Makes each variant once in a run, in many shards, so that every part has its own."""
    made: dict[str, Tiny] = {}

    def make(name: str) -> Tiny:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            model = save_tiny(name, folder, max_shard_size="100KB")
            made[name] = Tiny(folder, model, open_checkpoint(str(folder)))
        return made[name]

    return make
