"""Heads and tails compute the same in any chunks, keep the cache rule, refuse wrong graphs."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.graphs import RuntimeSettings, load_head, load_tail
from lambda_split.bundle import KVGeometry
from lambda_split.errors import GraphInvalid, ManifestInvalid, UsageError

from . import some_graphs

KINDS = ["shared-kv", "concat-kv", "none"]
ONE_THREAD = RuntimeSettings(threads=1)
CAPACITY = 48


@pytest.fixture(scope="module", params=KINDS)
def parts(request, tmp_path_factory):
    bundle = some_graphs.write_bundle(tmp_path_factory.mktemp("bundle"), request.param)
    return request.param, load_head(bundle, ONE_THREAD), load_tail(bundle, ONE_THREAD)


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=2e-4)


def some_ids(count, seed=0):
    return np.random.default_rng(seed).integers(0, some_graphs.VOCAB, size=count)


def some_hidden(count, seed=0):
    shape = (count, some_graphs.WIDTH)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("sizes", [[12], [1] * 12, [5, 1, 1, 4, 1], [1, 11]])
def test_a_head_computes_the_same_in_any_chunks(parts, sizes):
    kind, head, _ = parts
    ids = some_ids(sum(sizes))
    cache = head.new_cache(CAPACITY)
    hidden = []
    for size in sizes:
        start = sum(map(len, hidden))
        hidden.append(head.run(ids[start : start + size], start, cache).copy())
        assert hidden[-1].shape == (size, some_graphs.WIDTH)
    assert cache.length == len(ids)
    close(np.concatenate(hidden), some_graphs.expected_hidden(ids, kind))


@pytest.mark.parametrize("sizes", [[12], [1] * 12, [5, 1, 1, 4, 1], [1, 11]])
def test_a_tail_computes_the_same_in_any_chunks(parts, sizes):
    kind, _, tail = parts
    hidden = some_hidden(sum(sizes))
    expected = some_graphs.expected_logits(hidden, kind)
    cache = tail.new_cache(CAPACITY)
    start = 0
    for size in sizes:
        rows = [size - 1, 0]
        logits = tail.run(hidden[start : start + size], start, cache, rows)
        assert logits.shape == (2, some_graphs.VOCAB)
        close(logits, expected[[start + row for row in rows]])
        start += size


def test_a_tail_that_is_asked_for_no_logits_still_fills_its_cache(parts):
    kind, _, tail = parts
    hidden = some_hidden(8)
    cache = tail.new_cache(CAPACITY)
    assert tail.run(hidden[:7], 0, cache, []).shape == (0, some_graphs.VOCAB)
    close(tail.run(hidden[7:], 7, cache, [0])[0], some_graphs.expected_logits(hidden, kind)[7])


@settings(deadline=None, max_examples=40)
@given(
    steps=st.lists(
        st.tuples(st.floats(0, 1), st.integers(1, 9), st.booleans()), min_size=1, max_size=8
    )
)
def test_chunks_cut_the_cache_back_to_their_start(parts, steps):
    kind, head, _ = parts
    cache = head.new_cache(CAPACITY)
    ids = np.zeros(0, np.int64)
    for number, (where, size, by_truncating) in enumerate(steps):
        start = min(round(where * len(ids)), CAPACITY - size)
        ids = np.concatenate([ids[:start], some_ids(size, seed=number)])
        if by_truncating:
            cache.truncate(start)
            assert cache.length == start
        hidden = head.run(ids[start:], start, cache)
        close(hidden, some_graphs.expected_hidden(ids, kind)[start:])
        assert cache.length == len(ids)


def test_sessions_on_one_graph_do_not_disturb_each_other(parts):
    kind, head, _ = parts
    several = [(some_ids(10, seed=seed), head.new_cache(CAPACITY)) for seed in range(3)]
    for place in range(10):
        for ids, cache in several:
            hidden = head.run(ids[place : place + 1], place, cache)
            close(hidden[0], some_graphs.expected_hidden(ids, kind)[place])


def test_a_cache_can_be_filled_to_its_last_position(parts):
    kind, head, _ = parts
    ids = some_ids(CAPACITY)
    cache = head.new_cache(CAPACITY)
    head.run(ids[:-1], 0, cache)
    last = head.run(ids[-1:], CAPACITY - 1, cache)
    close(last[0], some_graphs.expected_hidden(ids, kind)[-1])
    with pytest.raises(UsageError, match="outside the cache's 48"):
        head.run(ids[:1], CAPACITY, cache)
    assert cache.length == CAPACITY


def test_truncating_beyond_the_length_changes_nothing(parts):
    _, head, _ = parts
    cache = head.new_cache(CAPACITY)
    head.run(some_ids(3), 0, cache)
    cache.truncate(10)
    assert cache.length == 3
    with pytest.raises(UsageError):
        cache.truncate(-1)


def test_a_gap_is_refused_where_there_are_layers(parts):
    kind, head, tail = parts
    assert head.has_layers == tail.has_layers == (kind != "none")
    cache = tail.new_cache(CAPACITY)
    hidden = some_hidden(6)
    if kind == "none":
        close(tail.run(hidden[5:], 5, cache, [0]), some_graphs.expected_logits(hidden, kind)[5:])
    else:
        with pytest.raises(UsageError, match="starts at 5, the cache holds 0"):
            tail.run(hidden[5:], 5, cache, [0])


@pytest.mark.parametrize("ids", [[-1], [some_graphs.VOCAB], [0, 999], []])
def test_a_head_refuses_what_are_no_tokens(parts, ids):
    _, head, _ = parts
    with pytest.raises(UsageError):
        head.run(np.array(ids, np.int64), 0, head.new_cache(CAPACITY))


def test_a_tail_refuses_wrong_widths_rows_and_chunks(parts):
    _, _, tail = parts
    cache = tail.new_cache(CAPACITY)
    with pytest.raises(UsageError, match="width"):
        tail.run(np.zeros((2, some_graphs.WIDTH + 1), np.float32), 0, cache, [0])
    for rows in ([2], [-1]):
        with pytest.raises(UsageError, match="rows"):
            tail.run(some_hidden(2), 0, cache, rows)
    with pytest.raises(UsageError):
        tail.run(some_hidden(0), 0, cache, [])
    with pytest.raises(UsageError, match="outside"):
        tail.run(some_hidden(1), -1, cache, [0])


def test_a_cache_of_another_graph_is_refused(parts):
    _, head, tail = parts
    with pytest.raises(UsageError, match="another graph"):
        head.run(some_ids(1), 0, tail.new_cache(CAPACITY))
    with pytest.raises(UsageError):
        head.new_cache(0)


def test_hidden_states_may_be_read_only_and_strided(parts):
    kind, _, tail = parts
    wide = some_hidden(8)
    wide.flags.writeable = False
    logits = tail.run(wide[::2], 0, tail.new_cache(CAPACITY), [3])
    close(logits[0], some_graphs.expected_logits(wide[::2], kind)[3])


def test_a_failing_run_leaves_the_cache_as_it_was(parts):
    kind, head, _ = parts
    if kind == "none":
        pytest.skip("nothing in this graph can fail")
    cache = head.new_cache(1000)
    ids = some_ids(some_graphs.POSITIONS + 1)
    head.run(ids[:4], 0, cache)
    with pytest.raises(GraphInvalid, match=r"head\.onnx"):
        head.run(ids[4:], 4, cache)  # more positions than the graph's own table has
    assert cache.length == 4
    close(head.run(ids[4:6], 4, cache), some_graphs.expected_hidden(ids[:6], kind)[4:])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_cache_takes_memory_as_it_fills(tmp_path):
    head = load_head(some_graphs.write_bundle(tmp_path, "shared-kv"), ONE_THREAD)
    head.run(some_ids(1), 0, head.new_cache(1))
    before = resident_bytes()
    cache = head.new_cache(1 << 20)  # 256 MiB in all
    head.run(some_ids(8), 0, cache)
    assert resident_bytes() - before < 4 << 20  # huge pages would take 2 MiB for each head


def resident_bytes():
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_a_cache_larger_than_the_address_space_is_refused(parts):
    kind, head, _ = parts
    if kind == "none":
        assert head.new_cache(1 << 60).length == 0
    else:
        with pytest.raises(UsageError, match="max_positions"):
            head.new_cache(1 << 60)


# --- graphs that are not what the manifest says ---------------------------------------------------


def changed(name, **fields):
    """A change to one graph's description."""

    def change(graphs):
        return graphs | {name: msgspec.structs.replace(graphs[name], **fields)}

    return change


def load_both(bundle):
    return load_head(bundle, ONE_THREAD), load_tail(bundle, ONE_THREAD)


def described(name):
    return some_graphs.description(name, "shared-kv")


def without(mapping, role):
    return {key: value for key, value in mapping.items() if key != role}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (changed("head", inputs=without(described("head").inputs, "token_ids")), "token_ids"),
        (changed("head", inputs=without(described("head").inputs, "past.0.key")), "past.0.key"),
        (changed("head", inputs=without(described("head").inputs, "start")), "'start' has no role"),
        (changed("head", inputs=described("head").inputs | {"start": "nowhere"}), "nowhere"),
        (changed("head", inputs=described("head").inputs | {"mask": "start"}), "unknown role"),
        (changed("head", inputs=described("head").inputs | {"start": "token_ids"}), "token_ids"),
        (changed("head", outputs=without(described("head").outputs, "hidden")), "hidden"),
        (changed("head", outputs=without(described("head").outputs, "present.0.value")), "present"),
        (changed("head", outputs=described("head").outputs | {"hidden": "gone"}), "gone"),
        (
            changed("head", outputs=described("head").outputs | {"present.0.value": "present_k"}),
            "two roles",
        ),
        (changed("head", kv=(KVGeometry(heads=3, head_dim=16),)), r"\[1, 3, '\?', 16\]"),
        (changed("head", kv=(some_graphs.KV, some_graphs.KV)), r"past\.1\.key"),
        (changed("head", kv=()), "unknown role"),
        (changed("tail", inputs=without(described("tail").inputs, "hidden")), "hidden"),
        (changed("tail", inputs=without(described("tail").inputs, "logit_positions")), "logit"),
        (changed("tail", inputs=described("tail").inputs | {"hidden": "start"}), "int64"),
        (changed("tail", outputs={"logits": "present_k"}), "logits|present"),
    ],
)
def test_a_manifest_that_does_not_fit_the_graph_is_refused(tmp_path, change, reason):
    bundle = some_graphs.write_bundle(tmp_path, "shared-kv", change=change)
    with pytest.raises(GraphInvalid, match=reason):
        load_both(bundle)


def test_a_graph_of_another_width_is_refused(tmp_path):
    bundle = some_graphs.write_bundle(tmp_path, "shared-kv")
    manifest = bundle.manifest
    for geometry in (
        msgspec.structs.replace(manifest.geometry, hidden_size=128),
        msgspec.structs.replace(manifest.geometry, vocab_size=41),
    ):
        other = msgspec.structs.replace(
            bundle, manifest=msgspec.structs.replace(manifest, geometry=geometry)
        )
        with pytest.raises(GraphInvalid):
            load_both(other)


def test_a_bundle_without_the_graph_is_refused(tmp_path):
    bundle = some_graphs.write_bundle(tmp_path, "none")
    manifest = msgspec.structs.replace(bundle.manifest, graphs={})
    with pytest.raises(ManifestInvalid, match="head"):
        load_head(msgspec.structs.replace(bundle, manifest=manifest), ONE_THREAD)


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x0a" * 100, "cut"])
def test_a_corrupt_file_is_refused_by_name(tmp_path, content, capfd):
    bundle = some_graphs.write_bundle(tmp_path, "shared-kv")
    file = tmp_path / "head.onnx"
    file.write_bytes(file.read_bytes()[:-200] if content == "cut" else content)
    with pytest.raises(GraphInvalid, match=r"head\.onnx"):
        load_head(bundle, ONE_THREAD)
    assert capfd.readouterr().err == ""


def test_missing_external_weights_are_refused(tmp_path):
    bundle = some_graphs.write_bundle(tmp_path, "shared-kv")
    onnx.save(
        some_graphs.head_model("shared-kv"),
        tmp_path / "head.onnx",
        save_as_external_data=True,
        location="head.data",
        size_threshold=0,
    )
    load_head(bundle, ONE_THREAD)
    (tmp_path / "head.data").unlink()
    with pytest.raises(GraphInvalid, match=r"head\.onnx"):
        load_head(bundle, ONE_THREAD)


# --- settings -------------------------------------------------------------------------------------


def test_by_default_threads_are_the_cores_but_at_most_four():
    assert RuntimeSettings().thread_count() == min(4, len(os.sched_getaffinity(0)))
    assert RuntimeSettings(threads=7).thread_count() == 7
    assert RuntimeSettings().spinning is False


@pytest.mark.parametrize("threads", [0, -1, 1.5, "4", True, 10**12])
def test_what_is_no_number_of_threads_is_refused(threads):
    with pytest.raises(UsageError, match="threads"):
        RuntimeSettings(threads=threads)


def test_settings_cannot_be_changed_afterwards():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RuntimeSettings().threads = 2


def test_the_device_side_imports_without_torch():
    names = ("chat", "detokenizer", "graphs", "sampling", "stopping", "tokenizer")
    heavy = ("torch", "transformers", "onnx", "lambda_split.partition")
    program = "import sys\n" + "".join(f"import edge_runtime.{name}\n" for name in names)
    program += f"print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
