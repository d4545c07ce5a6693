"""PNG files say what they should, bit by bit, and other programs read the same pixels."""

from __future__ import annotations

import io
import os
import struct
import zlib

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime import write_png
from edge_runtime.pictures.png import encode_png
from lambda_split.errors import OutputNotWritable, UsageError

DOT = np.array([[[255, 0, 7]]], np.uint8)


def _read(data: bytes) -> PIL.Image.Image:
    image = PIL.Image.open(io.BytesIO(data))
    image.load()
    return image


def _chunks(data: bytes) -> dict[bytes, bytes]:
    """Kind to content, each checksum checked (section 5.3 of the standard)."""
    assert data[:8] == bytes.fromhex("89504e470d0a1a0a")
    found, at = {}, 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        (checksum,) = struct.unpack_from(">I", data, at + 8 + length)
        assert checksum == zlib.crc32(kind + content)
        found[kind] = content
        at += 12 + length
    return found


def test_the_bytes_of_a_picture_of_one_pixel() -> None:
    data = encode_png(DOT, {"Title": "x"})
    assert data[:33] == bytes.fromhex(
        "89504e470d0a1a0a 0000000d 49484452 00000001 00000001 08 02 00 00 00 907753de"
    )
    assert data[-12:] == bytes.fromhex("00000000 49454e44 ae426082")
    chunks = _chunks(data)
    assert list(chunks) == [b"IHDR", b"iTXt", b"IDAT", b"IEND"]
    assert chunks[b"iTXt"] == b"Title\0\0\0\0\0x"
    assert zlib.decompress(chunks[b"IDAT"]) == bytes([2, 255, 0, 7])


def test_rows_are_the_difference_to_the_one_above_modulo_256() -> None:
    picture = np.array([[[1, 2, 3]], [[0, 2, 5]]], np.uint8)
    rows = zlib.decompress(_chunks(encode_png(picture))[b"IDAT"])
    assert rows == bytes([2, 1, 2, 3, 2, 255, 0, 2])


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
    levels=st.sampled_from([2, 256]),
    cut=st.booleans(),
)
def test_any_picture_is_read_back_as_it_was(height, width, seed, levels, cut) -> None:
    shape = (height, width * 2, 3)
    picture = np.random.default_rng(seed).integers(0, levels, shape).astype(np.uint8)
    if cut:  # not contiguous any more
        picture = picture[:, ::2]
    image = _read(encode_png(picture))
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), picture)


@pytest.mark.parametrize(
    "text", ["", "a red cat", "ein roter Käfer, 红猫, 🐈", "two\nlines", "x" * 100_000]
)
def test_other_programs_read_the_metadata(text) -> None:
    image = _read(encode_png(DOT, {"Prompt": text, "Negative prompt": "-" + text}))
    assert image.text == {"Prompt": text, "Negative prompt": "-" + text}


def test_half_a_surrogate_pair_becomes_a_question_mark() -> None:
    assert _read(encode_png(DOT, {"Prompt": "a\ud800b"})).text == {"Prompt": "a?b"}


@pytest.mark.parametrize("keyword", ["x", "Negative prompt", "x" * 79])
def test_keywords_that_png_allows(keyword) -> None:
    assert _read(encode_png(DOT, {keyword: "y"})).text == {keyword: "y"}


@pytest.mark.parametrize("keyword", ["", "x" * 80, "Größe", "a\0b", "a\nb", " x", "x ", "a  b"])
def test_other_keywords_are_refused(keyword) -> None:
    with pytest.raises(UsageError, match="keyword"):
        encode_png(DOT, {keyword: "y"})


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 0, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
    ],
)
def test_what_is_no_picture_is_refused(wrong) -> None:
    with pytest.raises(UsageError, match=f"not {wrong.dtype} "):
        encode_png(wrong)


def test_a_file_is_written_and_replaced(tmp_path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"x" * 10_000)
    write_png(path, DOT, {"Seed": "1"})
    assert path.read_bytes() == encode_png(DOT, {"Seed": "1"})
    write_png(str(path), DOT)
    assert path.read_bytes() == encode_png(DOT)


@pytest.mark.parametrize("name", ["no/such/folder/a.png", "folder", "a\0b.png"])
def test_where_nothing_can_be_written(tmp_path, name) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputNotWritable):
        write_png(tmp_path / name, DOT)


def test_a_wrong_picture_leaves_the_file_alone(tmp_path) -> None:
    path = tmp_path / "a.png"
    write_png(path, DOT)
    before = path.read_bytes()
    with pytest.raises(UsageError):
        write_png(path, np.zeros((2, 2), np.uint8))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        (OSError(28, "No space left on device"), OutputNotWritable),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_a_file_that_is_not_written_whole_stays_as_it_was(
    tmp_path, monkeypatch, trouble, told
) -> None:
    target = tmp_path / "a.png"
    target.write_bytes(b"before")

    def full(_descriptor):
        raise trouble

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(told):
        write_png(target, np.zeros((2, 2, 3), np.uint8))
    assert target.read_bytes() == b"before"
    assert [each.name for each in tmp_path.iterdir()] == ["a.png"]
