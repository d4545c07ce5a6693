"""A program that ends while a thread of it is in onnxruntime, which Python ends there and then."""

from __future__ import annotations

import os
import subprocess
import sys

import onnx
import pytest
from onnx import TensorProto, helper

from tests.edge_runtime.pictures import some_pictures
from tests.edge_runtime.some_graphs import write_bundle

# The thread comes back from onnxruntime while Python waits in the midst of its end.
AT_THE_END = """
import sys, threading, time

import numpy as np

import edge_runtime
{setup}
begun = threading.Event()

def work():
    while True:
        {step}
        begun.set()

class Slow:
    def __del__(self, sleep=time.sleep):
        sleep(0.3)

slow = Slow()
threading.Thread(target=work, daemon=True).start()
begun.wait()
sys.exit(7)
"""
HEAD = """
from edge_runtime.graphs import RuntimeSettings, load_head
from lambda_split.bundle import load_bundle

head = load_head(load_bundle(sys.argv[1]), RuntimeSettings(threads=1))
cache = head.new_cache(64)
ids = np.zeros(64, np.int64)
"""
DECODER = """
from edge_runtime.graphs import RuntimeSettings
from edge_runtime.pictures.decoder import load_decoder
from lambda_split.image_bundle import load_image_bundle

decoder = load_decoder(load_image_bundle(sys.argv[1]), RuntimeSettings(threads=1))
latents = np.zeros((1, 4, 512, 512), np.float32)
"""
LOADING = """
import pathlib

from edge_runtime.graph_session import RuntimeSettings, open_session

path = pathlib.Path(sys.argv[1]) / "head.onnx"
"""
ENDLESS = """
import pathlib, sys, threading

import numpy as np

from edge_runtime.graph_session import RuntimeSettings, open_session, quiet_run_options
from edge_runtime.native_calls import call_native

session = open_session(pathlib.Path(sys.argv[1]), "endless", RuntimeSettings(threads=1))
options = quiet_run_options()
begun = threading.Event()

def run():
    begun.set()
    session.run(None, {"x": np.zeros(1, np.float32)}, options)

threading.Thread(target=lambda: call_native(run, options), daemon=True).start()
begun.wait()
sys.exit(7)
"""


@pytest.fixture
def texts(tmp_path):
    return write_bundle(tmp_path, "shared-kv").path


@pytest.fixture
def pictures(tmp_path):
    return some_pictures.write_bundle(tmp_path).path


def _ends_as_it_wants(program: str, *arguments: object) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (7, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bundle", "setup", "step"),
    [
        ("texts", HEAD, "head.run(ids, 0, cache)"),
        ("pictures", DECODER, "decoder.decode(latents)"),
        ("texts", LOADING, 'open_session(path, "head", RuntimeSettings(threads=1))'),
    ],
    ids=["head", "decoder", "loading"],
)
def test_a_program_ends_while_a_thread_computes(request, bundle, setup, step) -> None:
    folder = request.getfixturevalue(bundle)
    _ends_as_it_wants(AT_THE_END.format(setup=setup, step=step), folder)


@pytest.mark.slow
def test_a_run_is_broken_off_and_not_waited_for_to_its_end(tmp_path) -> None:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["goes"]),
            helper.make_node("Add", ["held", "held"], ["gives"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("held", TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("goes", TensorProto.BOOL, []),
            helper.make_tensor_value_info("gives", TensorProto.FLOAT, [1]),
        ],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["", "yes", "x"], ["y"], body=body)],
        "endless",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        [helper.make_tensor("yes", TensorProto.BOOL, [], [True])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "endless.onnx")
    _ends_as_it_wants(ENDLESS, tmp_path / "endless.onnx")
