"""The notebook runs as it stands there, in a real kernel, after what it tells people to start."""

from __future__ import annotations

import asyncio
import os
import pathlib
import re
import shlex
import subprocess
import sys

import nbclient
import nbformat
import pytest

from tests.servers import TrunkServer, serving

ROOT = pathlib.Path(__file__).parents[2]
TOUR = ROOT / "docs" / "notebooks" / "tour.ipynb"
PAGE = ROOT / "docs" / "how-to" / "notebook.md"
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def _tour() -> nbformat.NotebookNode:
    return nbformat.read(TOUR, as_version=4)


def test_it_is_valid_and_holds_no_outputs() -> None:
    notebook = _tour()
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
        assert cell.metadata == {}
    assert set(notebook.metadata) == {"kernelspec", "language_info"}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with the bundles that the first cell has people make, and where its servers are."""
    folder = tmp_path_factory.mktemp("tour")
    first = _tour().cells[0].source
    commands = [shlex.split(line) for line in re.findall(r"^lambda-split .*$", first, re.MULTILINE)]
    assert [words[1] for words in commands] == ["export", "export", "serve", "serve"]
    for words in commands[:2]:
        subprocess.run(
            [sys.executable, "-m", "lambda_split.cli", *words[1:], "--quiet"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=True,
        )
    servers = {}
    try:
        for _, _, model, option, port in commands[2:]:
            assert option == "--port"
            servers[f"ws://127.0.0.1:{port}"] = server = TrunkServer(model)
            server.start()
        yield folder, {shown: server.url for shown, server in servers.items()}
    finally:
        for server in servers.values():
            server.close()


class Client(nbclient.NotebookClient):
    """Has something done when a cell prints its first line."""

    when_it_prints = None

    def process_message(self, msg, cell, cell_index):
        begins = msg["msg_type"] == "stream" and not cell.outputs
        output = super().process_message(msg, cell, cell_index)
        if begins and self.when_it_prints is not None:
            self.when_it_prints(self, cell)
        return output


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """Runs a notebook's cells in a folder; its outputs are in it then."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))

    def executing(notebook: nbformat.NotebookNode, folder=tmp_path, when_it_prints=None):
        client = Client(
            notebook,
            timeout=300,
            allow_errors=when_it_prints is not None,
            resources={"metadata": {"path": str(folder)}},
        )
        client.when_it_prints = when_it_prints
        return client.execute()

    return executing


@pytest.fixture
def execute_as_told(execute, prepared):
    """The same after what the first cell says, with its servers where they really are."""
    folder, urls = prepared

    def executing(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
        for cell in notebook.cells:
            for shown, real in urls.items():
                cell.source = cell.source.replace(shown, real)
        return execute(notebook, folder)

    return executing


def _said(cell) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def _shown(cell) -> str:
    return "".join(output.data.get("text/html", "") for output in cell.outputs if "data" in output)


@pytest.mark.slow
def test_the_tour(execute_as_told) -> None:
    cells = [cell for cell in execute_as_told(_tour()).cells if cell.cell_type == "code"]
    for cell in cells:
        assert cell.outputs, cell.source
        for output in cell.outputs:
            assert output.output_type in {"display_data", "execute_result", "stream"}
            assert output.get("name") != "stderr", output.text
    by_source = {cell.source.splitlines()[-1]: cell for cell in cells}
    assert "is <b>open</b>" in _shown(cells[0])
    assert _said(cells[1])
    assert _said(cells[1]).strip()[:20] in _shown(by_source["stream.result"])
    assert "trunk" in _shown(by_source["stream.result"])
    second_turn = _shown(by_source["llm.generate(messages, max_new_tokens=60)"])
    assert re.search(r"tokens \(\d+ held\)", second_turn)
    assert _shown(by_source["stories[1]"])
    assert _shown(by_source["steps.result"]).count("data:image/png;base64,") == 1
    assert "perplexity" in "".join(map(_said, cells))
    assert sum(_shown(cell).count("data:image/png") for cell in cells) == 5  # with the preview
    assert "is <b>closed</b>" in _shown(by_source["llm"])


@pytest.mark.slow
def test_the_pages_examples(execute_as_told) -> None:
    examples = PYTHON.findall(PAGE.read_text(encoding="utf-8"))
    cells = [nbformat.v4.new_code_cell(example) for example in examples]
    pictures, text = execute_as_told(nbformat.v4.new_notebook(cells=cells)).cells
    assert _shown(pictures).count("data:image/png;base64,") == 1  # each in place of the one before
    assert _said(text)


STOPPED = """
from edge_runtime import AsyncTextGenerator, SamplingSettings, TextGenerator
greedy = SamplingSettings(temperature=0)
llm = TextGenerator.open(*place)
twin = await AsyncTextGenerator.open(*place)
wanted = llm.generate("The fox", max_new_tokens=20, sampling=greedy).token_ids
# ---
while True:
    print("on")
    llm.generate("Once upon a time", max_new_tokens=99)
# ---
print(llm.generate("The fox", max_new_tokens=20, sampling=greedy).token_ids == wanted)
# ---
while True:
    print("on")
    await twin.generate("Once upon a time", max_new_tokens=99)
# ---
print((await twin.generate("The fox", max_new_tokens=20, sampling=greedy)).token_ids == wanted)
llm.close()
await twin.aclose()
"""


@pytest.mark.slow
def test_the_stop_button_ends_a_generation_and_leaves_the_generator_usable(execute, bundle) -> None:
    """As the page says: in a synchronous call, and while a cell awaits."""

    def interrupt(client, cell):
        if cell.source.startswith("while True"):
            pressed.append(asyncio.ensure_future(client.km.interrupt_kernel()))

    pressed: list[asyncio.Future] = []
    with serving("demo") as server:
        place = f"place = ({str(bundle('demo', weights='int4').path)!r}, {server.url!r})"
        sources = [source.strip() for source in (place + STOPPED).split("# ---")]
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        notebook = execute(nbformat.v4.new_notebook(cells=cells), when_it_prints=interrupt)
    _, stopped, after, stopped_awaiting, last = notebook.cells
    assert len(pressed) == 2
    for cell in (stopped, stopped_awaiting):
        assert cell.outputs[-1].ename in {"KeyboardInterrupt", "CancelledError"}
    assert _said(after) == _said(last) == "True\n"
