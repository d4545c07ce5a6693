"""Stop strings end the text at the same place however it is cut into pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.stopping import Emitted, StopMatcher
from lambda_split.errors import UsageError

letters = st.text(alphabet="abc", max_size=40)


def naive(text, stop):
    """The first stop string to be complete in the whole text; the longest of several."""
    found = [(text.find(item) + len(item), text.find(item), item) for item in stop if item in text]
    if not found:
        return text, None
    _, begin, item = min(found)
    return text[:begin], item


@st.composite
def cut_texts(draw):
    text = draw(letters)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@given(
    pieces=cut_texts(), stop=st.lists(st.text(alphabet="abc", min_size=1, max_size=6), max_size=4)
)
def test_the_outcome_is_that_of_searching_the_whole_text(pieces, stop):
    matcher = StopMatcher(stop)
    shown = ""
    whole = ""
    for piece in pieces:
        whole += piece
        emitted = matcher.push(piece)
        shown += emitted.text
        assert emitted.matched == matcher.matched
        expected, matched = naive(whole, stop)
        if emitted.matched is None:
            # Not a character later than needed: held back is what a stop string may begin with.
            held = whole[len(shown) :]
            assert whole.startswith(shown)
            longest = max(
                (
                    size
                    for item in stop
                    for size in range(len(item))
                    if size <= len(whole) and whole.endswith(item[:size])
                ),
                default=0,
            )
            assert len(held) == longest
            assert matched is None
        else:
            assert (shown, emitted.matched) == (expected, matched)
    shown += matcher.flush()
    assert (shown, matcher.matched) == naive("".join(pieces), stop)


@pytest.mark.parametrize(
    ("stop", "text"), [("aab", "aaab"), ("abab!", "ababab!"), ("aabaaa", "aabaabaaa")]
)
def test_a_stop_string_that_begins_inside_its_own_failed_beginning_is_found(stop, text):
    matcher = StopMatcher([stop])
    pieces = [matcher.push(character) for character in text]
    assert pieces[-1].matched == stop
    assert "".join(piece.text for piece in pieces) == text.removesuffix(stop)


def test_a_stop_string_across_three_pieces_is_found():
    matcher = StopMatcher(["<end>"])
    assert matcher.push("hello <") == Emitted("hello ", None)
    assert matcher.push("en") == Emitted("", None)
    assert matcher.push("d> more") == Emitted("", "<end>")


def test_what_was_held_back_comes_out_when_it_goes_on_differently():
    matcher = StopMatcher(["\n\nUser:"])
    assert matcher.push("one\n\nUs") == Emitted("one", None)
    assert matcher.push("eful") == Emitted("\n\nUseful", None)
    assert matcher.flush() == ""


def test_flush_gives_the_unfinished_beginning_once():
    matcher = StopMatcher(["###"])
    assert matcher.push("a##") == Emitted("a", None)
    assert matcher.flush() == "##"
    assert matcher.flush() == ""


def test_nothing_comes_after_a_match():
    matcher = StopMatcher(["x"])
    matcher.push("ax")
    assert matcher.push("more") == Emitted("", "x")
    assert matcher.flush() == ""


def test_without_stop_strings_everything_passes_at_once():
    matcher = StopMatcher([])
    assert matcher.push("text") == Emitted("text", None)
    assert matcher.push("") == Emitted("", None)


@pytest.mark.parametrize("stop", [[""], ["a", ""], [1], "abc", None, 5])
def test_what_is_no_stop_string_is_refused(stop):
    with pytest.raises(UsageError):
        StopMatcher(stop)
