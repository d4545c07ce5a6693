"""The corpus: a deterministic stream of documents, and its held-out splits.

Try it:  python -m training.demo_text.corpus --documents 5
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from random import Random
from typing import Final, Literal

from .dialogue import (
    fact_dialogue,
    offered_story_dialogue,
    quiz_dialogue,
    small_talk_dialogue,
    story_dialogue,
)
from .facts import portrait
from .messages import Document
from .story import draw_cast, tell
from .world import ANIMALS

#: ``train`` and ``seen`` differ by seed only; ``unseen`` holds only stories whose (animal,
#: thing, place) no training document tells.
Split = Literal["train", "seen", "unseen"]
SPLITS: Final[tuple[Split, ...]] = ("train", "seen", "unseen")

#: Share of each kind of document, in percent of the documents (not of the tokens).
_MIX: Final = (("story", 34), ("quiz", 20), ("long", 3), ("offer", 4), ("facts", 24),
               ("small talk", 6), ("plain story", 7), ("plain facts", 2))  # fmt: skip


def documents(split: Split, seed: int = 0) -> Iterator[Document]:
    """An endless stream of documents, the same for the same split and seed.

    Args:
        split: Which side of the held-out split to draw from.
        seed: Number of the stream within the split.

    Yields:
        One document after the other.
    """
    rng = Random(f"willow-vale/{split}/{seed}")
    kinds = [kind for kind, _ in _MIX]
    weights = [weight for _, weight in _MIX]
    while True:
        # Facts and small talk have no combination, so they say nothing about the unseen split.
        kind = rng.choices(kinds, weights)[0] if split != "unseen" else "story"
        yield _document(kind, rng, held_out=split == "unseen")


def _document(kind: str, rng: Random, *, held_out: bool) -> Document:
    match kind:
        case "story" | "long":
            stories = rng.randint(3, 5) if kind == "long" else None
            document = story_dialogue(rng, held_out=held_out, stories=stories)
        case "quiz":
            document = quiz_dialogue(rng, held_out=held_out)
        case "offer":
            document = offered_story_dialogue(rng, held_out=held_out)
        case "facts":
            document = fact_dialogue(rng)
        case "small talk":
            document = small_talk_dialogue(rng)
        case "plain story":
            document = _plain_story(rng, held_out=held_out)
        case _:
            document = _plain_facts(rng)
    return document


def _plain_story(rng: Random, *, held_out: bool) -> Document:
    cast = draw_cast(rng, held_out=held_out, custom_name=rng.random() < 0.3)
    story = tell(cast, rng, short=rng.random() < 0.1)
    ending = f" {story.moral}" if rng.random() < 0.3 else ""
    words = (cast.hero.kind, cast.thing.noun, cast.place.name)
    return Document("plain-story", text=story.text + ending, combinations=(words,))


def _plain_facts(rng: Random) -> Document:
    shown = rng.sample(ANIMALS, k=rng.randint(1, 4))
    return Document("plain-facts", text=" ".join(portrait(rng, one) for one in shown))


def main() -> None:
    """Print some documents as JSON lines."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--split", choices=SPLITS, default="train", help="which side of the split")
    parser.add_argument("--seed", type=int, default=0, help="number of the stream (default 0)")
    parser.add_argument("--documents", type=int, default=5, help="how many to print (default 5)")
    arguments = parser.parse_args()
    stream = documents(arguments.split, arguments.seed)
    for _ in range(arguments.documents):
        document = next(stream)
        shown = {
            "kind": document.kind,
            **({"text": document.text} if document.text else {}),
            **({"messages": [m.as_dict() for m in document.messages]} if document.messages else {}),
        }
        print(json.dumps(shown, ensure_ascii=False))


if __name__ == "__main__":
    main()
