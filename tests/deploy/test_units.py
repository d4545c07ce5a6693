"""The systemd unit and the Dockerfile, as far as they can be checked without installing them."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys

import pytest

from cloud.configuration import add_options, configure
from tests.deploy.programs import DEPLOY, adapted, find
from tests.servers import TrunkServer, free_port

ROOT = DEPLOY.parent
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")


def parsed(flags):
    parser = argparse.ArgumentParser()
    add_options(parser)
    return parser.parse_args(flags)


def test_systemd_understands_the_unit_and_finds_it_hardened(tmp_path) -> None:
    command = "/usr/local/lambda-split/bin/lambda-split"
    unit = adapted("lambda-split.service", tmp_path, {command: "/bin/true"})
    analyze = find("systemd-analyze")
    done = subprocess.run(
        [analyze, "verify", str(unit)], capture_output=True, text=True, timeout=60, check=False
    )
    mine = [line for line in done.stderr.splitlines() if "lambda-split" in line]
    assert (done.returncode, mine) == (0, [])
    done = subprocess.run(
        [analyze, "security", "--offline=true", "--threshold=20", str(unit)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # Of 10, as systemd counts it: the threshold is in tenths.
    assert done.returncode == 0, done.stdout[-500:]


def test_the_unit_s_command_is_one_that_serve_takes(tmp_path) -> None:
    unit = (DEPLOY / "lambda-split.service").read_text(encoding="utf-8").replace("\\\n", " ")
    words = re.search(r"^ExecStart=\S+ serve (.*)$", unit, re.MULTILINE)[1].split()
    file = tmp_path / "serve.toml"
    file.write_text('[model]\nname = "demo"\n')
    words[words.index("--config") + 1] = str(file)
    settings = configure(parsed(words), {}).settings
    stop = int(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[1])
    assert stop > settings.limits.drain_seconds + 10
    ports = set(map(int, re.findall(r"^SocketBindAllow=tcp:(\d+)$", unit, re.MULTILINE)))
    assert settings.network.port in ports
    credentials = set(re.findall(r"^LoadCredential=([^:]+):", unit, re.MULTILINE))
    named = set(re.findall(r"\$\{CREDENTIALS_DIRECTORY\}/(\S+)", unit))
    assert named == credentials


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    kept = {
        line.removeprefix("!")
        for line in (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    copied = [
        word
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
        for word in line.split()[:-1]
    ]
    assert set(copied) == kept
    for name in copied:
        assert (ROOT / name).exists()
    packages = re.search(
        r"^packages = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE
    )[1]
    assert set(json.loads(f"[{packages}]")) <= kept


def test_the_image_s_environment_is_a_configuration_and_nobody_is_root() -> None:
    joined = DOCKERFILE.replace("\\\n", " ")
    pairs = re.search(r"^ENV (.*)$", joined, re.MULTILINE)[1].split()
    environment = dict(pair.split("=", 1) for pair in pairs)
    settings = configure(parsed([]), environment).settings
    assert settings.network.host == "0.0.0.0"  # noqa: S104 - inside a container
    exposed = re.search(r"^EXPOSE (.*)$", joined, re.MULTILINE)[1].split()
    assert exposed == [str(settings.network.port), str(settings.metrics.metrics_port)]
    user = re.findall(r"^USER (\S+)$", joined, re.MULTILINE)
    assert user == ["10001"]
    assert json.loads(re.search(r"^ENTRYPOINT (.*)$", joined, re.MULTILINE)[1]) == [
        "lambda-split",
        "serve",
    ]


@pytest.mark.slow
def test_the_image_s_health_check_tells_a_live_server_from_none(checkpoint) -> None:
    port = free_port()
    words = json.loads(re.search(r"^\s+CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)[1])
    assert words[:2] == ["python", "-c"]
    assert "127.0.0.1:9464" in words[2]
    command = [sys.executable, "-c", words[2].replace("9464", str(port))]
    server = TrunkServer(str(checkpoint("llama")), "--metrics-port", str(port))
    try:
        server.start()
        assert subprocess.run(command, timeout=60, check=False).returncode == 0
        server.kill()
        dead = subprocess.run(command, timeout=60, check=False, capture_output=True)
        assert dead.returncode != 0
    finally:
        server.close()
