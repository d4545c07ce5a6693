"""Reading a bundle: each way it can be wrong has its own error."""

from __future__ import annotations

import json
import pathlib

import pytest

from lambda_split.bundle import (
    MANIFEST_NAME,
    SCHEMA,
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
    BundleNotFound,
    ManifestInvalid,
    PathOutsideBundle,
    SchemaUnsupported,
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
    with pytest.raises(ManifestInvalid):
        load_bundle(folder)


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
