"""Tokenizer, chat template, stop tokens and generation defaults reach the bundle."""

from __future__ import annotations

import json
import shutil

import pytest

from export.text_settings import read_text_files, write_text_files
from export.tokenizer_file import read_tokenizer
from lambda_split.bundle import GenerationDefaults
from lambda_split.errors import CheckpointInvalid
from lambda_split.partition import open_checkpoint


@pytest.fixture
def folder(checkpoint_folder, tmp_path):
    """A copy of a checkpoint, to be changed."""
    copy = shutil.copytree(checkpoint_folder("llama"), tmp_path / "model")
    (copy / "generation_config.json").unlink(missing_ok=True)
    return copy


def _write(folder, tmp_path):
    checkpoint = open_checkpoint(str(folder))
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    files = read_text_files(checkpoint, read_tokenizer(checkpoint))
    write_text_files(files, out)
    return files.settings, out


def _edit(path, **changes) -> None:
    value = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**value, **changes}))


def test_the_tokenizer_is_copied_byte_by_byte(folder, tmp_path) -> None:
    settings, out = _write(folder, tmp_path)
    assert settings.tokenizer == "tokenizer.json"
    assert (out / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def test_special_tokens_are_texts_however_they_are_written(folder, tmp_path) -> None:
    _edit(folder / "tokenizer_config.json", bos_token={"content": "<s>", "lstrip": False})
    settings, _ = _write(folder, tmp_path)
    assert settings.special_tokens["bos_token"] == "<s>"
    assert settings.special_tokens["eos_token"] == "</s>"


@pytest.mark.parametrize("where", ["file", "config", "named", "json"])
def test_the_chat_template_is_found_wherever_it_is(folder, tmp_path, where) -> None:
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    if where == "file":
        (folder / "chat_template.jinja").write_text(template)
    elif where == "config":
        _edit(folder / "tokenizer_config.json", chat_template=template)
    elif where == "named":
        several = [
            {"name": "tool_use", "template": "no"},
            {"name": "default", "template": template},
        ]
        _edit(folder / "tokenizer_config.json", chat_template=several)
    else:
        _edit(folder / "chat_template.json", chat_template=template)
    settings, out = _write(folder, tmp_path)
    assert settings.chat_template == "chat_template.jinja"
    assert (out / "chat_template.jinja").read_text() == template


def test_a_model_without_template_has_none(folder, tmp_path) -> None:
    settings, out = _write(folder, tmp_path)
    assert settings.chat_template is None
    assert [path.name for path in out.iterdir()] == ["tokenizer.json"]


def test_stop_tokens_come_from_every_place_that_names_them(folder, tmp_path) -> None:
    tokenizer = read_tokenizer(open_checkpoint(str(folder))).tokenizer
    tokenizer.add_special_tokens(["<|im_end|>"])
    tokenizer.add_tokens(["<unrelated>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    end_of_turn = tokenizer.token_to_id("<|im_end|>")
    _edit(folder / "generation_config.json", eos_token_id=[7, 2, 5000, True])
    _edit(folder / "config.json", eos_token_id=9)
    assert end_of_turn > 9
    settings, _ = _write(folder, tmp_path)
    assert settings.stop_token_ids == (2, 7, 9, end_of_turn)


def test_a_single_stop_token_may_be_a_number(folder, tmp_path) -> None:
    _edit(folder / "generation_config.json", eos_token_id=11)
    settings, _ = _write(folder, tmp_path)
    assert settings.stop_token_ids == (2, 11)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({}, GenerationDefaults()),
        # As in the library, a temperature without do_sample has no effect.
        ({"temperature": 0.6}, GenerationDefaults()),
        ({"repetition_penalty": 1.1}, GenerationDefaults(repetition_penalty=1.1)),
        ({"do_sample": True}, GenerationDefaults(temperature=1.0, top_k=50)),
        (
            {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.9, "min_p": 0.05},
            GenerationDefaults(temperature=0.6, top_k=20, top_p=0.9, min_p=0.05),
        ),
        # Other engines write -1 for "off"; all of the vocabulary is the same.
        ({"do_sample": True, "top_k": -1}, GenerationDefaults(temperature=1.0)),
        ({"do_sample": True, "top_k": 10**9}, GenerationDefaults(temperature=1.0, top_k=320)),
        ({"do_sample": True, "top_k": 40.0}, GenerationDefaults(temperature=1.0, top_k=40)),
        ({"do_sample": None, "top_p": None, "repetition_penalty": None}, GenerationDefaults()),
    ],
)
def test_generation_defaults_are_those_of_the_authors(folder, tmp_path, written, expected) -> None:
    _edit(folder / "generation_config.json", **written)
    assert _write(folder, tmp_path)[0].generation == expected


@pytest.mark.parametrize(
    "written",
    [
        '"temperature": 1e999',
        '"temperature": NaN',
        '"temperature": -1',
        '"temperature": true',
        '"temperature": "0.7"',
        f'"temperature": {10**400}',
        '"top_k": 1e999',
        '"top_k": 1.5',
        '"top_p": 1.5',
        '"min_p": -0.1',
        '"repetition_penalty": 0',
        '"repetition_penalty": []',
    ],
)
def test_settings_that_no_device_can_use_are_refused(folder, tmp_path, written) -> None:
    (folder / "generation_config.json").write_text(f'{{"do_sample": true, {written}}}')
    with pytest.raises(CheckpointInvalid, match="generation_config"):
        _write(folder, tmp_path)


def test_a_slow_tokenizer_is_converted(checkpoint_folder, tmp_path) -> None:
    folder = shutil.copytree(checkpoint_folder("gpt2"), tmp_path / "model")
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "GPT2Tokenizer", "bos_token": "<s>", "eos_token": "</s>"})
    )
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = "\n".join(" ".join(merge) for merge in model["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    settings, out = _write(folder, tmp_path)
    assert settings.tokenizer == "tokenizer.json"
    original = read_tokenizer(open_checkpoint(str(checkpoint_folder("gpt2")))).tokenizer
    converted = type(original).from_file(str(out / "tokenizer.json"))
    text = "the quick brown fox"
    assert converted.encode(text).ids == original.encode(text).ids


def test_no_tokenizer_is_a_typed_error(folder) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointInvalid, match="no tokenizer"):
        read_tokenizer(open_checkpoint(str(folder)))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", "{}"),
        ("tokenizer_config.json", "{"),
        ("generation_config.json", "[]"),
        ("special_tokens_map.json", "nonsense"),
    ],
)
def test_malformed_files_are_typed_errors(folder, tmp_path, name, content) -> None:
    (folder / name).write_text(content)
    with pytest.raises(CheckpointInvalid, match=name):
        _write(folder, tmp_path)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x" * (1 << 20 | 1)], ids=["latin", "long"])
def test_a_chat_template_that_is_no_text_is_a_typed_error(folder, tmp_path, content) -> None:
    (folder / "chat_template.jinja").write_bytes(content)
    with pytest.raises(CheckpointInvalid, match="template"):
        _write(folder, tmp_path)


@pytest.mark.parametrize("key", ["chat_template", "bos_token"])
def test_half_a_character_is_a_typed_error(folder, tmp_path, key) -> None:
    _edit(folder / "tokenizer_config.json", **{key: "\ud800"})
    with pytest.raises(CheckpointInvalid, match="not valid Unicode"):
        _write(folder, tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        # Each makes the library's native code panic, which Python sees as no Exception.
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}},
        {"version": "9.9"},
    ],
    ids=["charsmap", "merges", "version"],
)
def test_a_tokenizer_that_cannot_be_loaded_is_a_typed_error(folder, changes) -> None:
    _edit(folder / "tokenizer.json", **changes)
    with pytest.raises(CheckpointInvalid, match="no usable tokenizer"):
        read_tokenizer(open_checkpoint(str(folder)))


@pytest.mark.parametrize(
    "changes",
    [
        {
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<gone>", "type_id": 0}}],
                "pair": [],
                "special_tokens": {},
            }
        },
        {"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "<unknown>"}},
        {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
    ],
    ids=["template", "unknown-word", "fixed-length"],
)
def test_a_tokenizer_that_fails_on_text_is_a_typed_error(folder, changes) -> None:
    _edit(folder / "tokenizer.json", added_tokens=[], **changes)
    with pytest.raises(CheckpointInvalid, match="no usable tokenizer"):
        read_tokenizer(open_checkpoint(str(folder))).encode("some text")


def test_code_of_a_checkpoint_is_neither_run_nor_asked_for(folder, tmp_path, capsys) -> None:
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    ran = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}})
    )
    with pytest.raises(CheckpointInvalid):
        read_tokenizer(open_checkpoint(str(folder)))
    assert not ran.exists()
    assert "[y/N]" not in capsys.readouterr().out
