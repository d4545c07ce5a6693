"""The examples of the how-to run as they stand there."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest

PAGE = pathlib.Path(__file__).parents[3] / "docs" / "how-to" / "openai.md"
EXAMPLES = re.findall(
    r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)


@pytest.mark.parametrize("example", EXAMPLES, ids=["openai", "langchain"])
def test_an_example(api, example) -> None:
    assert "http://127.0.0.1:8000/v1" in example
    adapted = example.replace("http://127.0.0.1:8000/v1", api.url)
    run = subprocess.run(
        [sys.executable, "-c", adapted], capture_output=True, text=True, check=True
    )
    assert "fox" in run.stdout
