"""The demo language model: its corpus, its files, and what the shipped model says."""

from __future__ import annotations

import json
import re
from functools import cache
from itertools import islice
from pathlib import Path
from random import Random
from typing import Final

import pytest

from training.demo_text.corpus import SPLITS, Split, documents
from training.demo_text.grammar import alternatives, expand, with_article
from training.demo_text.messages import Message
from training.demo_text.prompts import test_prompts as shipped_prompts
from training.demo_text.story import Combination, draw_cast, right_answers, tell
from training.demo_text.things import THINGS
from training.demo_text.world import ANIMALS, PLACES

MODEL: Final = Path(__file__).parents[2] / "lambda_split" / "demo_models" / "text"
SIZE_LIMIT: Final = 10_000_000
FILES: Final = (
    "README.md",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "heldout.jsonl",
    "loss_curve.png",
    "model.safetensors",
    "prompts.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "training_log.json",
)


@pytest.mark.parametrize("split", SPLITS)
def test_the_same_seed_gives_the_same_documents(split: Split) -> None:
    assert list(islice(documents(split, 3), 50)) == list(islice(documents(split, 3), 50))
    assert list(islice(documents(split, 3), 50)) != list(islice(documents(split, 4), 50))


def test_held_out_combinations_are_never_in_training() -> None:
    for split in SPLITS:
        told = [c for d in islice(documents(split, 0), 3000) for c in d.combinations]
        assert len(told) > 500
        assert all(Combination(*words).held_out == (split == "unseen") for words in told)


def test_the_held_out_share_is_as_promised() -> None:
    held_out = [
        Combination(animal.kind, thing.noun, place.name).held_out
        for animal in ANIMALS
        for thing in THINGS
        for place in PLACES
    ]
    assert 0.05 < sum(held_out) / len(held_out) < 0.07


def test_dialogues_are_well_formed() -> None:
    for document in islice(documents("train", 5), 3000):
        assert bool(document.messages) != bool(document.text)
        for text in [document.text, *(message.content for message in document.messages)]:
            assert not re.search(r"[\[\]{}|<>]|  ", text), text
            assert text == text.strip()
        roles = [message.role for message in document.messages]
        if roles and roles[0] == "system":
            roles = roles[1:]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert all(message.content for message in document.messages)


def test_a_story_is_about_its_cast_and_answers_its_questions() -> None:
    rng = Random(11)
    for _ in range(300):
        cast = draw_cast(rng, custom_name=rng.random() < 0.3)
        story = tell(cast, rng)
        for word in (cast.hero.kind, cast.name, cast.friend.name, cast.thing.noun):
            assert word in story.text
        for question in story.questions:
            assert question.answer in right_answers(question.ask, cast)


def test_alternatives_are_what_expand_chooses_from() -> None:
    template = "[a|b [c|d]] [|e]x"
    rng = Random(0)
    chosen = {expand(template, rng, {}) for _ in range(200)}
    expected = {expand(one, rng, {}) for one in alternatives(template)}
    assert chosen == expected
    assert len(expected) == 6


@pytest.mark.parametrize(("noun", "expected"), [("owl", "an owl"), ("fox", "a fox")])
def test_articles(noun: str, expected: str) -> None:
    assert with_article(noun) == expected


def test_the_shipped_files_are_all_there_and_small() -> None:
    assert {path.name for path in MODEL.iterdir()} == set(FILES)
    assert sum(path.stat().st_size for path in MODEL.iterdir()) <= SIZE_LIMIT
    held_out = (MODEL / "heldout.jsonl").read_text(encoding="utf-8")
    assert len(held_out.encode()) <= 60_000
    assert 50 <= len(held_out.splitlines()) <= 60
    assert json.loads((MODEL / "prompts.json").read_text()) == shipped_prompts()
    assert len(shipped_prompts()) == 20


def test_no_shipped_text_names_a_folder_of_this_machine() -> None:
    for path in MODEL.iterdir():
        if path.suffix in {".json", ".md", ".jinja", ".jsonl"}:
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"/(home|root|work|tmp|Users)/", text), path.name


@cache
def _teller():  # type: ignore[no-untyped-def] # Torch is imported only where a model is needed.
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from training.demo_text.chat import Storyteller

    return Storyteller.load(MODEL)


def test_a_second_turn_only_appends_to_the_rendering() -> None:
    tokenizer = _teller().tokenizer
    chat = [message.as_dict() for message in next(_chats(3)).messages]
    system = [{"role": "system", "content": "Be brief."}]
    for messages in (chat, system + chat):
        start = len(messages) - len(chat)
        asked = tokenizer.apply_chat_template(
            messages[: start + 1], tokenize=False, add_generation_prompt=True
        )
        longer = tokenizer.apply_chat_template(
            messages[: start + 3], tokenize=False, add_generation_prompt=True
        )
        prefix = asked + messages[start + 1]["content"] + "<|end|>"
        assert longer.startswith(prefix)
        ids, more = (
            tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prefix, longer)
        )
        assert more[: len(ids)] == ids


def test_an_unknown_role_is_refused() -> None:
    with pytest.raises(Exception, match="Unknown role"):
        _teller().tokenizer.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)


def test_any_text_survives_the_tokenizer() -> None:
    tokenizer = _teller().tokenizer
    text = "Grüße aus Willow Vale: 42 × λ — «ok»!\n\tEnd."
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


@pytest.mark.parametrize(
    ("animal", "thing"), [("fox", "lantern"), ("owl", "bell"), ("bear", "kite"), ("frog", "drum")]
)
def test_a_story_is_about_what_was_asked(animal: str, thing: str) -> None:
    wish = f"Tell me a story about {with_article(animal)} and {with_article(thing)}."
    story = _teller().answer([Message("user", wish)])
    assert animal in story
    assert thing in story
    assert story.endswith(".")


@pytest.mark.parametrize("number", [15, 16, 17, 18, 19])
def test_a_follow_up_is_answered_from_the_story(number: int) -> None:
    expected = {15: "lantern", 16: "otter", 17: "Windy Hill", 18: "drum", 19: "happy"}[number]
    prompt = shipped_prompts()[number - 1]["messages"]
    assert isinstance(prompt, list)
    messages = [Message(entry["role"], entry["content"]) for entry in prompt]
    assert expected in _teller().answer(messages, 40)


def test_facts_are_known() -> None:
    assert "Silver River" in _teller().answer([Message("user", "Where does the otter live?")])
    assert "honey" in _teller().answer([Message("user", "What does the bear eat?")])


def test_plain_text_is_completed() -> None:
    _, story = _teller().complete("Once upon a time")
    assert len(story.split()) > 30


def test_perplexity_is_what_the_log_says() -> None:
    from tokenizers import Tokenizer

    from training.demo_text.heldout import read_held_out
    from training.demo_text.perplexity import perplexity
    from training.demo_text.tokenizer import render

    model = _teller().model
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    texts = [
        tokenizer.encode(render(document), add_special_tokens=False).ids
        for document in read_held_out(MODEL / "heldout.jsonl")
    ]
    log = json.loads((MODEL / "training_log.json").read_text())
    logged = log["evaluation"]["held_out_perplexity"]["heldout_jsonl"]
    assert perplexity(model, texts).value == pytest.approx(logged, rel=0.02)


def _chats(turns: int):  # type: ignore[no-untyped-def]
    """Chats without a system message and with at least so many turns."""
    return (
        document
        for document in documents("train", 2)
        if len(document.messages) >= 2 * turns and document.messages[0].role == "user"
    )
