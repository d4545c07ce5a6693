"""Reading a bundle: each way it can be wrong has its own error."""

from __future__ import annotations

import json
import os
import pathlib

import msgspec
import pytest

from edge_runtime.sampling import SamplingSettings
from lambda_split.bundle import (
    MANIFEST_NAME,
    SCHEMA,
    GenerationDefaults,
    Geometry,
    Graph,
    Manifest,
    ModelSource,
    TextSettings,
    describe_files,
    load_bundle,
    write_manifest,
)
from lambda_split.errors import (
    BundleFileAltered,
    BundleFileMissing,
    BundleFileUnreadable,
    BundleNotFound,
    ManifestInvalid,
    PathOutsideBundle,
    SchemaUnsupported,
    UsageError,
)
from lambda_split.split import Split

FILES = {"head.onnx": b"head", "tail.onnx": b"tail!", "tokenizer.json": b"{}"}


def _graph(file: str) -> Graph:
    return Graph(file=file, weights="fp32", attention="shared-kv", kv=(), inputs={}, outputs={})


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    manifest = Manifest(
        schema=SCHEMA,
        kind="causal-lm",
        producer="a test",
        model=ModelSource(id="tiny", family="llama", fingerprint="0123456789abcdef"),
        split=Split(1, 1),
        geometry=Geometry(hidden_size=8, layer_count=4, vocab_size=16, max_positions=32),
        graphs={"head": _graph("head.onnx"), "tail": _graph("tail.onnx")},
        text=TextSettings(tokenizer="tokenizer.json", stop_token_ids=(2,)),
        files=describe_files(tmp_path, FILES),
    )
    write_manifest(tmp_path, manifest)
    return tmp_path


def _edit(folder: pathlib.Path, **changes: object) -> None:
    manifest = json.loads((folder / MANIFEST_NAME).read_text())
    manifest.update(changes)
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest))


def test_round_trip(folder) -> None:
    bundle = load_bundle(folder)
    assert bundle.manifest.split == Split(1, 1)
    assert bundle.file("head.onnx").read_bytes() == b"head"
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, MANIFEST_NAME])


def test_no_manifest(tmp_path) -> None:
    with pytest.raises(BundleNotFound, match="lambda-split export"):
        load_bundle(tmp_path)


def test_no_folder(tmp_path) -> None:
    with pytest.raises(BundleNotFound):
        load_bundle(tmp_path / "nowhere")


def test_a_file_where_the_folder_should_be(folder) -> None:
    with pytest.raises(BundleNotFound):
        load_bundle(folder / "head.onnx")


@pytest.mark.parametrize("schema", [0, SCHEMA + 1, 99])
def test_another_schema(folder, schema) -> None:
    # A newer manifest may look different in every other way.
    (folder / MANIFEST_NAME).write_text(json.dumps({"schema": schema, "parts": []}))
    with pytest.raises(SchemaUnsupported, match=f"schema {schema}") as caught:
        load_bundle(folder)
    assert (caught.value.found, caught.value.supported) == (schema, SCHEMA)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '"text"', '{"schema": "1"}', '{"schema": 1}', "\udcff", "[" * 100_000]
)
def test_malformed(folder, text) -> None:
    (folder / MANIFEST_NAME).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ManifestInvalid) as caught:
        load_bundle(folder)
    assert str(caught.value).startswith(f"the bundle's {folder / MANIFEST_NAME} cannot be used: ")


def test_larger_than_any_manifest(folder) -> None:
    (folder / MANIFEST_NAME).write_bytes(b" " * (5 * 1024 * 1024))
    with pytest.raises(ManifestInvalid, match="larger"):
        load_bundle(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "something-else"},
        {"text": None},
        {"graphs": {}},
        {"split": {"head_layers": 3, "tail_layers": 1}},
        {"split": {"head_layers": -1, "tail_layers": 1}},
        {"geometry": {"hidden_size": 0, "layer_count": 4, "vocab_size": 1, "max_positions": 1}},
        {"geometry": {"hidden_size": 1 << 40, "layer_count": 4, "vocab_size": 1}},
        {"files": {"head.onnx": {"size": -1, "sha256": "0" * 64}}},
        {"files": {"head.onnx": {"size": 4, "sha256": "short"}}},
        {"files": {}},
    ],
)
def test_contradictions(folder, changes) -> None:
    _edit(folder, **changes)
    with pytest.raises(ManifestInvalid):
        load_bundle(folder)


@pytest.mark.parametrize(
    "name",
    ["../secret", "/etc/passwd", "a/../../b", "", ".", "a//b", "c:\\x", "..\\x", "a\0b", "./a"],
)
def test_paths_that_leave_the_folder(folder, name) -> None:
    _edit(folder, files={name: {"size": 1, "sha256": "0" * 64}})
    with pytest.raises(PathOutsideBundle) as caught:
        load_bundle(folder)
    assert caught.value.path == name


@pytest.mark.parametrize("fingerprint", ["", "short", "0123456789ABCDEF", "0123456789abcdef\n"])
def test_what_is_no_digest(folder, fingerprint) -> None:
    _edit(folder, model={"id": "tiny", "family": "llama", "fingerprint": fingerprint})
    with pytest.raises(ManifestInvalid, match="fingerprint"):
        load_bundle(folder)


def test_a_checksum_that_ends_with_a_line_feed(folder) -> None:
    files = json.loads((folder / MANIFEST_NAME).read_text())["files"]
    files["head.onnx"]["sha256"] += "\n"
    _edit(folder, files=files)
    with pytest.raises(ManifestInvalid, match="sha256"):
        load_bundle(folder)


def test_no_more_witnesses_than_a_hello_can_carry(folder) -> None:
    model = {"id": "tiny", "family": "llama", "fingerprint": "01234567"}
    _edit(folder, model={**model, "witnesses": {f"w{i}": "01234567" for i in range(32)}})
    assert len(load_bundle(folder).manifest.model.witnesses) == 32
    _edit(folder, model={**model, "witnesses": {f"w{i}": "01234567" for i in range(33)}})
    with pytest.raises(ManifestInvalid, match="witnesses"):
        load_bundle(folder)


GOOD = {"temperature": 0.7, "top_k": 50, "top_p": 0.9, "min_p": 0.1, "repetition_penalty": 1.1}
BEYOND = [
    ("temperature", -0.1),
    ("top_k", -1),
    ("top_k", 1.5),
    ("top_p", -0.1),
    ("top_p", 1.1),
    ("min_p", -0.1),
    ("min_p", 1.1),
    ("repetition_penalty", 0),
    ("repetition_penalty", 1001),
    *((name, value) for name in GOOD for value in (float("inf"), float("nan"), None, "1", True)),
]


@pytest.mark.parametrize(("name", "value"), BEYOND)
def test_generation_defaults_that_no_sampler_takes(folder, name, value) -> None:
    for settings in (GOOD, {**GOOD, name: value}):
        _edit(folder, text={"tokenizer": "tokenizer.json", "generation": settings})
        if settings is GOOD:
            assert load_bundle(folder).manifest.text.generation.top_k == 50
    with pytest.raises(ManifestInvalid):
        load_bundle(folder)


def test_a_number_beyond_all_floats_in_the_defaults(folder) -> None:
    text = (folder / MANIFEST_NAME).read_text()
    assert '"temperature": 0.0' in text
    (folder / MANIFEST_NAME).write_text(text.replace('"temperature": 0.0', '"temperature": 1e999'))
    with pytest.raises(ManifestInvalid):
        load_bundle(folder)


@pytest.mark.parametrize(("name", "value"), BEYOND)
def test_the_sampler_refuses_the_same(name, value) -> None:
    with pytest.raises(UsageError):
        SamplingSettings(**{**GOOD, name: value})


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.0, "top_k": 0, "top_p": 0.0, "min_p": 0.0, "repetition_penalty": 1e-3},
        {
            "temperature": 1e308,
            "top_k": 9999,
            "top_p": 1.0,
            "min_p": 1.0,
            "repetition_penalty": 1e3,
        },
    ],
)
def test_both_take_their_bounds(settings) -> None:
    assert msgspec.convert(settings, GenerationDefaults) == GenerationDefaults(**settings)
    assert SamplingSettings(**settings).temperature == settings["temperature"]


def test_a_graph_outside_the_folder(folder) -> None:
    manifest = json.loads((folder / MANIFEST_NAME).read_text())
    manifest["graphs"]["head"]["file"] = "../head.onnx"
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest))
    with pytest.raises(PathOutsideBundle):
        load_bundle(folder)


def test_a_link_that_leaves_the_folder(folder, tmp_path_factory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "head.onnx"
    outside.write_bytes(FILES["head.onnx"])
    (folder / "head.onnx").unlink()
    (folder / "head.onnx").symlink_to(outside)
    with pytest.raises(PathOutsideBundle):
        load_bundle(folder)


def test_a_link_to_itself(folder) -> None:
    (folder / "head.onnx").unlink()
    (folder / "head.onnx").symlink_to("head.onnx")
    with pytest.raises(BundleFileMissing, match=r"head\.onnx"):
        load_bundle(folder)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions must count")
def test_a_file_without_permission_to_read_it(folder) -> None:
    (folder / "head.onnx").chmod(0)
    with pytest.raises(BundleFileUnreadable, match=r"head\.onnx.*[Pp]ermission"):
        load_bundle(folder)


def test_a_missing_file(folder) -> None:
    (folder / "tail.onnx").unlink()
    with pytest.raises(BundleFileMissing, match=r"tail\.onnx"):
        load_bundle(folder)


def test_a_folder_in_place_of_a_file(folder) -> None:
    (folder / "tail.onnx").unlink()
    (folder / "tail.onnx").mkdir()
    with pytest.raises(BundleFileMissing):
        load_bundle(folder)


def test_an_altered_byte(folder) -> None:
    (folder / "tail.onnx").write_bytes(b"tail?")
    with pytest.raises(BundleFileAltered, match="sha256"):
        load_bundle(folder)
    load_bundle(folder, check_contents=False)  # sizes only: nothing to see


def test_another_size(folder) -> None:
    (folder / "tail.onnx").write_bytes(b"tail")
    with pytest.raises(BundleFileAltered, match="size"):
        load_bundle(folder, check_contents=False)


def test_a_file_that_the_manifest_does_not_list(folder) -> None:
    with pytest.raises(BundleFileMissing):
        load_bundle(folder).file("manifest.json")


def _one(head_layers: int, tail_layers: int, head: str, tail: str) -> dict[str, object]:
    split = {"head_layers": head_layers, "tail_layers": tail_layers}
    return {"split": split, "head": head, "tail": tail}


def _described(file: str, layers: int) -> dict[str, object]:
    graph = msgspec.to_builtins(_graph(file))
    return graph | {"kv": [{"heads": 1, "head_dim": 8}] * layers}


def _offer(folder: pathlib.Path, *splits: dict[str, object]) -> None:
    graphs = {
        "head": _described("head.onnx", 1),
        "head-2": _described("head.onnx", 2),
        "tail": _described("tail.onnx", 1),
        "tail-0": _described("tail.onnx", 0),
        "head-4": _described("head.onnx", 4),
    }
    _edit(folder, graphs=graphs, splits=splits)


FIRST = _one(1, 1, "head", "tail")


def test_a_bundle_of_several_splits(folder) -> None:
    _offer(folder, FIRST, _one(2, 1, "head-2", "tail"), _one(2, 0, "head-2", "tail-0"))
    bundle = load_bundle(folder)
    manifest = bundle.manifest
    assert manifest.choices == (Split(1, 1), Split(2, 1), Split(2, 0))
    chosen = bundle.at(Split(2, 0)).manifest
    assert (chosen.split, chosen.choices) == (Split(2, 0), (Split(2, 0),))
    assert chosen.graphs == {"head": manifest.graphs["head-2"], "tail": manifest.graphs["tail-0"]}
    with pytest.raises(UsageError, match="no split 1,0, it has 1,1 and 2,1 and 2,0"):
        bundle.at(Split(1, 0))


def test_a_bundle_of_one_split_is_that_one(folder) -> None:
    bundle = load_bundle(folder)
    assert bundle.manifest.choices == (Split(1, 1),)
    assert bundle.at(Split(1, 1)) == bundle
    with pytest.raises(UsageError, match="no split 2,2, it has 1,1"):
        bundle.at(Split(2, 2))


@pytest.mark.parametrize(
    ("further", "reason"),
    [
        (_one(2, 1, "head-9", "tail"), "2,1 in 'splits': there is no graph 'head-9'"),
        (_one(2, 1, "head-2", "tail-9"), "no graph 'tail-9'"),
        (_one(2, 1, "head", "tail"), "'head' has 1 layers, not 2"),
        (_one(2, 1, "head-2", "tail-0"), "'tail-0' has 0 layers, not 1"),
        (_one(4, 0, "head-4", "tail-0"), "leave the trunk at least 1"),
        (_one(-1, 0, "head", "tail-0"), "both must be at least 0"),
        (_one(1, 1, "head", "tail"), "it is listed twice"),
        (_one(1, 2, "head", "head-2"), "'head-2' for a head and for a tail"),
    ],
)
def test_splits_that_do_not_fit(folder, further, reason) -> None:
    _offer(folder, FIRST, _one(2, 0, "head-2", "tail-0"), further)
    with pytest.raises(ManifestInvalid, match=reason):
        load_bundle(folder)


@pytest.mark.parametrize(
    "only", [_one(2, 1, "head-2", "tail"), _one(1, 0, "head", "tail-0")], ids=["head", "tail"]
)
def test_splits_without_the_manifests_own(folder, only) -> None:
    _offer(folder, only)
    with pytest.raises(ManifestInvalid, match="lacks the split 1,1"):
        load_bundle(folder)


@pytest.mark.parametrize("splits", [5, [5], [{"split": {}, "head": "head"}], {"a": 1}])
def test_malformed_splits(folder, splits) -> None:
    _edit(folder, splits=splits)
    with pytest.raises(ManifestInvalid):
        load_bundle(folder)
