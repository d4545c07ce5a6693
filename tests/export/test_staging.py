"""An export is there as a whole, or leaves nothing: disk full, killed, interrupted, in the way."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

import export.exporter
from export import ExportSettings, QuietProgress, export_bundle
from export.staging import staged_folder, writing
from export.verification import LIMITS, Limits
from lambda_split.bundle import load_bundle
from lambda_split.errors import (
    BundleNotFound,
    OutputExists,
    OutputNotWritable,
    SchemaUnsupported,
    VerificationFailed,
)
from lambda_split.split import Split

ROOT = pathlib.Path(__file__).parents[2]


def _names(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _make(out: pathlib.Path, content: str, *, overwrite: bool = False) -> None:
    with staged_folder(out, overwrite=overwrite) as folder:
        (folder / "manifest.json").write_text(content)


def _age(folder: pathlib.Path) -> None:
    an_hour_ago = time.time() - 3600
    os.utime(folder, (an_hour_ago, an_hour_ago))


def test_the_folder_appears_when_all_is_written(tmp_path) -> None:
    out = tmp_path / "new" / "parents" / "bundle"
    with staged_folder(out, overwrite=False) as folder:
        (folder / "manifest.json").write_text("{}")
        assert not out.exists()
        assert folder.parent == out.parent  # one file system, so that renaming is atomic
    assert _names(out.parent) == ["bundle"]
    assert out.stat().st_mode & 0o777 == 0o777 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_whatever_ends_the_export_removes_what_was_written(tmp_path, error) -> None:
    def fail_halfway() -> None:
        with staged_folder(tmp_path / "bundle", overwrite=False) as folder:
            (folder / "weights.data").write_bytes(b"half")
            raise error

    with pytest.raises(error):
        fail_halfway()
    assert _names(tmp_path) == []


@pytest.mark.parametrize("kind", ["file", "folder", "broken link"])
def test_what_exists_is_not_touched_unasked(tmp_path, kind) -> None:
    out = tmp_path / "bundle"
    if kind == "file":
        out.write_text("mine")
    elif kind == "folder":
        out.mkdir()
    else:
        out.symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputExists, match="--overwrite"):
        _make(out, "new")
    assert _names(tmp_path) == ["bundle"]


def test_overwriting_replaces_a_bundle_and_leaves_no_trace_of_it(tmp_path) -> None:
    out = tmp_path / "bundle"
    _make(out, "old")
    (out / "more").write_text("old")
    _make(out, "new", overwrite=True)
    assert _names(tmp_path) == ["bundle"]
    assert _names(out) == ["manifest.json"]
    assert (out / "manifest.json").read_text() == "new"


def test_a_failed_overwrite_keeps_the_old_bundle(tmp_path) -> None:
    out = tmp_path / "bundle"
    _make(out, "old")
    with pytest.raises(ValueError, match="broken"), staged_folder(out, overwrite=True):
        raise ValueError("broken")
    assert _names(tmp_path) == ["bundle"]
    assert (out / "manifest.json").read_text() == "old"


def test_overwriting_never_deletes_what_is_no_bundle(tmp_path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputNotWritable, match="no bundle"):
        _make(home, "new", overwrite=True)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputNotWritable, match="not a folder"):
        _make(tmp_path / "file", "new", overwrite=True)
    assert _names(home) == ["thesis.tex"]


def test_a_bundle_that_appeared_meanwhile_is_not_replaced(tmp_path) -> None:
    out = tmp_path / "bundle"
    with pytest.raises(OutputExists), staged_folder(out, overwrite=False):
        _make(out, "someone else's")
    assert (out / "manifest.json").read_text() == "someone else's"
    assert _names(tmp_path) == ["bundle"]


def test_remains_of_killed_exports_go_with_the_next_one(tmp_path) -> None:
    stale = tmp_path / ".bundle.abc123.partial"
    young = tmp_path / ".bundle.def456.partial"
    other = tmp_path / ".another.abc123.partial"
    for folder in (stale, young, other):
        folder.mkdir()
        (folder / "weights.data").write_bytes(b"half")
    _age(stale)
    _age(other)
    _make(tmp_path / "bundle", "new")
    assert _names(tmp_path) == [other.name, young.name, "bundle"]


def test_a_living_export_to_the_same_place_is_left_alone(tmp_path) -> None:
    out = tmp_path / "bundle"
    script = (
        "import sys, pathlib\nfrom export.staging import staged_folder\n"
        "with staged_folder(pathlib.Path(sys.argv[1]), overwrite=True) as folder:\n"
        "    print(folder, flush=True)\n    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(out)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        folder = pathlib.Path(process.stdout.readline().strip())
        _age(folder)
        _make(out, "mine")
        assert folder.is_dir()
        process.communicate()
    assert process.returncode == 0
    assert _names(tmp_path) == ["bundle"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_full_disk_is_a_typed_error_and_leaves_nothing(checkpoint_folder, tmp_path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(mount)]
    if shutil.which("mount") is None or subprocess.run(command, check=False).returncode != 0:
        pytest.skip("file systems cannot be mounted here")
    try:
        with pytest.raises(OutputNotWritable, match="No space left"):
            _export(checkpoint_folder("llama"), mount / "bundle")
        assert _names(mount) == []
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_a_file_size_limit_is_a_typed_error_and_leaves_nothing(checkpoint_folder, tmp_path) -> None:
    script = (
        "import pathlib, resource, sys\n"
        "from export import ExportSettings, QuietProgress, export_bundle\n"
        "from lambda_split.errors import OutputNotWritable\n"
        "from lambda_split.split import Split\n"
        "import export.exporter\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        "    export_bundle(sys.argv[1], sys.argv[2], ExportSettings(Split(), weights='fp32'),"
        " progress=QuietProgress())\n"
        "except OutputNotWritable as error:\n    print(error)\n"
    )
    out = tmp_path / "bundle"
    run = subprocess.run(
        [sys.executable, "-c", script, str(checkpoint_folder("llama")), str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "File too large" in run.stdout, run.stderr
    assert _names(tmp_path) == []


def test_a_folder_without_permission_is_a_typed_error(tmp_path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("a file is not a folder")
    with pytest.raises(OutputNotWritable, match="file"):
        _make(blocked / "bundle", "new")
    with pytest.raises(OutputNotWritable, match="denied"), writing(tmp_path / "bundle"):
        raise PermissionError(13, "Permission denied")


def _export(checkpoint: pathlib.Path, out: pathlib.Path) -> None:
    settings = ExportSettings(Split(), weights="fp32")
    export_bundle(str(checkpoint), out, settings, progress=QuietProgress())


def test_a_killed_export_leaves_nothing_that_loads(checkpoint_folder, tmp_path) -> None:
    out = tmp_path / "bundle"
    # Stands still when all is written and nothing is verified, so that it surely has no end yet.
    script = (
        "import sys\nimport export.exporter\nfrom lambda_split.cli import main\n"
        "def wait(*_):\n    print('written', flush=True)\n    sys.stdin.read()\n"
        "export.exporter._verify = wait\n"
        "main(['export', '--out', *sys.argv[1:], '--quiet'])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(out), str(checkpoint_folder("llama"))],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "written\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    (remains,) = tmp_path.iterdir()
    assert remains.name.endswith(".partial")
    assert (remains / "weights.data").stat().st_size > 0
    with pytest.raises(BundleNotFound):
        load_bundle(out)
    with pytest.raises(BundleNotFound):
        load_bundle(remains)
    _age(remains)
    _make(out, "new")
    assert _names(tmp_path) == ["bundle"]


def test_graphs_that_fail_verification_are_not_published(
    checkpoint_folder, tmp_path, monkeypatch
) -> None:
    monkeypatch.setitem(LIMITS, "fp32", Limits(1e-12, 1.0, 1.0))
    with pytest.raises(VerificationFailed, match="head's relative error"):
        _export(checkpoint_folder("llama"), tmp_path / "bundle")
    assert _names(tmp_path) == []


def test_a_bundle_that_a_device_would_refuse_is_not_published(
    checkpoint_folder, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(export.exporter, "SCHEMA", 99)
    with pytest.raises(SchemaUnsupported):
        export_bundle(str(checkpoint_folder("llama")), tmp_path / "bundle")
    assert _names(tmp_path) == []
