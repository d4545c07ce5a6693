"""Files that are whole or as they were."""

from __future__ import annotations

import errno
import os

import pytest

from lambda_split.errors import OutputNotWritable
from lambda_split.whole_file import write_whole


def test_a_file_is_written_and_replaced(tmp_path) -> None:
    path = tmp_path / "report.md"
    write_whole(path, b"one")
    assert path.read_bytes() == b"one"
    write_whole(path, b"")
    assert path.read_bytes() == b""
    assert [each.name for each in tmp_path.iterdir()] == ["report.md"]


def test_it_is_as_readable_as_the_user_wants_files_to_be(tmp_path) -> None:
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "report.md", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "report.md").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("name", ["nowhere/report.md", "x" * 300, "folder"])
def test_where_nothing_can_be_written(tmp_path, name) -> None:
    (tmp_path / "folder" / "full").mkdir(parents=True)
    with pytest.raises(OutputNotWritable, match=name[:9]):
        write_whole(tmp_path / name, b"x")
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (OSError(errno.ENOSPC, "No space left"), OutputNotWritable),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
    ids=["full disk", "Ctrl-C"],
)
@pytest.mark.parametrize("before", [None, b"before"], ids=["new", "old"])
def test_what_could_not_be_written_leaves_all_as_it_was(
    tmp_path, monkeypatch, fault, told, before
) -> None:
    path = tmp_path / "report.md"
    if before is not None:
        path.write_bytes(before)

    def fail(_descriptor: int) -> None:
        raise fault

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(told):
        write_whole(path, b"after")
    assert [each.name for each in tmp_path.iterdir()] == ([] if before is None else ["report.md"])
    assert before is None or path.read_bytes() == before
