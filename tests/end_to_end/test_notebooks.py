"""The notebook runs as it stands there, in a real kernel, after what it tells people to start."""

from __future__ import annotations

import os
import pathlib
import re
import shlex
import subprocess
import sys

import nbclient
import nbformat
import pytest

from tests.servers import TrunkServer

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


@pytest.fixture
def execute(prepared, tmp_path, monkeypatch):
    """Runs the cells of a notebook; its outputs are in it then."""
    folder, urls = prepared
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))

    def executing(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
        for cell in notebook.cells:
            for shown, real in urls.items():
                cell.source = cell.source.replace(shown, real)
        client = nbclient.NotebookClient(
            notebook, timeout=120, resources={"metadata": {"path": str(folder)}}
        )
        return client.execute()

    return executing


def _said(cell) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def _shown(cell) -> str:
    return "".join(output.data.get("text/html", "") for output in cell.outputs if "data" in output)


@pytest.mark.slow
def test_the_tour(execute) -> None:
    cells = [cell for cell in execute(_tour()).cells if cell.cell_type == "code"]
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
def test_the_pages_examples(execute) -> None:
    examples = PYTHON.findall(PAGE.read_text(encoding="utf-8"))
    cells = [nbformat.v4.new_code_cell(example) for example in examples]
    pictures, text = execute(nbformat.v4.new_notebook(cells=cells)).cells
    assert _shown(pictures).count("data:image/png;base64,") == 1  # each in place of the one before
    assert _said(text)
