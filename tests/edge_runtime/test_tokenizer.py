"""Loading a tokenizer, and refusing tokens that the model does not know."""

import base64
import json

import pytest

from edge_runtime.tokenizer import Tokenizer
from lambda_split.errors import TokenizerInvalid, UsageError

from . import some_tokenizers


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(some_tokenizers.unigram().to_str())
    return path


def test_a_loaded_tokenizer_encodes_and_decodes(file):
    tokenizer = Tokenizer.load(file, 300)
    ids = tokenizer.encode("Hello, world!")
    assert ids == some_tokenizers.unigram().encode("Hello, world!").ids
    assert tokenizer.decode(ids) == "Hello, world!"


def test_special_tokens_are_added_on_demand_only(file):
    tokenizer = Tokenizer.load(file, 300)
    start = some_tokenizers.SPECIAL.index("<s>")
    plain = tokenizer.encode("Hello", add_special_tokens=False)
    assert tokenizer.encode("Hello") == [start, *plain]
    assert start not in plain
    assert tokenizer.decode([start, *plain], skip_special_tokens=False).startswith("<s>")


def test_truncation_and_padding_in_the_file_have_no_effect(file):
    content = json.loads(file.read_text())
    content["truncation"] = {
        "direction": "Right",
        "max_length": 3,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    content["padding"] = {
        "strategy": {"Fixed": 64},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<unk>",
    }
    file.write_text(json.dumps(content))
    text = "The quick brown fox jumps over the lazy dog."
    ids = some_tokenizers.unigram().encode(text).ids
    assert len(ids) > 3
    assert Tokenizer.load(file, 300).encode(text) == ids


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe{}",
        b'{"version":"1.0","model":{}}',
        b'{"version":"9.0"}',
        b'{"version":"1.0","model":{"type":"BPE","vocab":{"a":0},"merges":["a b"]}}',
        b"[" * 100_000,
    ],
)
def test_a_malformed_file_is_refused(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(TokenizerInvalid, match=r"tokenizer\.json"):
        Tokenizer.load(path, 300)


BYTES = base64.b64encode(b"\xff\xff\xff\x7f1234").decode()
START_TOKEN = [
    {"SpecialToken": {"id": "<s>", "type_id": 0}},
    {"Sequence": {"id": "A", "type_id": 0}},
]
# What makes the library's own code fail, some of it by a panic, which is no Exception in Python.
FAILS_WHEN_LOADED = {
    "charsmap": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": BYTES}},
    "prefix": {
        "model": {
            "type": "BPE",
            "vocab": {"a": 0, "b": 1, "ab": 2},
            "merges": ["a b"],
            "continuing_subword_prefix": "########",
        }
    },
}
FAILS_WHEN_USED = {
    "no unknown token": {
        "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "<unk>"},
    },
    "no start token": {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": START_TOKEN,
            "pair": [],
            "special_tokens": {},
        },
    },
    "pieces of nothing": {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
}


def _write(path, changes):
    model = {"type": "WordLevel", "vocab": {"hello": 0, "<unk>": 1}, "unk_token": "<unk>"}
    path.write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model, **changes}))
    return path


@pytest.mark.parametrize("kind", FAILS_WHEN_LOADED)
def test_a_file_that_makes_the_library_panic_is_refused(tmp_path, kind):
    path = _write(tmp_path / "tokenizer.json", FAILS_WHEN_LOADED[kind])
    with pytest.raises(TokenizerInvalid, match=r"tokenizer\.json"):
        Tokenizer.load(path, 300)


@pytest.mark.parametrize("kind", FAILS_WHEN_USED)
def test_a_file_that_fails_on_a_text_is_refused(tmp_path, kind):
    tokenizer = Tokenizer.load(_write(tmp_path / "tokenizer.json", FAILS_WHEN_USED[kind]), 300)
    with pytest.raises(TokenizerInvalid, match=r"tokenizer\.json"):
        tokenizer.encode("hello world")


def test_an_absent_file_is_refused(tmp_path):
    with pytest.raises(TokenizerInvalid):
        Tokenizer.load(tmp_path / "tokenizer.json", 300)


def test_a_huge_file_is_refused_without_reading_it(tmp_path):
    path = tmp_path / "tokenizer.json"
    with path.open("wb") as file:
        file.truncate((256 << 20) + 1)  # sparse
    with pytest.raises(TokenizerInvalid, match="larger"):
        Tokenizer.load(path, 300)


def test_a_token_that_the_model_lacks_is_refused(file):
    tokenizer = Tokenizer.load(file, 10)
    with pytest.raises(TokenizerInvalid, match="the model has 10"):
        tokenizer.encode("Hello, world!")


@pytest.mark.parametrize("ids", [[300], [-1], [0, 299, 1000]])
def test_ids_out_of_range_are_refused(file, ids):
    with pytest.raises(UsageError, match="299"):
        Tokenizer.load(file, 300).check(ids)


def test_ids_in_range_pass(file):
    Tokenizer.load(file, 300).check([0, 299])


def test_text_that_is_not_unicode_is_refused(file):
    # What Python makes of an undecodable byte on the command line.
    with pytest.raises(UsageError, match="Unicode"):
        Tokenizer.load(file, 300).encode("\udcff")
