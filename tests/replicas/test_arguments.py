"""The options of replicas: what is refused before anything is started."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cloud.replicas.running import gateway_connections
from cloud.settings import EngineSettings, LimitSettings, ReplicaSettings, ServeSettings
from lambda_split.cli import main
from tests.servers import free_port


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--min-replicas", "3", "--max-replicas", "2"], "min-replicas 3 is above"),
        (["--gateway-only"], "--ray-address"),
    ],
)
def test_contradictions_are_told_at_once(options, what, capsys):
    assert main(["serve", "demo", "--port", "0", "--replicas", "ray", *options]) == 2
    assert what in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ["--replicas", "other"],
        ["--min-replicas", "0"],
        ["--gpus-per-replica", "-1"],
        ["--gpus-per-replica", "inf"],
        ["--gpus-per-replica", "nan"],
        ["--cpus-per-replica", "one"],
    ],
)
def test_bad_values(options, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["serve", "demo", *options])
    assert ended.value.code == 2
    assert options[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("replicas", "limits", "wanted"),
    [
        ({}, {}, 2 * 5 + 16),
        ({"max_replicas": 4}, {}, 2 * 5 * 4 + 16),
        ({"max_replicas": 4}, {"max_connections": 7}, 7),
        ({"gateway_only": True, "max_replicas": 4}, {}, 2 * 5 * 4 + 16),
        ({"gateway_only": True}, {}, sys.maxsize),
    ],
)
def test_a_gateway_takes_the_sessions_of_all_replicas(replicas, limits, wanted):
    settings = ServeSettings(
        engine=EngineSettings(max_sessions=5),
        limits=LimitSettings(**limits),
        replicas=ReplicaSettings(**replicas),
    )
    assert gateway_connections(settings) == wanted


def test_without_ray_the_extra_is_named(tmp_path):
    """A module that cannot be imported, as where Ray is not installed."""
    program = (
        "import sys; sys.modules['ray'] = None\n"
        "from lambda_split.cli import main\n"
        "sys.exit(main(['serve', 'demo', '--port', '0', '--replicas', 'ray']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "pip install 'lambda-split[ray]'" in done.stderr


def test_help_imports_neither_torch_nor_ray():
    program = (
        "import sys\n"
        "from lambda_split.cli import main\n"
        "try:\n    main(['serve', '--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'ray', 'websockets'} & set(sys.modules), 'too much'"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--min-replicas" in done.stdout


def test_no_cluster_at_an_address(capsys):
    options = ["--replicas", "ray", "--ray-address", f"127.0.0.1:{free_port()}"]
    assert main(["serve", "demo", "--port", "0", *options]) == 1
    assert "Ray cannot run a cluster at 127.0.0.1" in capsys.readouterr().err
