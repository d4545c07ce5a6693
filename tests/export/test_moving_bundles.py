"""Several splits in one bundle: the graphs of each alone, with their weights stored once."""

from __future__ import annotations

import itertools

import msgspec
import numpy as np
import pytest

from edge_runtime.graphs import RuntimeSettings, load_head, load_tail
from export import ExportSettings, QuietProgress, export_bundle
from lambda_split.bundle import Bundle, load_bundle
from lambda_split.cli import main
from lambda_split.errors import SplitImpossible, UsageError
from lambda_split.partition import open_checkpoint
from lambda_split.split import Split

SPLITS = (Split(1, 1), Split(3, 2), Split(1, 2))
TOKENS = np.arange(7, 47)
SETTINGS = RuntimeSettings(threads=1)


class Bars:
    """Counts what each stage announced and how far it came."""

    def __init__(self) -> None:
        self.stages: list[list] = []

    def stage(self, name: str, steps: int) -> None:
        self.stages.append([name, steps, 0])

    def advance(self) -> None:
        self.stages[-1][2] += 1

    def close(self) -> None:
        pass


def _export(model: str, out, weights: str, *splits: Split, progress=None) -> Bundle:
    settings = ExportSettings(splits[0], weights=weights, further_splits=splits[1:])
    export_bundle(model, out, settings, progress=progress or QuietProgress())
    return load_bundle(out)


@pytest.fixture(scope="module")
def bars() -> Bars:
    return Bars()


@pytest.fixture(scope="module")
def moving(bars, checkpoint_folder, tmp_path_factory) -> Bundle:
    out = tmp_path_factory.mktemp("moving") / "bundle"
    return _export(str(checkpoint_folder("llama-tied")), out, "int4", *SPLITS, progress=bars)


@pytest.fixture(scope="module")
def fixed(export) -> dict[Split, Bundle]:
    """Of the shallowest and the deepest; the third has graphs of both."""
    return {
        split: export("llama-tied", weights="int4", split=(split.head_layers, split.tail_layers))
        for split in SPLITS[:2]
    }


def _ends(bundle: Bundle) -> tuple[np.ndarray, np.ndarray]:
    """What head and tail of a bundle compute, the tail from the head's output."""
    head, tail = load_head(bundle, SETTINGS), load_tail(bundle, SETTINGS)
    hidden = head.run(TOKENS, 0, head.new_cache(64)).copy()
    return hidden, tail.run(hidden, 0, tail.new_cache(64), range(len(TOKENS))).copy()


@pytest.mark.parametrize("split", SPLITS[:2], ids=str)
def test_each_split_computes_what_its_own_bundle_does_to_the_bit(split, moving, fixed) -> None:
    for found, expected in zip(_ends(moving.at(split)), _ends(fixed[split]), strict=True):
        assert np.array_equal(found, expected)
    assert moving.manifest.at(split).verification == fixed[split].manifest.verification


def test_splits_of_equal_depth_have_one_graph(moving) -> None:
    manifest = moving.manifest
    assert {name: len(graph.kv) for name, graph in manifest.graphs.items()} == {
        "head": 1,
        "head-3": 3,
        "tail": 1,
        "tail-2": 2,
    }
    named = {one.split: (one.head, one.tail) for one in manifest.splits}
    assert named == {
        Split(1, 1): ("head", "tail"),
        Split(3, 2): ("head-3", "tail-2"),
        Split(1, 2): ("head", "tail-2"),
    }
    assert manifest.choices == SPLITS


def test_a_runtime_that_knows_no_choice_runs_the_first(moving, fixed) -> None:
    manifest = moving.manifest
    assert manifest.split == SPLITS[0]
    assert manifest.verification == fixed[SPLITS[0]].manifest.verification
    unaware = Bundle(moving.path, msgspec.structs.replace(manifest, splits=()))
    assert np.array_equal(_ends(unaware)[1], _ends(fixed[SPLITS[0]])[1])


def test_weights_are_stored_once(moving, fixed) -> None:
    deepest = max(bundle.manifest.files["weights.data"].size for bundle in fixed.values())
    # The order differs, and with it what alignment takes.
    assert moving.manifest.files["weights.data"].size < deepest + 4096


@pytest.mark.slow
def test_a_bundle_is_at_most_a_tenth_larger_than_its_deepest_split(tmp_path) -> None:
    splits = (Split(1, 1), Split(2, 2))
    # int4 is the hardest format: the weights are small beside the graphs.
    moving = _export("demo", tmp_path / "moving", "int4", *splits)
    deepest = _export("demo", tmp_path / "deepest", "int4", splits[-1])
    sizes = [sum(f.size for f in bundle.manifest.files.values()) for bundle in (moving, deepest)]
    print(f"moving {sizes[0]:,} bytes, deepest alone {sizes[1]:,}: {sizes[0] / sizes[1]:.3f}")
    assert sizes[1] < sizes[0] <= 1.1 * sizes[1]


def test_bars_reach_their_end(bars, moving) -> None:
    assert [name for name, _, _ in bars.stages] == [
        "loading the head",
        "writing weights as int4",
        "tracing the head",
        "loading the tail",
        "writing weights as int4",
        "tracing the tail",
        "verifying",
    ]
    assert all(steps == done for _, steps, done in bars.stages)


def test_witnesses_are_of_layers_that_every_trunk_has(moving, checkpoint_folder) -> None:
    checkpoint = open_checkpoint(str(checkpoint_folder("llama-tied")))
    assert moving.manifest.model.witnesses == checkpoint.witnesses(Split(3, 2))


@pytest.mark.parametrize(
    ("further", "error"),
    [((Split(2, 2), Split(1, 1)), UsageError), ((Split(4, 2),), SplitImpossible)],
)
def test_splits_that_make_no_sense_are_refused(further, error, checkpoint_folder, tmp_path) -> None:
    with pytest.raises(error):
        _export(str(checkpoint_folder("llama")), tmp_path / "out", "fp32", Split(1, 1), *further)
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_and_inspect_shows_every_split(
    checkpoint_folder, tmp_path, capsys
) -> None:
    out, folder = str(tmp_path / "bundle"), str(checkpoint_folder("gpt2"))
    capsys.readouterr()
    arguments = ["export", folder, "--out", out, "--weights", "fp32", "--quiet"]
    assert main([*arguments, "--split", "0,4", "--split", "2,1"]) == 0
    written = capsys.readouterr().out
    assert "0 in the head, 4 in the tail, 2 for the trunk" in written
    assert "2 in the head, 1 in the tail, 3 for the trunk" in written
    assert "draws one" in written
    assert f"serve {folder} --head-layers 0\n" in written  # what serves both; 1 is the default
    assert main(["inspect", out]) == 0
    shown = capsys.readouterr().out
    assert "  layers       0 head + 2 trunk + 4 tail\n" in shown
    assert "  layers       2 head + 3 trunk + 1 tail\n" in shown
    assert "  split 0,4    head and tail, verified on 384 tokens against PyTorch" in shown
    assert "  split 2,1    head-2 and tail-1, verified on" in shown
    # No layer is in both trunks, so that the witnesses are of the first one's.
    checkpoint = open_checkpoint(folder)
    assert load_bundle(out).manifest.model.witnesses == checkpoint.witnesses(Split(0, 4))


def test_one_split_is_a_bundle_like_any(checkpoint_folder, tmp_path, capsys) -> None:
    out = tmp_path / "bundle"
    arguments = ["export", str(checkpoint_folder("gpt2")), "--out", str(out), "--weights", "fp32"]
    assert main([*arguments, "--split", "0,0"]) == 0
    capsys.readouterr()
    manifest = load_bundle(out).manifest
    assert (manifest.split, manifest.splits) == (Split(0, 0), ())
    assert manifest.graphs.keys() == {"head", "tail"}


WRONG = [
    (["--split", "1"], "1,1"),
    (["--split", "1,x"], "whole number"),
    (["--split", "1,-1"], "below 0"),
    (["--split", "1,1,1"], "whole number"),
    (["--split", "1,1", "--split", "1,1"], "twice"),
    (["--split", "1,1", "--split", "deep"], "--split deep"),
    (["--split", "2,2", "--head-layers", "1"], "--head-layers"),
    (["--split", "2,2", "--tail-layers", "2"], "--tail-layers"),
]


@pytest.mark.parametrize(("wrong", "words"), WRONG, ids=itertools.count())
def test_wrong_use_of_split_is_2_and_writes_nothing(
    wrong, words, checkpoint_folder, tmp_path, capsys
) -> None:
    arguments = ["export", str(checkpoint_folder("gpt2")), "--out", str(tmp_path / "bundle")]
    try:
        code = main([*arguments, *wrong])
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
