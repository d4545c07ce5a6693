"""``lambda-split token``: a hash for the server, a secret for the device."""

import stat

import pytest

from cloud.tokens import TokenStore, parse_tokens
from lambda_split.cli import main


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_the_server_gets_a_hash_and_the_device_the_token(tmp_path, capsys):
    server, device = tmp_path / "tokens", tmp_path / "alice.token"
    code = main(["token", "alice", "--add-to", str(server), "--out", str(device)])
    assert code == 0
    secret = device.read_text().strip()
    assert secret not in server.read_text()
    assert (mode(server), mode(device)) == (0o600, 0o600)
    assert TokenStore(server).grant(f"Bearer {secret}").name == "alice"
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "alice" in printed.err
    assert secret not in printed.err


def test_without_a_file_for_it_the_token_is_printed(tmp_path, capsys):
    server = tmp_path / "tokens"
    assert main(["token", "bob", "--add-to", str(server), "--max-sessions", "3"]) == 0
    secret = capsys.readouterr().out.strip()
    grant = TokenStore(server).grant(f"Bearer {secret}")
    assert (grant.name, grant.max_sessions) == ("bob", 3)


def test_lines_are_added_and_all_else_in_the_file_stays(tmp_path, capsys):
    server = tmp_path / "tokens"
    server.write_text("# the lab's\n\nold sha256:" + "0" * 64)  # no end of line
    server.chmod(0o640)
    for name in ("alice", "bob"):
        assert main(["token", name, "--add-to", str(server)]) == 0
    assert server.read_text().startswith("# the lab's\n\nold sha256:" + "0" * 64 + "\nalice ")
    assert [grant.name for grant in parse_tokens(server.read_text(), "")] == ["old", "alice", "bob"]
    assert mode(server) == 0o640
    assert list(tmp_path.iterdir()) == [server]  # nothing temporary is left
    capsys.readouterr()


def test_a_token_that_devices_already_have_is_taken_over(tmp_path, capsys):
    plain, server = tmp_path / "plain", tmp_path / "tokens"
    plain.write_text("0123456789abcdef\n")
    plain.chmod(0o600)
    assert main(["token", "all", "--from", str(plain), "--add-to", str(server)]) == 0
    assert TokenStore(server).grant("Bearer 0123456789abcdef").name == "all"
    assert "0123456789abcdef" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["al ice"], "letters"),
        (["#alice"], "letters"),
        (["x" * 65], "letters"),
        (["alice\nbob"], "letters"),
        (["known"], "another name"),
        (["alice", "--out", "taken"], "exists"),
        (["alice", "--out", "no/such/folder"], "No such"),
        (["alice", "--from", "no/such/file"], "--from"),
    ],
    ids=str,
)
def test_what_cannot_be_done_changes_nothing(tmp_path, capsys, monkeypatch, arguments, reason):
    monkeypatch.chdir(tmp_path)
    before = f"known sha256:{'1' * 64}\n"
    (tmp_path / "tokens").write_text(before)
    (tmp_path / "taken").write_text("mine")
    assert main(["token", *arguments, "--add-to", "tokens"]) == 2
    printed = capsys.readouterr()
    assert reason in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert (tmp_path / "tokens").read_text() == before
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_server_file_that_cannot_be_written_leaves_no_token(tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["token", "a", "--add-to", str(tmp_path / "no" / "tokens"), "--out", str(out)]
    assert main(arguments) == 2
    assert not out.exists()
    assert "--add-to" in capsys.readouterr().err


def test_a_server_file_with_a_plain_token_is_not_added_to(tmp_path, capsys):
    server = tmp_path / "tokens"
    server.write_text("plain-old-token\n")
    assert main(["token", "alice", "--add-to", str(server)]) == 2
    assert "plain-old-token" not in capsys.readouterr().err
    assert server.read_text() == "plain-old-token\n"
