"""What is made of measured figures: parts, spread, traffic, predictions, tables, the report."""

import io
import re

import msgspec
import pytest

from bench.cases import LOOPBACK, Case, Link
from bench.orders import Cost
from bench.parts import token_parts
from bench.prediction import link_s, predict, predictions
from bench.progress import BenchProgress, ExportStages, remaining_s
from bench.report import remove_report, report, write_report
from bench.results import Bytes
from bench.spread import Spread
from bench.tables import (
    growth_table,
    latency_table,
    markdown,
    memory_table,
    prediction_table,
    speed_table,
    traffic_table,
)
from bench.traffic import hidden_bytes, overhead, positions_crossing
from lambda_split.split import Split
from tests.bench.figures import LAN, MOBILE, growth, measurement, results, run, settings


def test_the_middle_and_how_far_apart():
    assert Spread.of([3.0, 1.0, 2.0, 10.0]) == Spread(2.5, 1.0, 10.0)
    assert Spread(0.0025, 0.001, 0.0104).text(".1f", 1000) == "2.5 (1.0 – 10.4)"


def test_costs_add_up_and_know_what_is_in_no_part():
    cost = Cost(seconds=1.0, head_s=0.1, link_s=0.2, trunk_s=0.3, tail_s=0.15, bytes_up=5)
    assert cost.rest_s == pytest.approx(0.25)
    assert (cost + cost).seconds == 2.0
    assert (cost + cost).bytes_up == 10
    # A prompt's parts work at the same time.
    assert Cost(seconds=1.0, head_s=0.7, trunk_s=0.6).rest_s == 0.0


def test_a_token_is_the_median_of_what_each_generation_took_for_one():
    parts = token_parts([run(0.004), run(0.005), run(0.009)])
    assert parts.head_s == pytest.approx(0.0004)
    assert parts.link_s == pytest.approx(0.0018)
    assert parts.trunk_s == pytest.approx(0.002)
    assert parts.tail_s == pytest.approx(0.0006)
    assert parts.rest_s == pytest.approx(0.0002)
    assert parts.seconds == pytest.approx(0.005)
    assert parts.round_trips == 1
    # Of 5,670 bytes at the socket, by the messages' share of 1,600 to 5,600.
    assert parts.up == pytest.approx(5670 * 1600 / 5600 / 4)
    assert parts.down == pytest.approx(5500 * 1560 / 5460 / 4)


def test_what_streams_sends_nothing_between_tokens():
    streamed = msgspec.structs.replace(run().rest, bytes_up=0, round_trips=0)
    parts = token_parts([run(rest=streamed)])
    assert (parts.up, parts.round_trips) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("split", "everything", "expected"),
    [
        (Split(1, 1), False, Bytes(14, 14)),
        (Split(1, 0), False, Bytes(14, 5)),
        (Split(1, 1), True, Bytes(10 + 11 + 12 + 13 + 14, 60)),
        (Split(1, 0), True, Bytes(60, 5)),
    ],
)
def test_positions_that_cross(split, everything, expected):
    assert positions_crossing(run(), split, everything=everything) == expected


def test_bytes_against_those_of_the_hidden_states():
    assert hidden_bytes(Bytes(14, 5), 192, "fp16") == Bytes(5376, 1920)
    assert hidden_bytes(Bytes(1, 1), 192, "fp32") == Bytes(768, 768)
    assert overhead(Bytes(104, 100), Bytes(100, 100)) == pytest.approx(0.02)


def test_a_link_costs_its_round_trip_and_its_bytes():
    parts = token_parts([run()])
    link = Link("", "rtt=60ms,jitter=5ms,up=20Mbit,down=50Mbit").settings
    expected = 0.065 + parts.up / 2.5e6 + parts.down / 6.25e6
    assert link_s(parts, link) == pytest.approx(expected)
    plain, full = predict(parts, link)
    assert plain == pytest.approx(1 / (0.0004 + 0.002 + 0.0006 + expected))
    # Loopback's own link and the rest of the device's time: together 0.001 s.
    assert full == pytest.approx(1 / (0.004 + expected))


def test_predictions_are_of_splits_over_links_that_are_steady():
    loopback = measurement(runs=(run(0.004), run(0.008), run(0.005)))
    slow = measurement(MOBILE, runs=(run(0.066), run(0.07), run(0.064)))
    stalls = measurement(Link("stalls", "stall=1s/10s"), runs=slow.runs)
    cloud = measurement(case=Case(mode="cloud-only", link=MOBILE))
    (found,) = predictions([loopback, slow, stalls, cloud])
    crossing_s = link_s(token_parts(loopback.runs), MOBILE.settings)
    assert (found.setting, found.link) == ("split 1 + 1", MOBILE)
    assert found.measured == pytest.approx(1 / 0.066)
    assert found.plain == pytest.approx(1 / (0.003 + crossing_s))
    assert found.full == pytest.approx(1 / (0.005 + crossing_s))
    # Round by round: 0.066 / (0.004 + 0.0605), 0.07 / (0.008 + …), 0.064 / (0.005 + …).
    assert found.full_error == pytest.approx(0.07 / (0.008 + crossing_s) - 1)
    assert found.plain_error == pytest.approx(0.066 / (0.003 + crossing_s) - 1)
    assert predictions([slow]) == ()  # nothing to predict from


def test_with_the_parts_own_times_the_pace_of_a_link_is_no_error():
    base = run(0.005)
    # Each token's trunk takes 0.007 s longer at this pace, and nothing else does.
    rest = msgspec.structs.replace(base.rest, trunk_s=base.rest.trunk_s + 4 * 0.007)
    parts = token_parts([base])
    tired = 0.005 + 0.007 + link_s(parts, MOBILE.settings)
    rest = msgspec.structs.replace(rest, seconds=4 * tired)
    own = run(tired, rest=rest)
    (found,) = predictions([measurement(runs=(base,)), measurement(MOBILE, runs=(own,))])
    assert found.full_error == pytest.approx(tired / (tired - 0.007) - 1)
    assert found.paced == pytest.approx(1 / tired)
    assert found.paced_error == pytest.approx(0, abs=1e-9)


def test_remaining_time():
    assert remaining_s(10.0, 0.0, 100.0) is None
    assert remaining_s(10.0, 25.0, 100.0) == 30.0


def test_progress_is_lines_where_there_is_no_terminal():
    stream = io.StringIO()
    progress = BenchProgress(20.0, stream)
    ExportStages(progress).stage("loading the head", 2)
    progress.done(10.0)
    progress.begin("split 1 + 1")
    progress.close()
    first, second = stream.getvalue().splitlines()
    assert first == "export: loading the head, 2 steps"
    assert re.fullmatch(r"split 1 \+ 1 \(about \d s left\)", second)


def test_tables():
    assert markdown(("a", "b"), [("x", "1")]) == "| a | b |\n|---|---:|\n| x | 1 |\n"
    each = measurement()
    assert "| split 1 + 1 | loopback | 20 (20 – 20) | 236.1 (222.2 – 250.0) |\n" in speed_table(
        [each]
    )
    assert "| split 1 + 1 | loopback | 0.40 | 1.05 | 2.00 | 0.60 | 0.20 | 4.25 |" in latency_table(
        [each]
    )
    # 14 positions of 384 bytes each way are 10,752; 11,170 crossed.
    row = "| split 1 + 1 | 5,670 | 5,500 | 14 | 14 | 10,752 | 3.9% | 5 | 1,500 | 350 |\n"
    assert traffic_table(results(each, measurement(LAN))).count(row) == 1
    assert "| split 1 + 1 | 90 | 440 |\n" in memory_table([each])
    assert "| split 1 + 1 | 90 | – |\n" in memory_table([measurement(server_peak_rss=None)])
    assert "| 16 | 16.0 | 6.4 | 6.2 |\n| 1,016 | 1016.0 | 406.4 | 396.2 |\n" in growth_table(
        [growth()]
    )
    predicted = predictions([each, measurement(LAN, runs=(run(0.0051),) * 2)])
    assert "| split 1 + 1 | LAN | 196.08 | " in prediction_table(predicted)


def test_the_report_has_a_section_for_what_was_measured(tmp_path):
    all_of_it = results(measurement(), measurement(LAN), growths=(growth(),))
    path = write_report(all_of_it, tmp_path)
    text = path.read_text(encoding="utf-8")
    assert text == report(all_of_it)
    for heading in ("Speed", "Where a token's time goes", "Traffic", "As the context grows"):
        assert f"## {heading}\n" in text
    assert "## Predicted\n" in text
    for name in ("speed", "latency", "growth"):
        assert f"({name}.png)" in text
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert str(tmp_path) not in text
    alone = report(results(measurement(LOOPBACK)))
    assert "Predicted" not in alone
    assert "context grows" not in alone
    remove_report(tmp_path)
    remove_report(tmp_path)  # there may be none
    assert list(tmp_path.iterdir()) == []


def test_of_a_server_that_was_there_already_the_report_says_what_is_known():
    own = results(measurement())
    given = msgspec.structs.replace(own, settings=settings(server="given", dtype="auto"))
    assert "in the cloud: float32 in PyTorch; fp16 on the wire" in report(own)
    assert "Device, link and server are processes of it." in report(own)
    assert "in the cloud: a server that was there already; fp16 on the wire" in report(given)
    assert "Device and link are processes of it; what lies between it and the" in report(given)
    assert "its own choice of threads on the device." in report(given)
