"""A tiny pipeline as whoever attacks has it, and pictures that it makes."""

from __future__ import annotations

import pathlib
from functools import cache

from audit.pictures.asking import Asked, Plan, ask
from audit.pictures.model import PublicModel, open_public_model
from lambda_split.wire.tensor_format import TensorFormat
from tests.tiny_pipelines import save_tiny_pipeline

__all__ = ["PLAN", "form_of", "pictures_of", "public_model"]

PLAN = Plan(("a red cat", "a small blue dog"), (5,), steps=4)


@cache
def public_model(name: str, folder: pathlib.Path) -> PublicModel:
    """A variant, written to ``folder`` and opened."""
    save_tiny_pipeline(name, folder / name)
    return open_public_model(str(folder / name))


def form_of(label: str) -> TensorFormat:
    form = TensorFormat.from_label(label)
    assert form is not None
    return form


def pictures_of(model: PublicModel, label: str) -> list[Asked]:
    return ask(model, PLAN, form_of(label))
