"""What is measured, from what was asked for."""

import pathlib

import pytest

from bench.cases import LINKS, LOOPBACK, MODES, Case, Link, parse_link
from bench.plan import contexts, edge_splits, estimate_s, plan, symmetric_splits
from bench.request import Request, settings_for
from bench.running import splits_of
from bench.serving import service_of
from lambda_split.errors import PromptTooLong, UsageError
from lambda_split.split import Split
from tests.bench.figures import LAN, MOBILE, MODEL, settings


def _request(**changes):
    return Request(
        **{
            "links": LINKS,
            "prompt_tokens": 32,
            "max_new_tokens": 32,
            "repetitions": 5,
            "codec": "fp16",
            "out": pathlib.Path("somewhere"),
            **changes,
        }
    )


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (32, (Split(1, 1), Split(4, 4), Split(8, 8))),
        (17, (Split(1, 1), Split(4, 4), Split(8, 8))),
        (16, (Split(1, 1), Split(4, 4), Split(7, 7))),
        (8, (Split(1, 1), Split(3, 3))),
        (6, (Split(1, 1), Split(2, 2))),
        (3, (Split(1, 1),)),
        (2, (Split(0, 0),)),
    ],
)
def test_splits_have_fewer_layers_where_the_model_has(layers, expected):
    assert symmetric_splits((1, 4, 8), layers) == expected


@pytest.mark.parametrize("layers", [2, 3, 8])
def test_a_head_and_a_tail_are_the_cloud_model(layers):
    first, second = edge_splits(layers)
    assert [*first.head(), *second.tail(layers)] == list(range(layers))
    first.check(layers)
    second.check(layers)


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (1024, (16, 32, 64, 128, 256, 512, 1016)),
        (72, (16, 32, 64)),
        (40, (16, 32)),
        (20, (12,)),
        (8, ()),
        (0, ()),
    ],
)
def test_the_context_grows_in_powers_of_two_up_to_the_last_position(most, expected):
    assert contexts(most) == expected


def test_cases_that_take_turns_follow_each_other():
    cases = plan(
        settings(
            modes=MODES, splits=(Split(1, 1), Split(3, 3)), links=(LOOPBACK, MOBILE), max_context=40
        )
    )
    assert [(case.name, case.link and case.link.name) for case in cases] == [
        ("edge-only", None),
        ("cloud-only", "loopback"),
        ("cloud-only", "mobile"),
        ("split 1 + 1", "loopback"),
        ("split 1 + 1", "mobile"),
        ("split 1 + 1, everything again", "loopback"),
        ("split 1 + 1, everything again", "mobile"),
        ("split 1 + 1, growing context", "loopback"),
        ("split 1 + 1, growing context", "mobile"),
        ("split 1 + 1, everything again, growing context", "loopback"),
        ("split 1 + 1, everything again, growing context", "mobile"),
        ("split 3 + 3", "loopback"),
        ("split 3 + 3", "mobile"),
        ("split 3 + 3, everything again", "loopback"),
        ("split 3 + 3, everything again", "mobile"),
    ]
    assert splits_of(cases, 8) == (Split(7, 0), Split(0, 1), Split(1, 1), Split(3, 3))
    assert splits_of(cases[1:5], 8) == (Split(1, 1),)
    services = [service_of(case) for case in cases]
    assert services == [
        "nothing",
        "cloud-only",
        "cloud-only",
        *[Split(1, 1)] * 8,
        *[Split(3, 3)] * 4,
    ]


def test_a_slow_link_and_a_long_context_take_longer():
    def estimate(**changes):
        case = Case(**{"mode": "split", "split": Split(1, 1), "link": LOOPBACK, **changes})
        return estimate_s(case, settings(max_new_tokens=10, repetitions=2, max_context=72))

    assert estimate() == pytest.approx(4 + 20 * 0.008)
    assert estimate(link=MOBILE) == pytest.approx(4 + 20 * 0.068)
    assert estimate(growth=True) == pytest.approx(4 + 9 * 3 * 0.008)
    assert estimate(growth=True, mode="split-everything") > estimate(growth=True)
    assert estimate(mode="cloud-only", split=None, link=MOBILE) == estimate()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("loopback", LOOPBACK),
        ("lan", LAN),
        ("mobile", MOBILE),
        ("rtt=80ms,up=20Mbit", Link("rtt=80ms,up=20Mbit", "rtt=80ms,up=20Mbit")),
    ],
)
def test_links_have_names_or_descriptions(text, expected):
    assert parse_link(text) == expected


@pytest.mark.parametrize("text", ["", " ", ","])
def test_a_link_is_not_empty(text):
    with pytest.raises(UsageError, match="not empty: 'loopback'"):
        parse_link(text)


def test_a_link_that_makes_no_sense():
    with pytest.raises(UsageError, match="the link 'rtt=80': '80' is not a number"):
        parse_link("rtt=80")


def test_settings_follow_from_the_model():
    found = settings_for(_request(), MODEL, None)
    assert found.modes == MODES
    assert found.splits == (Split(1, 1), Split(3, 3))
    assert (found.server, found.weights, found.max_context) == ("own", "int4", 1024)
    assert found.dtype == "auto"


def test_a_bundle_brings_its_splits_and_weights():
    request = _request(bundle="folder", url="ws://127.0.0.1:1")
    found = settings_for(request, MODEL, ((Split(2, 1), Split(1, 1)), "int8"))
    assert found.modes == ("split", "split-everything")
    assert found.splits == (Split(2, 1), Split(1, 1))
    assert (found.server, found.weights) == ("given", "int8")


def test_without_a_split_no_split_is_measured():
    found = settings_for(_request(modes=("edge-only", "cloud-only")), MODEL, None)
    assert (found.splits, found.max_context) == ((), 0)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"max_new_tokens": 1}, "must be 2 or more"),
        ({"bundle": "folder"}, "both --bundle and --url"),
        ({"url": "ws://127.0.0.1:1"}, "both --bundle and --url"),
        ({"model": "demo", "bundle": "folder", "url": "ws://127.0.0.1:1"}, "give MODEL, or"),
        ({"token_file": "file"}, "give --url"),
        ({"bundle": "folder", "url": "wss://host:1"}, "must begin with ws://"),
        (
            {"bundle": "folder", "url": "ws://127.0.0.1:1", "modes": ("edge-only",)},
            "--modes can be split and",
        ),
        (
            {"bundle": "folder", "url": "ws://127.0.0.1:1", "depths": (4,)},
            "--splits is not for --bundle",
        ),
        (
            {"bundle": "folder", "url": "ws://127.0.0.1:1", "weights": "fp16"},
            "--weights is not for --bundle",
        ),
        (
            {"bundle": "folder", "url": "ws://127.0.0.1:1", "dtype": "bfloat16"},
            "--dtype is not for --bundle",
        ),
    ],
)
def test_arguments_that_contradict_each_other(changes, complaint):
    with pytest.raises(UsageError, match=complaint):
        _request(**changes)


@pytest.mark.parametrize(
    ("changes", "error", "complaint"),
    [
        ({"prompt_tokens": 1000}, PromptTooLong, "1,032 tokens .* 1,024 positions: take less"),
        ({"max_context": 1025}, UsageError, "the model has 1024 positions"),
        ({"max_context": 8}, UsageError, "0, or more than 8"),
    ],
)
def test_what_the_model_has_no_positions_for(changes, error, complaint):
    with pytest.raises(error, match=complaint):
        settings_for(_request(**changes), MODEL, None)
