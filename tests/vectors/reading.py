"""The golden vectors as Python objects, for tests."""

import json
import pathlib

FOLDER = pathlib.Path(__file__).parent


def read_vectors(name):
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def named(entries):
    """Arguments for ``pytest.mark.parametrize`` with the entries' names as ids."""
    ids = [
        "-".join(str(entry[key]) for key in ("name", "codec") if key in entry) for entry in entries
    ]
    return {"argvalues": entries, "ids": ids}
