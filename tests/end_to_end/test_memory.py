"""Export and serve hold only the layers that they need, whatever the model's depth."""

from __future__ import annotations

import pathlib
import re
import sys

import pytest
import torch

from benchmarks.models import Size, write_checkpoint
from benchmarks.processes import measure
from edge_runtime import TextGenerator
from tests.servers import serving

# Wide enough that 28 more layers would add far more than the interpreter and its libraries take.
WIDE = Size("wide", width=768, layers=4, heads=12, intermediate=3072, vocab=4096)


def _peak_rss(pid: int) -> int:
    status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="reads /proc")
def test_export_does_not_grow_with_depth_and_opens_no_trunk_shard(tmp_path) -> None:
    peaks = {}
    for layers in (4, 32):
        folder = tmp_path / f"model-{layers}"
        write_checkpoint(WIDE.with_layers(layers), folder, dtype=torch.bfloat16)
        # Whoever opens a shard that holds trunk layers only will fail.
        for number in range(2, layers):
            shard = folder / f"model-{number + 1:05}-of-{layers + 2:05}.safetensors"
            if layers == 32:
                shard.write_bytes(b"not safetensors at all")
        out = tmp_path / f"bundle-{layers}"
        command = ("export", str(folder), "--out", str(out), "--weights", "int4", "--quiet")
        cost = measure(sys.executable, "-m", "lambda_split.cli", *command)
        peaks[layers] = cost.peak_rss
    print(f"peak RSS of export: { {k: f'{v / 1e6:.0f} MB' for k, v in peaks.items()} }")
    # Threads of the exporter and of onnxruntime may hold a buffer more or less at the peak; a
    # single trunk layer too many, times 28, would be several times as much.
    assert peaks[32] < peaks[4] * 1.25


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="reads /proc")
def test_serve_never_reads_head_or_tail_and_holds_its_layers_once(tmp_path) -> None:
    folder = tmp_path / "model"
    write_checkpoint(WIDE.with_layers(12), folder, dtype=torch.bfloat16)
    out = tmp_path / "bundle"
    command = ("export", str(folder), "--out", str(out), "--weights", "int4", "--quiet")
    measure(sys.executable, "-m", "lambda_split.cli", *command)
    for number in (1, 2, 13, 14):  # embedding, first layer, last layer, norm and LM head
        (folder / f"model-{number:05}-of-00014.safetensors").unlink()
    with serving(str(folder), "--dtype", "bfloat16") as server:
        with TextGenerator.open(out, server.url) as generator:
            result = generator.generate("Once upon a time", max_new_tokens=4)
        peak = _peak_rss(server.pid)
    assert len(result.token_ids) == 4
    layer = (4 * WIDE.width**2 + 3 * WIDE.width * WIDE.intermediate) * 2  # bytes in bf16
    base = 520e6  # interpreter, torch, transformers
    assert peak < base + 10 * layer * 1.3
