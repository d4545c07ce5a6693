"""A device draws one of a bundle's splits for each session, and the text is what it would be."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from edge_runtime import RetryPolicy, Split, TextGenerator
from edge_runtime.drawing import draw_split
from export import ExportSettings, QuietProgress, export_bundle
from lambda_split.bundle import Bundle, load_bundle
from lambda_split.cli import main
from lambda_split.errors import SplitRefused, UsageError
from tests.edge_runtime.hostile_server import hostile_server
from tests.servers import serving

SPLITS = (Split(1, 1), Split(2, 1), Split(0, 0))
SERVED = SPLITS[:2]  # by a server with its defaults, one layer each
PROMPT = list(range(10, 60))


@pytest.fixture(scope="module")
def moving(checkpoint, tmp_path_factory) -> Bundle:
    out = tmp_path_factory.mktemp("moving") / "bundle"
    settings = ExportSettings(SPLITS[0], weights="fp32", further_splits=SPLITS[1:])
    export_bundle(str(checkpoint("llama")), out, settings, progress=QuietProgress())
    return load_bundle(out)


@pytest.fixture(scope="module")
def server(checkpoint):
    with serving(str(checkpoint("llama")), "--dtype", "float32") as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("split", SERVED, ids=str)
def test_each_split_says_what_its_own_bundle_says_to_the_bit(split, moving, bundle, server) -> None:
    found, scores = [], []
    fixed = bundle("llama", split.head_layers, split.tail_layers)
    for opened, chosen in ((moving, split), (fixed, None)):
        with TextGenerator.open(opened, server.url, codec="fp32", split=chosen) as generator:
            assert generator.split == split
            found.append(generator.generate(PROMPT, max_new_tokens=24).token_ids)
            scores.append(generator.score(PROMPT))
    assert found[0] == found[1]
    assert np.array_equal(scores[0], scores[1])


@pytest.mark.slow
def test_sessions_draw_every_split_and_a_trunk_that_lacks_layers_refuses(moving, server) -> None:
    texts: dict[Split, tuple[int, ...]] = {}
    refused: SplitRefused | None = None
    for _ in range(60):  # all three in so many draws, but for one run in 10 billion
        try:
            with TextGenerator.open(moving, server.url, codec="fp32") as generator:
                texts[generator.split] = generator.generate(PROMPT, max_new_tokens=8).token_ids
        except SplitRefused as error:
            refused = error
        if refused is not None and len(texts) == len(SERVED):
            break
    assert texts.keys() == set(SERVED)
    assert (refused.head_layers, refused.tail_layers) == (0, 0)
    assert len(set(texts.values())) == 1  # where it is cut does not change what is said


@pytest.mark.slow
def test_the_split_stays_while_the_session_does(moving) -> None:
    def script(peer) -> None:
        peer.welcome()
        if peer.number < 6:
            peer.reply(peer.forward())
            return  # the connection is closed
        peer.serve()

    retry = RetryPolicy(max_delay_s=0.05, give_up_after_s=60.0)
    with (
        hostile_server(script) as running,
        TextGenerator.open(moving, running.url, retry=retry) as generator,
    ):
        generator.generate(PROMPT, max_new_tokens=8)
        hellos = [peer.hello for peer in running.peers]
    assert len(hellos) == 7
    for hello in hellos:
        assert Split(hello.head_layers, hello.tail_layers) == generator.split


def test_another_split_is_wrong_use_and_says_which_there_are(moving) -> None:
    with pytest.raises(UsageError, match=r"no split 2,2, it has 1,1 and 2,1 and 0,0"):
        TextGenerator.open(moving, "ws://127.0.0.1:9", split=Split(2, 2))


@pytest.mark.slow
def test_commands_choose_and_tell_the_split(moving, server, capsys) -> None:
    arguments = ["generate", "--bundle", str(moving.path), "--url", server.url]
    arguments += ["--prompt", "one two", "--max-new-tokens", "2", "--json"]
    assert main([*arguments, "--split", "2,1"]) == 0
    told = json.loads(capsys.readouterr().out)["split"]
    assert told == {"head_layers": 2, "tail_layers": 1}
    assert main([*arguments, "--split", "3,3"]) == 2
    assert "no split 3,3" in capsys.readouterr().err


def test_draws_are_even_and_no_seed_repeats_them() -> None:
    runs: list[list[Split]] = []
    for _ in range(2):
        random.seed(7)
        np.random.seed(7)  # noqa: NPY002  # the global generator is what must have no effect
        runs.append([draw_split(SPLITS) for _ in range(3000)])
    assert runs[0] != runs[1]
    for split in SPLITS:
        # 8 standard deviations, each 26 of 1000
        assert 800 < runs[0].count(split) < 1200
    assert draw_split(SPLITS[:1]) == SPLITS[0]
