"""What the README and the how-tos show of the library runs as it stands there."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import pytest

from tests.servers import serving

ROOT = pathlib.Path(__file__).parents[2]
PAGES = ("README.md", "docs/how-to/python.md")
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXAMPLES = [
    pytest.param(example, id=f"{pathlib.Path(page).stem}-{number}")
    for page in PAGES
    for number, example in enumerate(PYTHON.findall((ROOT / page).read_text(encoding="utf-8")))
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def replaced(bundle, demo_pictures):
    """The pages' bundles and addresses, and the real ones."""
    text = bundle("demo", weights="int4")
    with serving("demo") as trunk, serving("demo-image") as denoiser:
        yield {
            '"bundle/"': repr(str(text.path)),
            '"pictures/"': repr(str(demo_pictures.path)),
            "ws://127.0.0.1:8765": trunk.url,
            "ws://127.0.0.1:8766": denoiser.url,
        }


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example(replaced, tmp_path, example) -> None:
    for shown, real in replaced.items():
        example = example.replace(shown, real)
    (tmp_path / "example.py").write_text(example, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "example.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert not done.stderr
