from __future__ import annotations

import pytest

from audit.report import as_html, as_markdown, defence_sentence
from audit.results import (
    SCHEMA,
    Cost,
    Finding,
    SettingRecord,
    TextAudit,
    read_results,
    write_results,
)
from audit.scores import Estimate
from audit.summary import best_point, curves, verdict
from lambda_split.errors import OutputNotWritable, UsageError


def setting(defence="none", strength=0.0, seed=0, ends="public"):
    return SettingRecord(
        head_layers=1,
        tail_layers=1,
        codec="fp16",
        defence=defence,
        strength=strength,
        seed=seed,
        ends=ends,
    )


def finding(share, where, adversary="open-weights", target="prompt", **more):
    fields = {"attack": "vocabulary search", "bleu": 50.0, "tokens": 100, "texts": 4, "seconds": 1}
    return Finding(
        setting=where,
        adversary=adversary,
        target=target,
        recovered=Estimate(share, share - 0.1, share + 0.1),
        **(fields | more),
    )


def cost(perplexity, where, baseline=2.0):
    return Cost(
        setting=where,
        perplexity=perplexity,
        baseline=baseline,
        bytes_per_token=384,
        device_s=0.001,
        epsilon=None,
    )


def audit(findings, costs):
    return TextAudit(
        schema=SCHEMA,
        producer="lambda-split 0",
        model="model",
        fingerprint="0" * 32,
        layer_count=8,
        hidden_size=192,
        text="text.txt",
        findings=tuple(findings),
        costs=tuple(costs),
        seconds=3.0,
    )


WEAK, STRONG = setting("gaussian", 1.0), setting("gaussian", 2.0)
STRONG_TOO = setting("gaussian", 2.0, seed=1)
SAMPLE = audit(
    [
        finding(0.0, setting(), "tls-tapper", attack="guess"),
        finding(1.0, setting(), example=("<b>secret</b>", "secret?")),
        finding(0.97, setting(), target="reply", attack="public tail"),
        finding(0.6, setting(), "trunk-only", attack="learned inverter", known_positions=1000),
        finding(0.9, WEAK),
        finding(0.5, STRONG),
        finding(0.7, STRONG, "trunk-only", attack="learned inverter"),
        finding(0.3, STRONG_TOO),
    ],
    [cost(2.0, setting()), cost(2.06, WEAK), cost(3.0, STRONG), cost(5.0, STRONG_TOO)],
)


def test_they_are_read_as_they_were_written(tmp_path) -> None:
    write_results(tmp_path / "results.json", SAMPLE)
    assert read_results(tmp_path / "results.json") == SAMPLE
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [("{", "holds no results"), ("{}", "holds no results"), ("[" * 100_000, "holds no results")],
)
def test_what_is_no_result(tmp_path, content, complaint) -> None:
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=complaint):
        read_results(path)


def test_another_version_and_no_file(tmp_path) -> None:
    path = tmp_path / "results.json"
    with pytest.raises(UsageError, match="No such file"):
        read_results(path)
    write_results(path, SAMPLE)
    path.write_text(path.read_text().replace(f'"schema": {SCHEMA}', '"schema": 99'))
    with pytest.raises(UsageError, match="version 99"):
        read_results(path)


def test_a_folder_that_is_not_there(tmp_path) -> None:
    with pytest.raises(OutputNotWritable):
        write_results(tmp_path / "nowhere" / "results.json", SAMPLE)


def test_a_curve_has_the_best_attack_and_the_mean_over_seeds() -> None:
    none, weak, strong = curves(SAMPLE)["none"], *curves(SAMPLE)["gaussian"]
    assert (none[0].recovered, none[0].rise) == (1.0, 0.0)
    assert (weak.recovered, round(weak.rise, 9)) == (0.9, 0.03)
    assert strong.recovered == pytest.approx((0.7 + 0.3) / 2)
    assert strong.spread == (0.3, 0.7)
    assert strong.rise == pytest.approx((0.5 + 1.5) / 2)


def test_the_best_point_may_cost_no_more_than_allowed() -> None:
    assert best_point(SAMPLE).strength == 1.0
    assert best_point(SAMPLE, most_rise=2.0).strength == 2.0
    assert best_point(SAMPLE, most_rise=0.01) is None


def test_what_is_said_is_what_was_found() -> None:
    assert "gaussian 1 is the best: 90% of" in defence_sentence(SAMPLE)
    assert "That is no protection." in defence_sentence(SAMPLE)
    assert "practically all of your prompt (100.0% of its tokens)" in verdict(
        SAMPLE, "open-weights"
    )
    assert "about half of your prompt" in verdict(SAMPLE, "trunk-only")
    assert "1,000 tokens" in verdict(SAMPLE, "trunk-only")
    assert "Guessing gets 0% right" in verdict(SAMPLE, "tls-tapper")


def test_without_defences_none_is_praised() -> None:
    plain = audit(SAMPLE.findings[:4], SAMPLE.costs[:1])
    assert defence_sentence(plain) == "None was tried in this audit."


def test_the_page_stands_alone_and_takes_texts_as_texts() -> None:
    page = as_html(SAMPLE)
    assert "&lt;b&gt;secret&lt;/b&gt;" in page
    for outside in ("http://", "https://", "<script", "url("):
        assert outside not in page
    assert page.count('class="card') == 3


def test_the_tables_have_a_line_for_each() -> None:
    text = as_markdown(SAMPLE)
    assert text.count("\n| 1+1 layers") == len(SAMPLE.findings) + len(SAMPLE.costs)
