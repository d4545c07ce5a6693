"""What docs/how-to/pictures.md tells people to type is what there is, and costs what it says."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import pathlib
import re
import shlex

import pytest

from edge_runtime import ImageGenerator, PictureSpec
from edge_runtime.commands import image
from lambda_split.cli import COMMANDS
from lambda_split.diffusion.scheduler_config import SOLVER_NAMES
from lambda_split.image_bundle import ImageBundle
from lambda_split.wire.tensor_format import TensorFormat
from tests.edge_runtime.hostile_server import hostile_server
from tests.edge_runtime.pictures import some_pictures
from tests.edge_runtime.pictures.some_denoiser import serve_zeros

PAGE = pathlib.Path(__file__).parents[3] / "docs" / "how-to" / "pictures.md"
TEXT = PAGE.read_text(encoding="utf-8")
COMMAND_LINES = re.findall(r"^lambda-split .*", TEXT, re.MULTILINE)
EXAMPLES = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
FRAME = 28


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> ImageBundle:
    return some_pictures.write_bundle(tmp_path_factory.mktemp("bundle"))


def _parser(name: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    importlib.import_module(COMMANDS[name].module).add_arguments(parser)
    return parser


def test_its_commands_are_understood() -> None:
    names = [shlex.split(line)[1] for line in COMMAND_LINES]
    assert names == ["export", "serve", "image", "export"]
    for line in COMMAND_LINES:
        _, name, *arguments = shlex.split(line)
        _parser(name).parse_args(arguments)


def test_the_options_it_tells_of_exist() -> None:
    parsers = [_parser(name) for name in ("export", "serve", "image")]
    known = {option for parser in parsers for option in parser._option_string_actions}
    for option in re.findall(r"`(--[a-z-]+)", TEXT):
        assert option in known, option


def test_its_solvers_are_all_there_are() -> None:
    section = TEXT[TEXT.index("## Solvers") : TEXT.index("## Formats")]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    told = set(re.findall(r"`([^`]+)`", " ".join(rows)))
    assert told == set(SOLVER_NAMES)


def test_its_defaults_are_the_commands_and_the_librarys() -> None:
    parser = argparse.ArgumentParser()
    image.add_arguments(parser)
    defaults = {field.name: field.default for field in dataclasses.fields(PictureSpec)}
    for name in ("steps", "guidance"):
        (told,) = re.findall(rf"`--{name} .`? ?\| .*?\((\d+)\)", TEXT)
        assert float(told) == defaults[name] == parser.get_default(name)


def test_the_python_example_runs(bundle, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(EXAMPLES) == 1
    with hostile_server(serve_zeros) as server:
        example = EXAMPLES[0].replace("bundle/", str(bundle.path))
        example = example.replace("ws://127.0.0.1:8765", server.url)
        exec(example, {})  # noqa: S102  # the page's own example
    assert (tmp_path / "circle.png").read_bytes().startswith(b"\x89PNG")
    assert "step 25 of 25" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("label", "bits", "groups"),
    [
        ("fp32", 32, 0),
        ("fp16", 16, 0),
        ("bf16-delta", 16, 0),
        ("fp8-e4m3", 8, 0),
        ("int3", 3, 1),
        ("nf4-delta", 4, 1),
        ("nf1-channel-delta", 1, 4),
    ],
)
def test_a_step_costs_what_it_says(bundle, label, bits, groups) -> None:
    form = TensorFormat.from_label(label)
    assert form is not None
    values = some_pictures.CHANNELS * some_pictures.SIDE**2
    with (
        hostile_server(serve_zeros) as server,
        ImageGenerator.open(bundle, server.url, format=label) as painter,
    ):
        few, more = (
            painter.generate("a cat", spec=PictureSpec(steps=steps, seed=1)).stats
            for steps in (10, 20)
        )
    assert more.bytes_up - few.bytes_up == 10 * FRAME
    payload = 8 * groups + -(-values * bits // 8)
    assert more.bytes_down - few.bytes_down == 10 * (FRAME + payload)


def test_prompts_cost_what_it_says(bundle) -> None:
    spec, up = PictureSpec(steps=1, seed=1), []
    with hostile_server(serve_zeros) as server:
        for label in ("fp16", "fp32"):
            with ImageGenerator.open(bundle, server.url, format=label) as painter:
                up.append(painter.generate("a cat", negative_prompt="dog", spec=spec).stats)
    width = some_pictures.FIRST_WIDTH + some_pictures.SECOND_WIDTH
    each = some_pictures.TOKENS * width + some_pictures.SECOND_WIDTH
    assert up[1].bytes_up - up[0].bytes_up == 2 * 2 * each
