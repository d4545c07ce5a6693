"""Settings from a file, the environment and flags, and back to text."""

import argparse
import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.configuration import add_options, configure
from cloud.configuration_text import as_markdown
from cloud.options import MemoryShare
from cloud.settings import OPTIONS, ServeSettings
from lambda_split.errors import UsageError

ROOT = pathlib.Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "configure.md"

# For each option: a value as text, and what it becomes. None of them is the default.
EXAMPLES = {
    "name": ("some/model", "some/model"),
    "head_layers": ("3", 3),
    "tail_layers": ("0", 0),
    "lora": ("an/adapter", ("an/adapter",)),
    "revision": ("v1.2", "v1.2"),
    "device": ("cuda:1", "cuda:1"),
    "devices": ("cuda:0,cuda:1", "cuda:0,cuda:1"),
    "dtype": ("bfloat16", "bfloat16"),
    "threads": ("4", 4),
    "host": ("::1", "::1"),
    "port": ("0", 0),
    "tls_cert": ("cert.pem", pathlib.Path("cert.pem")),
    "tls_key": ("key.pem", pathlib.Path("key.pem")),
    "token_file": ("tokens", pathlib.Path("tokens")),
    "insecure": ("true", True),
    "max_sessions": ("32", 32),
    "max_positions": ("2048", 2048),
    "max_waiting": ("7", 7),
    "kv_memory": ("500MB", 500_000_000),
    "max_latents": ("4096", 4096),
    "step_tokens": ("64", 64),
    "prompt_slowdown": ("3.5", 3.5),
    "block_positions": ("32", 32),
    "max_connections": ("100", 100),
    "max_newcomers": ("9", 9),
    "newcomers_per_second": ("20", 20.0),
    "max_chunk_tokens": ("128", 128),
    "max_in_flight": ("2", 2),
    "hello_seconds": ("5", 5),
    "evict_idle_seconds": ("1.5", 1.5),
    "drain_seconds": ("0", 0.0),
    "metrics_port": ("9100", 9100),
    "metrics_host": ("10.0.0.1", "10.0.0.1"),
    "log_level": ("debug", "debug"),
    "log_format": ("json", "json"),
    "replicas": ("ray", "ray"),
    "min_replicas": ("2", 2),
    "max_replicas": ("4", 4),
    "ray_address": ("head:6379", "head:6379"),
    "gpus_per_replica": ("0.5", 0.5),
    "cpus_per_replica": ("4", 4.0),
    "upscale_delay": ("1.5", 1.5),
    "downscale_delay": ("60", 60.0),
    "replicas_name": ("llama", "llama"),
    "gateway_only": ("true", True),
}
SWITCHES = {"insecure", "gateway_only"}
# A value that the option does not take.
WRONG = {
    "name": "",
    "lora": None,  # every text is one
    "head_layers": "-1",
    "revision": "a\nb",
    "device": "",
    "dtype": "int8",
    "port": "65536",
    "insecure": "maybe",
    "kv_memory": "8 potatoes",
    "evict_idle_seconds": "nan",
    "drain_seconds": "-1",
    "log_level": "loud",
    "log_format": "xml",
    "metrics_port": "x",
    "devices": "",
    "replicas": "other",
    "min_replicas": "0",
    "max_replicas": "0",
    "gpus_per_replica": "-0.5",
    "cpus_per_replica": "inf",
    "upscale_delay": "-1",
    "downscale_delay": "nan",
    "gateway_only": "perhaps",
}


def settings(*flags, environment=None):
    return configured(*flags, environment=environment).settings


def configured(*flags, environment=None):
    parser = argparse.ArgumentParser()
    add_options(parser)
    return configure(parser.parse_args([str(flag) for flag in flags]), environment or {})


def value(found: ServeSettings, option):
    return getattr(getattr(found, option.section), option.attribute)


def together(option):
    """What an option cannot be without."""
    others = {
        "tls_cert": {"tls_key"},
        "tls_key": {"tls_cert"},
        "gateway_only": {"replicas", "ray_address"},
    }.get(option.attribute, set())
    return [each for each in OPTIONS if each.attribute in {option.attribute, *others}]


def toml(option, text):
    if option.kind.item:
        return json.dumps([text])
    return (
        text
        if {int, float, bool} & set(option.kind.file_types) and text[-1] != "B"
        else json.dumps(text)
    )


BY_NAME = pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.attribute)


def test_every_option_has_an_example_that_is_not_its_default():
    assert list(EXAMPLES) == [option.attribute for option in OPTIONS]
    for option in OPTIONS:
        assert EXAMPLES[option.attribute][1] != option.default


@BY_NAME
def test_an_option_can_stand_in_a_file_the_environment_and_a_flag(option, tmp_path):
    _, wanted = EXAMPLES[option.attribute]
    given = {each: EXAMPLES[each.attribute][0] for each in together(option)}
    lines = [f"{each.key} = {toml(each, text)}" for each, text in given.items()]
    file = tmp_path / "serve.toml"
    file.write_text("\n".join([f"[{option.section}]", *lines]))
    flags = []
    for each, text in given.items():
        if each.positional:
            flags += [text]
        else:
            flags += [each.flag] if each.attribute in SWITCHES else [each.flag, text]
    sources = {
        f"{file}, [{option.section}] {option.key}": configured("--config", file),
        option.variable: configured(
            environment={each.variable: text for each, text in given.items()}
        ),
        option.flag: configured(*flags),
    }
    for source, found in sources.items():
        assert value(found.settings, option) == wanted
        assert type(value(found.settings, option)) is type(wanted)
        assert found.sources[option] == source
        untouched = [each for each in OPTIONS if each not in given]
        assert all(value(found.settings, each) == each.default for each in untouched)
        assert {found.sources[each] for each in untouched} == {"default"}


@pytest.mark.parametrize("attribute", [name for name, wrong in WRONG.items() if wrong is not None])
def test_a_wrong_value_is_refused_and_its_source_named(attribute, tmp_path, capsys):
    option = next(each for each in OPTIONS if each.attribute == attribute)
    wrong = WRONG[attribute]
    file = tmp_path / "serve.toml"
    file.write_text(f"[{option.section}]\n{option.key} = {json.dumps(wrong)}\n")
    with pytest.raises(UsageError) as caught:
        settings("--config", file)
    assert str(caught.value).startswith(f"{file}, [{option.section}] {option.key}: ")
    with pytest.raises(UsageError) as caught:
        settings(environment={option.variable: wrong})
    assert str(caught.value).startswith(f"{option.variable}: ")
    if option.attribute not in SWITCHES:  # a switch has no value
        with pytest.raises(SystemExit) as left:
            settings(*([] if option.positional else [option.flag]), wrong)
        assert left.value.code == 2
        assert option.flag in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('max-sessions = "8"', "it must be a whole number"),
        ("max-sessions = true", "it must be a whole number"),
        ("max-sessions = 8.0", "it must be a whole number"),
        ("max-sessions = [8]", "it must be a whole number"),
        ("kv-memory = false", "it must be a whole number or a number or a string"),
        ("max-session = 8", "no key 'max-session', but max-sessions, max-positions"),
        ("max_sessions = 8", "no key 'max_sessions'"),
        ("max-sessions = 0", "'0' is below 1"),
        ("max-sessions = {x = 1}", "it must be a whole number"),
    ],
)
def test_a_file_with_a_wrong_key_or_type_is_refused(line, said, tmp_path):
    file = tmp_path / "serve.toml"
    file.write_text(f"[engine]\n{line}\n")
    with pytest.raises(UsageError) as caught:
        settings("--config", file)
    assert str(file) in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[engines]\nx = 1", "no table [engines], but model, network"),
        (b"engine = 3", "engine must be a table"),
        (b"[[engine]]\nx = 1", "engine must be a table"),
        (b"[engine]\nmax-sessions = 1\nmax-sessions = 2", "is not TOML"),
        (b"[engine", "is not TOML"),
        (b"\xff\xfe", "is not TOML"),
        (b"x = " + b"[" * 100_000, "is not TOML"),
        (b"#" * ((1 << 20) + 1), "more than 1048576 bytes"),
        (b"[model]\nlora = [1]", "an array of strings"),
        (b'[model]\nlora = "one"', "an array of strings"),
        (b'[model]\nlora = ["a\\nb"]', "control characters"),
    ],
    ids=range(11),
)
def test_a_file_that_is_no_configuration_is_refused(content, said, tmp_path):
    file = tmp_path / "serve.toml"
    file.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        settings("--config", file)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["no/such/file.toml", ".", "nul\0"])
def test_a_file_that_cannot_be_read_is_named(name):
    with pytest.raises(UsageError, match="--config"):
        settings("--config", name)


def test_the_environment_may_name_the_file_and_the_flag_wins(tmp_path):
    for port in (1, 2):
        (tmp_path / f"{port}.toml").write_text(f"[network]\nport = {port}\n")
    variable = {"LAMBDA_SPLIT_SERVE_CONFIG": str(tmp_path / "1.toml")}
    assert settings(environment=variable).network.port == 1
    assert settings("--config", tmp_path / "2.toml", environment=variable).network.port == 2


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path):
    file = tmp_path / "serve.toml"
    file.write_text(
        '[network]\nport = 1\nhost = "1.1.1.1"\ninsecure = true\n[log]\nlog-level="error"\n'
    )
    environment = {"LAMBDA_SPLIT_SERVE_PORT": "2", "LAMBDA_SPLIT_SERVE_HOST": "2.2.2.2"}
    found = settings("--config", file, "--port", 3, "--no-insecure", environment=environment)
    assert (found.network.port, found.network.host) == (3, "2.2.2.2")
    assert found.network.insecure is False
    assert found.log.log_level == "error"


def test_a_source_is_checked_where_another_one_wins():
    with pytest.raises(UsageError, match="LAMBDA_SPLIT_SERVE_PORT"):
        settings("--port", 3, environment={"LAMBDA_SPLIT_SERVE_PORT": "three"})


def test_an_unknown_variable_is_refused_and_other_programs_are_left_alone():
    assert settings(environment={"LAMBDA_SPLIT_ELSE": "x", "PORT": "x"}) == ServeSettings()
    with pytest.raises(UsageError, match="LAMBDA_SPLIT_SERVE_PROT"):
        settings(environment={"LAMBDA_SPLIT_SERVE_PROT": "1"})


@pytest.mark.parametrize("flags", [["--tls-cert", "c"], ["--tls-key", "k"]])
def test_certificate_and_key_belong_together(flags):
    with pytest.raises(UsageError, match="--tls-cert and --tls-key belong together"):
        settings(*flags)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--min-replicas", 3, "--max-replicas", 2], "--min-replicas 3 is above --max-replicas 2"),
        (["--gateway-only", "--replicas", "ray"], "--ray-address"),
        (["--gateway-only", "--ray-address", "auto"], "--replicas ray"),
    ],
)
def test_contradictions_about_replicas(flags, said):
    with pytest.raises(UsageError, match=said):
        settings(*flags)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("8", 8 * 10**9),
        ("0.5", 5 * 10**8),
        ("8GB", 8 * 10**9),
        ("8 gb", 8 * 10**9),
        ("500MB", 5 * 10**8),
        ("1.5kB", 1500),
        ("12B", 12),
        ("2GiB", 2**31),
        ("1TiB", 2**40),
        ("60%", MemoryShare(60.0)),
        ("12.5 %", MemoryShare(12.5)),
        ("100%", MemoryShare(100.0)),
    ],
)
def test_amounts_of_memory(text, wanted):
    assert settings("--kv-memory", text).engine.kv_memory == wanted


@pytest.mark.parametrize(
    "text", ["", "0", "0GB", "0%", "101%", "-1", "1e3", "GB", "8GBB", "8 8GB", "0.1B", "٣GB", "inf"]
)
def test_amounts_of_memory_that_make_no_sense(text):
    with pytest.raises(UsageError, match="LAMBDA_SPLIT_SERVE_KV_MEMORY"):
        settings(environment={"LAMBDA_SPLIT_SERVE_KV_MEMORY": text})


def test_printed_settings_are_a_file_that_gives_the_same(tmp_path):
    environment = {
        option.variable: EXAMPLES[option.attribute][0] for option in OPTIONS if not option.kind.item
    }
    environment["LAMBDA_SPLIT_SERVE_LORA"] = "one\ntwo"
    found = configured(environment=environment)
    assert found.settings.model.lora == ("one", "two")
    file = tmp_path / "serve.toml"
    file.write_text(found.as_toml())
    assert settings("--config", file) == found.settings
    assert "max-sessions = 32  # LAMBDA_SPLIT_SERVE_MAX_SESSIONS" in found.as_toml()
    assert 'kv-memory = "500MB"' in found.as_toml()
    file.write_text(configured().as_toml())
    assert settings("--config", file) == ServeSettings()


PRINTABLE = st.text(min_size=1).filter(str.isprintable)


@given(
    name=PRINTABLE,
    lora=st.lists(PRINTABLE, max_size=3),
    size=st.integers(1, 10**20),
    idle=st.floats(0, 86400),
)
def test_any_printable_value_survives_printing(name, lora, size, idle):
    environment = {
        "LAMBDA_SPLIT_SERVE_MODEL": name,
        "LAMBDA_SPLIT_SERVE_KV_MEMORY": f"{size}B",
        "LAMBDA_SPLIT_SERVE_EVICT_IDLE_SECONDS": repr(idle),
    }
    flags = [f"--lora={each}" for each in lora]
    found = configured(*flags, environment=environment)
    printed = tomllib.loads(found.as_toml())
    assert printed["model"]["name"] == name
    assert printed["model"]["lora"] == lora
    assert printed["limits"]["evict-idle-seconds"] == idle
    amount, unit = re.fullmatch(r"(\d+)(\w+)", printed["engine"]["kv-memory"]).groups()
    assert int(amount) * {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}[unit] == size


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ServeSettings().network.port = 1


def test_print_config_prints_and_ends_without_torch(tmp_path):
    (tmp_path / "serve.toml").write_text('[model]\nname = "demo"\n')
    program = (
        "import sys; sys.modules['torch'] = None; from lambda_split.cli import main; "
        "sys.exit(main(['serve', '--config', sys.argv[1], '--port', '0', '--print-config']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "serve.toml")],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.stderr == ""
    printed = tomllib.loads(done.stdout)
    assert printed["model"]["name"] == "demo"
    assert printed["network"]["port"] == 0
    assert "port = 0  # --port" in done.stdout
    assert f"# {tmp_path / 'serve.toml'}, [model] name" in done.stdout


def test_the_documentation_has_the_table():
    table = as_markdown(OPTIONS)
    assert table.count("\n") == len(OPTIONS) + 2
    assert table in PAGE.read_text(encoding="utf-8"), f"docs/how-to/configure.md needs:\n{table}"
