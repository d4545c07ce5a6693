"""Text appears token by token, in whole characters, and is the text of the whole reply."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.detokenizer import Detokenizer
from edge_runtime.tokenizer import Tokenizer

from . import some_tokenizers

kinds = pytest.mark.parametrize("kind", sorted(some_tokenizers.ALL))
texts = st.text(
    alphabet=st.one_of(
        st.sampled_from(sorted(set("".join(some_tokenizers.CORPUS)))),
        st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd\u2581"),
    ),
    max_size=30,
)


def made(kind):
    implementation = some_tokenizers.ALL[kind]()
    return Tokenizer(implementation, implementation.get_vocab_size())


def reply(tokenizer, prompt_ids, ids):
    detokenizer = Detokenizer(tokenizer, prompt_ids)
    return [detokenizer.push(token) for token in ids], detokenizer.flush()


@kinds
@settings(deadline=None, max_examples=150)
@given(text=texts, cut=st.integers(0, 200))
def test_pieces_make_up_the_reply_and_hold_whole_characters_only(kind, text, cut):
    tokenizer = made(kind)
    ids = tokenizer.encode(text)
    # Also prompts that end inside a character: then the reply is what completes it.
    prompt_ids, new_ids = ids[:cut], ids[cut:]
    pieces, rest = reply(tokenizer, prompt_ids, new_ids)
    before = tokenizer.decode(prompt_ids)
    after = tokenizer.decode(ids)
    if not after.startswith(before):
        before = before.rstrip("\ufffd")
    assert "".join(pieces) + rest == after[len(before) :]
    assert "\ufffd" not in "".join(pieces)
    if not after.endswith("\ufffd"):
        assert rest == ""


@kinds
@settings(deadline=None, max_examples=150)
@given(prompt=texts, text=texts, cut=st.integers(1, 40))
def test_a_reply_that_ends_inside_a_character_shows_that_only_at_the_end(kind, prompt, text, cut):
    tokenizer = made(kind)
    prompt_ids = tokenizer.encode(prompt)
    new_ids = tokenizer.encode(text, add_special_tokens=False)[:cut]
    pieces, rest = reply(tokenizer, prompt_ids, new_ids)
    before = tokenizer.decode(prompt_ids)
    after = tokenizer.decode([*prompt_ids, *new_ids])
    assert "\ufffd" not in "".join(pieces)
    if not rest or kind not in {"llama style", "metaspace"}:
        assert "".join(pieces) + rest == after[len(before) :]
    else:
        # Byte fallback turns a whole run of bytes into U+FFFD if the last of its characters is
        # unfinished; what was shown before stays.
        assert set(rest) == {"\ufffd"}
        whole = next(
            text
            for end in range(len(new_ids), -1, -1)
            if not (text := tokenizer.decode([*prompt_ids, *new_ids[:end]])).endswith("\ufffd")
        )
        assert "".join(pieces) == whole[len(before) :]


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_any_tokens_of_a_byte_level_tokenizer_give_their_text(data):
    tokenizer = made("byte level")
    any_ids = st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=20)
    prompt_ids, new_ids = tokenizer.encode(data.draw(texts)), data.draw(any_ids)
    pieces, rest = reply(tokenizer, prompt_ids, new_ids)
    before = tokenizer.decode(prompt_ids)
    after = tokenizer.decode([*prompt_ids, *new_ids])
    assert "".join(pieces) + rest == after[len(before) :]


@kinds
@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_any_tokens_at_all_are_taken_without_an_error(kind, data):
    tokenizer = made(kind)
    # Some ids beyond the tokenizer's own: embeddings are often padded.
    any_ids = st.lists(st.integers(0, tokenizer.vocab_size + 5), max_size=20)
    pieces, rest = reply(tokenizer, data.draw(any_ids), data.draw(any_ids))
    assert isinstance("".join(pieces) + rest, str)


@pytest.mark.parametrize("kind", ["llama style", "metaspace", "unigram"])
def test_the_first_words_space_depends_on_what_stands_before_it(kind):
    tokenizer = made(kind)
    word = tokenizer.encode("world", add_special_tokens=False)
    hello = tokenizer.encode("Hello")
    assert "".join(reply(tokenizer, [], word)[0]) == "world"
    assert "".join(reply(tokenizer, hello, word)[0]) == " world"


@kinds
def test_special_tokens_are_not_shown_and_do_not_eat_the_space_after_them(kind):
    tokenizer = made(kind)
    end = some_tokenizers.SPECIAL.index("</s>")
    ids = tokenizer.encode("Hello the world", add_special_tokens=False)
    place = len(ids) - len(tokenizer.encode(" world", add_special_tokens=False)) + 1
    with_special = [*ids[:place], end, end, *ids[place:], end]
    pieces, rest = reply(tokenizer, [], with_special)
    assert "".join(pieces) + rest == tokenizer.decode(ids)


def test_whole_characters_before_an_unfinished_one_are_shown_at_once():
    tokenizer = made("byte level")
    letter = tokenizer.encode("a")
    bytes_of = {
        byte: tokenizer._implementation.token_to_id(name)
        for byte, name in ((0xC3, "\u00c3"), (0xA9, "\u00a9"))
    }
    detokenizer = Detokenizer(tokenizer, letter)
    assert detokenizer.push(letter[0]) == "a"
    assert detokenizer.push(bytes_of[0xC3]) == ""
    assert detokenizer.push(bytes_of[0xA9]) == "é"
    assert detokenizer.push(bytes_of[0xC3]) == ""
    assert detokenizer.flush() == "\ufffd"
    assert detokenizer.flush() == ""


def test_a_damaged_character_of_byte_fallback_does_not_take_back_what_was_shown():
    tokenizer = made("llama style")
    family = tokenizer.encode("你", add_special_tokens=False)[-3:]
    letter = tokenizer._implementation.token_to_id("a")
    # 你, then a first byte without the others, then a letter: the library's decoder now gives up
    # 你 as well.
    pieces, rest = reply(tokenizer, [letter], [*family, family[0], letter])
    assert "".join(pieces) + rest == "你\ufffda"
