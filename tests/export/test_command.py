"""``lambda-split export`` as a user meets it."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from lambda_split.bundle import load_bundle
from lambda_split.cli import main


def test_a_bundle_is_written_and_described(checkpoint_folder, tmp_path, capsys) -> None:
    out = tmp_path / "bundle"
    folder = checkpoint_folder("gpt2")
    capsys.readouterr()  # the library shows a bar when it saves
    arguments = ["export", str(folder), "--out", str(out), "--tail-layers", "0"]
    assert main([*arguments, "--head-layers", "0", "--weights", "int8"]) == 0
    captured = capsys.readouterr()
    assert "int8" in captured.out
    assert "KL divergence" in captured.out
    assert f"serve {folder} --head-layers 0 --tail-layers 0\n" in captured.out
    # Not a terminal: a line a stage, no bars.
    assert "verifying …\n" in captured.err
    assert "%|" not in captured.err
    assert load_bundle(out).manifest.graphs["tail"].weights == "int8"
    assert main([*arguments, "--quiet"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "--overwrite" in captured.err


@pytest.mark.parametrize(
    "wrong",
    [
        ("--head-layers", "-1"),
        ("--weights", "int3"),
        ("--attention", "flash"),
        ("--max-positions", "0"),
        ("--max-positions", "100000"),
    ],
)
def test_wrong_use_is_2_and_writes_nothing(wrong, checkpoint_folder, tmp_path, capsys) -> None:
    arguments = ["export", str(checkpoint_folder("gpt2")), "--out", str(tmp_path / "bundle")]
    try:
        code = main([*arguments, *wrong])
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


def test_importing_export_loads_nothing_heavy() -> None:
    script = (
        "import sys, export, export.command\n"
        "heavy = {'torch', 'transformers', 'onnx', 'onnx_ir', 'tqdm'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_it_ends_with_its_stdin_where_it_was_told_to(pipeline_folder, tmp_path) -> None:
    command = [sys.executable, "-m", "lambda_split.cli", "export", str(pipeline_folder("sdxl"))]
    # By itself it would take minutes.
    endless = ["--out", str(tmp_path / "bundle"), "--calibrate-steps", "1000"]
    done = subprocess.run(
        [*command, *endless, "--end-with-stdin"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=False,
    )
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, b"")
    assert not (tmp_path / "bundle").exists()
