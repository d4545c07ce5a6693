"""The golden vectors as Python objects, for tests."""

import json
import pathlib
import subprocess
import sys

FOLDER = pathlib.Path(__file__).parent


def read_vectors(name):
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def named(entries):
    """Arguments for ``pytest.mark.parametrize`` with the entries' names as ids."""
    ids = [
        "-".join(str(entry[key]) for key in ("name", "codec") if key in entry) for entry in entries
    ]
    return {"argvalues": entries, "ids": ids}


def written_again(script, names, folder):
    """Run a copy of a script that writes vectors; what it wrote, and what is committed."""
    copy = folder / script
    copy.write_text((FOLDER / script).read_text(encoding="utf-8"), encoding="utf-8")
    # Isolated (-I): the script must not need this package.
    subprocess.run([sys.executable, "-I", copy], check=True, stdout=subprocess.DEVNULL)
    return [(folder / name).read_bytes() for name in names], [
        (FOLDER / name).read_bytes() for name in names
    ]
