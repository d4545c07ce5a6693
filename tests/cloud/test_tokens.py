"""The server's token file: what stands in it, and what is wrong with it."""

import hashlib
import os

import pytest

from cloud.tokens import (
    MAX_FILE_BYTES,
    MAX_LINES,
    MAX_TOKENS,
    TokenStore,
    new_token,
    parse_tokens,
)
from lambda_split.errors import TokenFileInvalid, UsageError

HEX = hashlib.sha256(b"s3cret").hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()


def test_a_file_with_comments_blank_lines_and_all_settings():
    text = f"""
# devices of the lab
alice sha256:{HEX} max-sessions=3
  \t
bob.2@lab-x_y\tsha256:{OTHER}  revoked   # not a comment, so this line is wrong
"""
    with pytest.raises(TokenFileInvalid, match="line 5"):
        parse_tokens(text, "f")
    alice, bob = parse_tokens(text.partition("   #")[0], "f")
    assert (alice.name, alice.max_sessions, alice.revoked) == ("alice", 3, False)
    assert alice.digest == hashlib.sha256(b"s3cret").digest()
    assert (bob.name, bob.max_sessions, bob.revoked) == ("bob.2@lab-x_y", None, True)


def test_a_line_that_was_written_is_read_as_it_was():
    (grant,) = parse_tokens(f"a sha256:{HEX} revoked max-sessions=999999", "f")
    assert grant.line() == f"a sha256:{HEX} max-sessions=999999 revoked"
    assert parse_tokens(grant.line(), "f") == (grant,)


def test_a_grant_does_not_show_its_hash():
    (grant,) = parse_tokens(f"a sha256:{HEX}", "f")
    assert HEX[:8] not in repr(grant)
    assert grant.digest.hex()[:8] not in repr(grant).lower()


MALFORMED = {
    "a plain token": "lst_kAsW3fTq9",
    "a plain word": "s3cret",
    "no hash": "alice max-sessions=3",
    "another hash": f"alice md5:{HEX}",
    "no kind of hash": f"alice {HEX}",
    "a short hash": f"alice sha256:{HEX[:-1]}",
    "a long hash": f"alice sha256:{HEX}0",
    "upper case": f"alice sha256:{HEX.upper()}",
    "the token for the hash": "alice s3cret-token",
    "a name with a colon": f"alice: sha256:{HEX}",
    "a name that is an option": f"-x sha256:{HEX}",
    "a long name": f"{'x' * 65} sha256:{HEX}",
    "the wrong order": f"sha256:{HEX} alice",
    "no sessions": f"alice sha256:{HEX} max-sessions=0",
    "negative sessions": f"alice sha256:{HEX} max-sessions=-1",
    "too many sessions": f"alice sha256:{HEX} max-sessions=1000000",
    "half a session": f"alice sha256:{HEX} max-sessions=1.5",
    "other digits": f"alice sha256:{HEX} max-sessions=\u0663",
    "twice": f"alice sha256:{HEX} max-sessions=1 max-sessions=2",
    "revoked twice": f"alice sha256:{HEX} revoked revoked",
    "an unknown word": f"alice sha256:{HEX} s3cret-word",
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_line_is_named_and_never_quoted(case):
    line = MALFORMED[case]
    with pytest.raises(TokenFileInvalid) as caught:
        parse_tokens(f"# first\nbob sha256:{OTHER}\n{line}\n", "the/file")
    assert (caught.value.path, caught.value.line) == ("the/file", 3)
    sentence = str(caught.value)
    assert sentence.startswith("the/file, line 3: ")
    for word in line.split():
        assert word in {"alice", "revoked"} or word not in sentence


def test_a_token_in_plain_text_is_told_what_to_do():
    with pytest.raises(TokenFileInvalid, match="lambda-split token NAME --from"):
        parse_tokens(new_token(), "f")


@pytest.mark.parametrize(
    ("second", "word"), [(f"a sha256:{OTHER}", "name"), (f"b sha256:{HEX}", "token")]
)
def test_a_line_that_repeats_another_is_refused(second, word):
    with pytest.raises(TokenFileInvalid, match=f"line 2: its {word}"):
        parse_tokens(f"a sha256:{HEX}\n{second}", "f")


def test_the_number_of_lines_and_tokens_is_bounded():
    assert parse_tokens("\n" * MAX_LINES, "f") == ()
    with pytest.raises(TokenFileInvalid, match="lines"):
        parse_tokens("\n" * (MAX_LINES + 1), "f")
    lines = [f"n{i} sha256:{i:064x}" for i in range(MAX_TOKENS + 1)]
    assert len(parse_tokens("\n".join(lines[:-1]), "f")) == MAX_TOKENS
    with pytest.raises(TokenFileInvalid, match=f"line {MAX_TOKENS + 1}: more than {MAX_TOKENS}"):
        parse_tokens("\n".join(lines), "f")


@pytest.mark.parametrize(
    "content", [None, b"\xff\xfe", b"#" * (MAX_FILE_BYTES + 1)], ids=["absent", "binary", "huge"]
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "tokens"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=str(path)):
        TokenStore(path)


def test_a_name_that_no_file_can_have_is_wrong_use():
    with pytest.raises(UsageError):
        TokenStore("a\0b")


def store(tmp_path, text):
    path = tmp_path / "tokens"
    path.write_text(text)
    return TokenStore(path), path


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("Bearer s3cret", "alice"),
        ("bearer s3cret", "alice"),
        ("BEARER   s3cret ", "alice"),
        ("Bearer other", "bob"),
        ("Bearer wrong", None),
        ("Bearer s3cret other", None),
        ("Bearer s3cre", None),
        ("Bearer S3CRET", None),
        ("Bearer ", None),
        ("Bearer", None),
        ("", None),
        ("Basic s3cret", None),
        ("s3cret", None),
        (f"Bearer {HEX}", None),
        (f"Bearer sha256:{HEX}", None),
        ("Bearer \udce9", None),
    ],
)
def test_a_header_finds_its_grant(tmp_path, header, name):
    tokens, _ = store(tmp_path, f"alice sha256:{HEX}\nbob sha256:{OTHER}\n")
    grant = tokens.grant(header)
    assert (grant.name if grant else None) == name


def test_all_tokens_are_compared_wherever_the_right_one_stands(tmp_path, monkeypatch):
    tokens, _ = store(
        tmp_path, "".join(f"n{i} sha256:{i:064x}\n" for i in range(9)) + f"z sha256:{HEX}"
    )
    compared = []
    monkeypatch.setattr(
        "cloud.tokens.hmac.compare_digest", lambda a, b: compared.append(1) or a == b
    )
    counts = []
    for header in ("Bearer s3cret", "Bearer wrong"):
        compared.clear()
        tokens.grant(header)
        counts.append(len(compared))
    assert counts == [10, 10]


def test_a_reload_takes_what_is_new_and_keeps_what_it_had_where_that_fails(tmp_path):
    tokens, path = store(tmp_path, f"alice sha256:{HEX}\n")
    calls = []
    with tokens.watched(lambda: calls.append(1)):
        path.write_text(f"bob sha256:{OTHER}\n")
        tokens.reload()
        assert tokens.grant("Bearer s3cret") is None
        assert tokens.grant("Bearer other").name == "bob"
        path.write_text("nonsense\n")
        with pytest.raises(TokenFileInvalid):
            tokens.reload()
        assert tokens.grant("Bearer other").name == "bob"
        path.unlink()
        with pytest.raises(UsageError):
            tokens.reload()
        assert tokens.grant("Bearer other").name == "bob"
    assert calls == [1]
    path.write_text("")
    tokens.reload()
    assert calls == [1]  # it watches no more
    assert tokens.grant("Bearer other") is None


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such modes")
@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o644, False), (0o666, True)])
def test_a_file_that_others_can_change_is_warned_about(tmp_path, caplog, mode, warned):
    path = tmp_path / "tokens"
    path.write_text(f"alice sha256:{HEX}\n")
    path.chmod(mode)
    TokenStore(path)
    assert ("changed by other users" in caplog.text) == warned
    assert HEX not in caplog.text


def test_new_tokens_differ_and_fit_a_header():
    made = {new_token() for _ in range(100)}
    assert len(made) == 100
    for token in made:
        assert token.isascii()
        assert token.isprintable()
        assert " " not in token
        assert len(token) == len("lst_") + 43  # 256 bits in base64
