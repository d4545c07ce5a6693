"""What all command lines share: numbers in their ranges, splits, and files with a token."""

import argparse
import os

import pytest

from cloud.tokens import Grant, digest_of, new_token
from lambda_split.arguments import non_negative, positive, read_token_file, split_pair
from lambda_split.errors import UsageError
from lambda_split.split import Split


def test_numbers_in_range_are_taken():
    assert [positive("1"), positive("4096")] == [1, 4096]
    assert [non_negative("0"), non_negative("7")] == [0, 7]


@pytest.mark.parametrize("text", ["0", "-1"])
def test_a_count_of_nothing_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match=f"{text} is below 1"):
        positive(text)


def test_less_than_nothing_is_refused():
    with pytest.raises(argparse.ArgumentTypeError, match="-1 is below 0"):
        non_negative("-1")


@pytest.mark.parametrize("type_", [positive, non_negative])
@pytest.mark.parametrize("text", ["", "2.5", "1e3", "many", "9" * 5000])
def test_what_is_no_whole_number_is_refused(type_, text):
    with pytest.raises(argparse.ArgumentTypeError, match="not a whole number"):
        type_(text)


def test_a_split_is_two_numbers_of_layers():
    assert split_pair("0,12") == Split(0, 12)
    assert str(Split(3, 1)) == "3,1"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "two numbers"),
        ("1", "two numbers"),
        ("1:1", "two numbers"),
        (",1", "whole number"),
        ("1,", "whole number"),
        ("1,2,3", "whole number"),
        ("1,-2", "-2 is below 0"),
    ],
)
def test_what_is_no_split_is_refused(text, reason):
    with pytest.raises(argparse.ArgumentTypeError, match=reason):
        split_pair(text)


@pytest.mark.parametrize(
    "content",
    [b"", b"\n \n", b"two words", b"two\nlines", b"caf\xc3\xa9", b"\x00", b"x" * 5000],
    ids=["empty", "blank", "words", "lines", "not-ascii", "nul", "long"],
)
def test_a_token_that_fits_no_header_is_refused(tmp_path, content):
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_token_file(path)
    assert str(path) in str(caught.value)


def test_a_server_s_token_file_is_told_as_what_it_is(tmp_path):
    token = new_token()
    path = tmp_path / "tokens"
    path.write_text(f"# devices\n{Grant('phone', digest_of(token)).line()}\n", encoding="ascii")
    with pytest.raises(UsageError, match="server's file, which has hashes") as caught:
        read_token_file(path)
    assert digest_of(token).hex() not in str(caught.value)


@pytest.mark.parametrize("name", ["absent", "", "a\0b"])
def test_a_token_file_that_cannot_be_read_is_named(tmp_path, name):
    with pytest.raises(UsageError, match="--token-file"):
        read_token_file(f"{tmp_path}/{name}")


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such modes")
@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o644, True)])
def test_a_token_that_others_can_read_is_warned_about(tmp_path, caplog, mode, warned):
    path = tmp_path / "token"
    path.write_text("  s3cret  \n")
    path.chmod(mode)
    assert read_token_file(path) == "s3cret"
    assert bool(caplog.records) == warned
    assert "s3cret" not in caplog.text
