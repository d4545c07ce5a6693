"""Opening a bundle's ONNX graphs under onnxruntime, and checking their inputs and outputs."""

from __future__ import annotations

import ctypes
import os
import pathlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import onnxruntime

from edge_runtime.given_numbers import whole_number
from edge_runtime.native_calls import call_native
from lambda_split.bundle import Bundle, Graph
from lambda_split.bundle_files import MANIFEST_NAME
from lambda_split.errors import GraphInvalid, ManifestInvalid, UsageError

__all__ = [
    "OpenedGraph",
    "RuntimeSettings",
    "TensorSpec",
    "check_roles",
    "open_graph",
    "open_session",
    "quiet_run_options",
    "release_freed_memory",
]

_MOST_DEFAULT_THREADS = 4  # decoding is bound by memory bandwidth, which few cores use up
_MOST_THREADS = 1024
_LOG_NOTHING = 4  # what goes wrong arrives as an exception; no second copy of it on stderr


@dataclass(frozen=True)
class RuntimeSettings:
    """How onnxruntime runs the graphs.

    Attributes:
        threads: Threads for one operator; None takes the cores this process may use, at most 4.
        spinning: Let idle threads spin for work. A little faster alone on a machine, but it burns
            power while the device waits for the network and starves a trunk on the same machine.

    Raises:
        UsageError: no number of threads that a machine has.
    """

    threads: int | None = None
    spinning: bool = False

    def __post_init__(self) -> None:
        if self.threads is None:
            return
        threads = whole_number("threads", self.threads)
        if not 1 <= threads <= _MOST_THREADS:
            raise UsageError(
                f"threads must be at least 1 and at most {_MOST_THREADS}, not {threads}"
            )
        object.__setattr__(self, "threads", threads)

    def thread_count(self) -> int:
        """The number of threads to use."""
        if self.threads is not None:
            return self.threads
        try:
            cores = len(os.sched_getaffinity(0))
        except AttributeError:  # not every system can tell
            cores = os.cpu_count() or 1
        return min(cores, _MOST_DEFAULT_THREADS)


@dataclass(frozen=True)
class TensorSpec:
    """What a graph's input or output has to look like.

    Attributes:
        type: onnxruntime's name of it, ``tensor(float)`` or ``tensor(int64)``.
        shape: Its dimensions; None for those that change from call to call.
        required: Whether a graph may do without it.
    """

    type: str
    shape: tuple[int | None, ...]
    required: bool = True


@dataclass(frozen=True)
class OpenedGraph:
    """A graph that is loaded and matches its description.

    Attributes:
        session: onnxruntime's session.
        graph: The manifest's description: file, roles, cache geometry.
        run_options: onnxruntime's options of every run.
    """

    session: onnxruntime.InferenceSession
    graph: Graph
    run_options: onnxruntime.RunOptions


def open_graph(
    bundle: Bundle,
    name: str,
    settings: RuntimeSettings,
    *,
    inputs: Mapping[str, TensorSpec],
    outputs: Mapping[str, TensorSpec],
) -> OpenedGraph:
    """Load one of a bundle's graphs.

    Args:
        bundle: The checked bundle.
        name: ``head`` or ``tail``.
        settings: Threads.
        inputs: By role, what the graph takes besides its layers' caches.
        outputs: By role, what it gives besides them.

    Raises:
        ManifestInvalid: the bundle has no such graph.
        GraphInvalid: onnxruntime cannot load the file, or an input or output is missing, unknown,
            or of another type or shape.
    """
    graph = bundle.manifest.graphs.get(name)
    if graph is None:
        raise ManifestInvalid(str(bundle.path / MANIFEST_NAME), f"it has no graph {name!r}")
    past = {
        f"{kind}.{layer}.{part}": TensorSpec("tensor(float)", (1, kv.heads, None, kv.head_dim))
        for kind in ("past", "present")
        for layer, kv in enumerate(graph.kv)
        for part in ("key", "value")
    }
    taken = {**inputs, **{role: spec for role, spec in past.items() if role.startswith("past.")}}
    given = {**outputs, **{role: spec for role, spec in past.items() if role not in taken}}
    session = open_session(bundle.file(graph.file), graph.file, settings)
    check_roles(session, graph.file, graph.inputs, graph.outputs, taken=taken, given=given)
    return OpenedGraph(session, graph, quiet_run_options())


def quiet_run_options() -> onnxruntime.RunOptions:
    """Options of a run that says nothing on stderr."""
    run_options = onnxruntime.RunOptions()
    run_options.log_severity_level = _LOG_NOTHING
    return run_options


def check_roles(
    session: onnxruntime.InferenceSession,
    label: str,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    *,
    taken: Mapping[str, TensorSpec],
    given: Mapping[str, TensorSpec],
) -> None:
    """Compare a graph with what the manifest says of it.

    Args:
        session: The graph.
        label: Its file, for the error.
        inputs: Role to the graph's input name, as in the manifest.
        outputs: Role to output name.
        taken: What each input has to look like, by role.
        given: What each output has to look like.

    Raises:
        GraphInvalid: an input or output is missing, unknown, or of another type or shape.
    """
    _check_tensors(label, "input", inputs, taken, session.get_inputs())
    _check_tensors(label, "output", outputs, given, session.get_outputs())
    fed = set(inputs.values())
    for tensor in session.get_inputs():
        if tensor.name not in fed:
            raise GraphInvalid(label, f"its input {tensor.name!r} has no role in the manifest")


def open_session(
    path: pathlib.Path, label: str, settings: RuntimeSettings
) -> onnxruntime.InferenceSession:
    """Load an ONNX file.

    Args:
        path: The file.
        label: Its name, for the error.
        settings: Threads.

    Raises:
        GraphInvalid: onnxruntime cannot load it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.thread_count()
    options.inter_op_num_threads = 1  # the graphs are chains: nothing to run side by side
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    spinning = "1" if settings.spinning else "0"
    options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    options.add_session_config_entry("session.inter_op.allow_spinning", spinning)
    # The arena keeps the memory of the longest chunk ever run, and patterns one plan for each
    # length; decoding allocates too little for either to pay.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.log_severity_level = _LOG_NOTHING
    try:
        return call_native(
            lambda: onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        )
    except Exception as error:  # onnxruntime's classes have no common base but this
        raise GraphInvalid(label, str(error)) from error


def _check_tensors(
    file: str,
    what: str,
    names: Mapping[str, str],
    wanted: Mapping[str, TensorSpec],
    found: list[onnxruntime.NodeArg],
) -> None:
    by_name = {tensor.name: tensor for tensor in found}
    for role, spec in wanted.items():
        if spec.required and role not in names:
            raise GraphInvalid(file, f"the manifest names no {what} for {role!r}")
    for role, name in names.items():
        if role not in wanted:
            raise GraphInvalid(file, f"the manifest names an {what} for the unknown role {role!r}")
        if name not in by_name:
            raise GraphInvalid(file, f"it has no {what} {name!r}, the manifest's {role!r}")
        _check_tensor(f"{what} {name!r}", file, by_name[name], wanted[role])
    if len(set(names.values())) != len(names):
        raise GraphInvalid(file, f"the manifest gives one {what} two roles")


def _check_tensor(label: str, file: str, tensor: onnxruntime.NodeArg, spec: TensorSpec) -> None:
    fits = len(tensor.shape) == len(spec.shape) and all(
        size is None or not isinstance(actual, int) or actual == size
        for actual, size in zip(tensor.shape, spec.shape, strict=True)
    )
    if tensor.type != spec.type or not fits:
        shape = ["?" if size is None else size for size in spec.shape]
        raise GraphInvalid(
            file,
            f"its {label} is a {tensor.type} of {tensor.shape}, not a {spec.type} of {shape}",
        )


def release_freed_memory() -> None:
    """Give what onnxruntime has freed back to the system, where the C library keeps it.

    A chunk's intermediate tensors take tens of megabytes that glibc would hold on to.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
        if trim is not None:
            trim(0)
