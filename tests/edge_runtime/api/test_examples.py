"""The examples of the how-tos run as they stand there."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest

PAGES = pathlib.Path(__file__).parents[3] / "docs" / "how-to"
EXAMPLES = [
    pytest.param(example, id=f"{name}-{number}")
    for name in ("openai", "langchain")
    for number, example in enumerate(
        re.findall(
            r"^```python\n(.*?)^```",
            (PAGES / f"{name}.md").read_text(encoding="utf-8"),
            re.MULTILINE | re.DOTALL,
        )
    )
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example(api, example) -> None:
    assert "http://127.0.0.1:8000/v1" in example
    adapted = example.replace("http://127.0.0.1:8000/v1", api.url)
    run = subprocess.run(
        [sys.executable, "-c", adapted], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "fox" in run.stdout
