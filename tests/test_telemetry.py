"""Nothing that the device imports leaves usage records or looks up hosts."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

_SESSION = """
import {package}
import onnxruntime
import numpy as np
onnxruntime.InferenceSession(sys.argv[1]).run(None, {{"x": np.zeros(1, np.float32)}})
"""


@pytest.fixture
def graph(tmp_path: pathlib.Path) -> pathlib.Path:
    onnx = pytest.importorskip("onnx")
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [value("x", onnx.TensorProto.FLOAT, [1])],
        [value("y", onnx.TensorProto.FLOAT, [1])],
    )
    opset = [onnx.helper.make_opsetid("", 18)]
    path = tmp_path / "identity.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def _files_left(tmp_path: pathlib.Path, graph: pathlib.Path, package: str) -> set[str]:
    home = tmp_path / package
    home.mkdir()
    environment = {
        key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"
    }
    environment |= {"HOME": str(home), "TMPDIR": str(home), "XDG_CACHE_HOME": str(home)}
    script = "import sys\n" + _SESSION.format(package=package)
    subprocess.run([sys.executable, "-c", script, graph], check=True, env=environment)
    return {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}


@pytest.mark.parametrize("package", ["edge_runtime", "export"])
def test_onnxruntime_leaves_no_records(tmp_path, graph, package) -> None:
    assert _files_left(tmp_path, graph, package) == set()
