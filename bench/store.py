"""Results in a folder: each finished case is stored at once, and a run that was ended goes on."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import msgspec

from bench.machine import Machine
from bench.results import SCHEMA, Growth, Measurement, Model, Results
from bench.settings import BenchSettings, differences
from lambda_split.errors import OutputNotWritable, UsageError
from lambda_split.whole_file import write_whole

__all__ = ["RESULTS_NAME", "Store"]

RESULTS_NAME = "results.json"
_RESTART = "take another --out, or --restart to begin anew"


class Store:
    """The results in one folder.

    Attributes:
        folder: Where they lie.
        results: What is stored.
    """

    def __init__(self, folder: pathlib.Path, results: Results) -> None:
        self.folder = folder
        self.results = results

    @classmethod
    def open(
        cls,
        folder: pathlib.Path,
        settings: BenchSettings,
        machine: Machine,
        model: Model,
        *,
        restart: bool,
    ) -> Store:
        """Go on with what a folder holds, or begin in it.

        Args:
            folder: Made where it is not there.
            settings: What is to be measured.
            machine: Where.
            model: Of what.
            restart: Begin anew whatever it holds.

        Raises:
            UsageError: it holds results of something else, or none that can be read.
            OutputNotWritable: it cannot be written.
        """
        wanted = Results(settings=settings, machine=machine, model=model)
        path = folder / RESULTS_NAME
        if not restart and (found := _read(path)) is not None:
            _check_same(path, found, wanted)
            return cls(folder, found)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputNotWritable(str(folder), error.strerror or str(error)) from error
        store = cls(folder, wanted)
        store._write()
        return store

    def add(self, found: Sequence[Measurement | Growth]) -> None:
        """Store finished cases, together or not at all.

        Raises:
            OutputNotWritable: it cannot be written.
        """
        for each in found:
            self.results = self.results.adding(each)
        self._write()

    def _write(self) -> None:
        raw = msgspec.json.format(msgspec.json.encode(self.results), indent=1)
        write_whole(self.folder / RESULTS_NAME, raw + b"\n")


class _Version(msgspec.Struct):
    schema: int


def _read(path: pathlib.Path) -> Results | None:
    """What a file holds; None where there is none."""
    try:
        raw = path.read_bytes()
        schema = msgspec.json.decode(raw, type=_Version).schema
        if schema == SCHEMA:
            return msgspec.json.decode(raw, type=Results)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path} holds no results of a benchmark: {_RESTART}") from error
    raise UsageError(f"{path} is of version {schema}, this program's is {SCHEMA}: {_RESTART}")


def _check_same(path: pathlib.Path, found: Results, wanted: Results) -> None:
    """Refuse to put figures of different things into one table."""
    for what, one, other in (
        ("another model", found.model, wanted.model),
        ("other settings", found.settings, wanted.settings),
        ("another machine", found.machine, wanted.machine),
    ):
        if names := differences(one, other):
            raise UsageError(f"{path} is of {what} ({', '.join(names)}): {_RESTART}")
