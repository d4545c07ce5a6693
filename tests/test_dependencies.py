"""Who may import whom, read from the source itself."""

from __future__ import annotations

import ast
import pathlib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[1]
HEAVY = {"torch", "transformers", "diffusers", "onnx", "onnxscript", "onnx_ir", "safetensors"}


def _imports(path: pathlib.Path) -> Iterator[str]:
    """Every module that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module


def _files(folder: str) -> list[pathlib.Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found, folder
    return found


DEVICE = [
    *_files("edge_runtime"),
    *(path for path in _files("lambda_split") if "partition" not in path.parts),
]


@pytest.mark.parametrize("path", DEVICE, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_device_side_never_names_a_heavy_library(path) -> None:
    roots = {name.partition(".")[0] for name in _imports(path)}
    assert not roots & HEAVY


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("edge_runtime", ("export", "cloud", "lambda_split.partition", "lambda_split.commands")),
        ("export", ("cloud", "edge_runtime", "lambda_split.commands")),
        ("cloud", ("export", "edge_runtime", "lambda_split.commands")),
        ("lambda_split/wire", ("export", "cloud", "edge_runtime", "lambda_split.partition")),
        ("lambda_split/partition", ("export", "cloud", "edge_runtime")),
        ("lambda_split/diffusion", ("export", "cloud", "edge_runtime", "lambda_split.partition")),
    ],
)
def test_dependencies_point_one_way(folder, forbidden) -> None:
    for path in _files(folder):
        for name in _imports(path):
            assert not name.startswith(forbidden), f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("folder", ["lambda_split", "export", "cloud", "edge_runtime"])
def test_nothing_that_is_used_imports_what_measures_it(folder) -> None:
    for path in _files(folder):
        roots = {name.partition(".")[0] for name in _imports(path)}
        assert not roots & {"bench", "audit"}, path.relative_to(ROOT)
