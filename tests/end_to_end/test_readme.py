"""What the README tells people to type works, with the shipped model in place of a large one."""

from __future__ import annotations

import pathlib
import re
import shlex
import subprocess
import sys

import httpx
import pytest

from tests.programs import listening
from tests.servers import TrunkServer, free_port

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PICTURES = (ROOT / "docs" / "how-to" / "pictures.md").read_text(encoding="utf-8")


def _commands(name: str, page: str = README) -> list[list[str]]:
    lines = [line for _, block in BLOCK.findall(page) for line in block.splitlines()]
    found = [shlex.split(line, comments=True) for line in lines if line.startswith(name)]
    assert found, name
    return found


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for _, target in _commands("make "):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_ci_runs_the_same_commands() -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for command in _commands("make "):
        assert " ".join(command) in ci


def test_extras_exist() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for command in _commands("pip install"):
        for extra in re.findall(r"\[(\w+)\]", command[-1]):
            assert f"\n{extra} = [" in project


def test_links_lead_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.slow
def test_export_serve_and_chat(tmp_path) -> None:
    export, serve, chat = _commands("lambda-split ")[:3]
    assert [export[1], serve[1], chat[1]] == ["export", "serve", "chat"]
    port = free_port()
    replaced = {
        export[2]: "demo",
        "./bundle": str(tmp_path / "bundle"),
        "ws://127.0.0.1:8765": f"ws://127.0.0.1:{port}",
    }
    run = [sys.executable, "-m", "lambda_split.cli"]

    def adapt(command: list[str]) -> list[str]:
        return [replaced.get(word, word) for word in command[1:]]

    subprocess.run([*run, *adapt(export)], check=True, capture_output=True)
    arguments = adapt(serve)[1:]
    at = arguments.index("--port")
    server = TrunkServer(*arguments[:at], *arguments[at + 2 :], port=port)
    try:
        server.start()
        question = "Tell me a story about a fox and a lantern.\n"
        done = subprocess.run(
            [*run, *adapt(chat)], input=question, capture_output=True, text=True, check=True
        )
        assert "fox" in done.stdout
        for name, path, told in (("api", "/models", '"demo"'), ("ui", "config", "Regenerate")):
            (command,) = _commands(f"lambda-split {name} ")
            with listening([*run, *adapt(command), "--port", "0"]) as address:
                assert told in httpx.get(address + path, timeout=60).text
    finally:
        server.close()


@pytest.mark.slow
def test_pictures_export_serve_paint_and_the_python_example(tmp_path) -> None:
    export, serve, image = _commands("lambda-split ", PICTURES)[:3]
    assert [export[1], serve[1], image[1]] == ["export", "serve", "image"]
    bundle = str(tmp_path / "bundle")
    replaced = {export[2]: "demo-image", "./bundle": bundle, "circle.png": "painted.png"}
    run = [sys.executable, "-m", "lambda_split.cli"]

    def execute(command: list[str]) -> str:
        words = [replaced.get(word, word) for word in command]
        done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path)
        return done.stdout

    execute([*run, *export[1:]])
    server = TrunkServer("demo-image")
    try:
        server.start()
        replaced["ws://127.0.0.1:8765"] = server.url
        assert execute([*run, *image[1:]]) == "painted.png\n"
        (example,) = (code for kind, code in BLOCK.findall(PICTURES) if kind == "python")
        example = example.replace("bundle/", bundle).replace("ws://127.0.0.1:8765", server.url)
        assert "step 25 of 25" in execute([sys.executable, "-c", example])
    finally:
        server.close()
    assert {path.name for path in tmp_path.glob("*.png")} == {"painted.png", "circle.png"}
