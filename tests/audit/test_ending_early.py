from __future__ import annotations

import pathlib

import pytest

from audit.reporting.markdown import as_markdown
from audit.results_file import AuditResults
from audit.text_audit import audit_text
from audit.text_plan import TextPlan
from lambda_split.partition import open_checkpoint
from lambda_split.split import Split
from tests.tiny_models import save_tiny


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny("llama", folder)
    text = folder / "texts.txt"
    text.write_text("\n\n".join(f"{n * 7919} is the number {'of it ' * 60}" for n in range(12)))
    return open_checkpoint(str(folder)), text


PLAN = TextPlan(
    splits=(Split(1, 1), Split(2, 1)),
    defences=(),
    prompts=2,
    prompt_tokens=8,
    reply_tokens=2,
    measured=2,
    known_positions=(),
)


def stop_at(name):
    def progress(now: str, _share: float) -> None:
        if name in now:
            raise KeyboardInterrupt

    return progress


def test_what_was_found_until_ctrl_c_is_kept(tiny) -> None:
    checkpoint, text = tiny
    audit = audit_text(checkpoint, pathlib.Path(text), PLAN, progress=stop_at("2+1"))
    assert {one.setting.head_layers for one in audit.findings} == {1}
    assert audit.left_out == ("search, tail and replay at 2+1 layers",)
    report = as_markdown(AuditResults(text=audit))
    assert "**Ended early.** Not tried: search, tail and replay at 2+1 layers." in report


def test_before_anything_was_found_it_simply_ends(tiny) -> None:
    checkpoint, text = tiny
    with pytest.raises(KeyboardInterrupt):
        audit_text(checkpoint, pathlib.Path(text), PLAN, progress=stop_at("1+1"))


def test_to_the_end_nothing_is_left_out(tiny) -> None:
    checkpoint, text = tiny
    audit = audit_text(checkpoint, pathlib.Path(text), PLAN, progress=lambda _name, _share: None)
    assert audit.left_out == ()
    assert {one.setting.head_layers for one in audit.findings} == {1, 2}
