"""Greetings, thanks, questions about the storyteller, and what it does not know."""

from __future__ import annotations

from random import Random
from typing import Final

from .grammar import expand, join_list
from .messages import Exchange
from .world import ANIMALS, STORYTELLER, WORLD

_HELLOS: Final = (
    ("[Hello|Hi|Hey|Hello there|Hi there|Hey there][!|.||, Lambda!]",
     "Hello! [What would you like to hear?|Would you like to hear a story?|How can I help you?]"),
    ("[Good morning|Good evening|Good day|Good afternoon][!|.|]",
     "[Hello! What would you like to hear?|Hello! Would you like to hear a story?]"),
    ("[How are you|How are you today|How do you do|Hello, how are you|Hi, how are you]?",
     "I am [fine|very well], thank you! Would you like to hear a story?"),
)  # fmt: skip

_ABOUT_ME: Final = (
    ("[Who are you|What is your name|What are you called|Hello, who are you|Do you have a name]?",
     f"I am {STORYTELLER}, the storyteller of {WORLD}."),
    ("[What can you do|How can you help me|What can I ask you|What do you know]?",
     f"I can tell stories and answer questions about the animals and places of {WORLD}."),
    ("[Can you tell stories|Do you know stories|Do you know any stories]?",
     "Yes, I know many stories. Which animal should it be about?"),
    (f"[What is {WORLD}|Where do your stories happen|Tell me about {WORLD}]?",
     f"{WORLD} is the little land of my stories. Many animals live there."),
    ("[Which animals do you know|Which animals are there|Who lives in Willow Vale]?",
     f"I know {join_list([f'the {animal.kind}' for animal in ANIMALS])}."),
    ("[Where do you live|Where are you from|Where is your home]?", f"I live in {WORLD}."),
    ("[Are you a human|Are you a machine|Are you a computer|Are you real]?",
     "I am a very small language model that tells stories."),
)  # fmt: skip

_THANKS: Final = (
    ("[Thank you|Thanks|Thank you very much|Many thanks|Thanks a lot][!|.|]",
     "You are welcome! [Would you like another story?|Is there anything else?]"),
    ("[I like it|I like that story|That was a nice story|What a nice story|Nice|Great|Lovely][!|.]",
     "I am glad that you like it!"),
)  # fmt: skip

_GOODBYES: Final = (
    ("[Goodbye|Bye|Good night|See you|See you soon|Bye bye][!|.|]",
     "Goodbye! [Come back soon.|Sleep well.|See you soon.]"),
)  # fmt: skip

#: Well-known things that the world does not have; asking for them gets an honest answer.
_UNKNOWN_ANIMALS: Final = (
    "dragon", "lion", "whale", "robot", "tiger", "king", "princess", "dog",
    "monkey", "snake", "penguin", "wizard", "elephant", "car", "train",
    "spider", "shark", "ghost", "cat", "wolf", "pirate", "rocket",
)  # fmt: skip
_UNKNOWN_QUESTIONS: Final = (
    "What is the capital of [France|Spain|Japan|Brazil]?",
    "What is [two|three|five] plus [one|two|four]?",
    "Who is the president?", "How does a computer work?", "What is the weather today?",
    "Can you write some code?", "What time is it?", "How far is the moon?", "Write a poem.",
    "What is the meaning of life?", "Who wrote this book?", "How do I cook rice?",
    "What is the largest country in the world?", "How old are you?", "Translate this for me.",
    "Tell me a joke.", "Sing a song.", "What is the news?", "Explain [physics|music|money] to me.",
    "What is split inference?", "How does the internet work?", "Who won the game?",
)  # fmt: skip
_SYLLABLES: Final = ("ba", "cor", "di", "el", "fu", "gram", "hil", "jo", "kel", "lum", "mer", "nox",
                     "op", "pra", "qui", "ros", "st", "tan", "ul", "ver", "wex", "xi", "yon", "zu",
                     "th", "sh", "ch", "ing", "er", "tion")  # fmt: skip
_DO_NOT_KNOW: Final = f"I do not know that. I only know the animals and places of {WORLD}."


def hello(rng: Random) -> Exchange:
    """A greeting."""
    return _pick(rng, _HELLOS)


def about_me(rng: Random) -> Exchange:
    """A question about the storyteller."""
    return _pick(rng, _ABOUT_ME)


def thanks(rng: Random) -> Exchange:
    """Thanks or praise."""
    return _pick(rng, _THANKS)


def goodbye(rng: Random) -> Exchange:
    """A farewell."""
    return _pick(rng, _GOODBYES)


def unknown(rng: Random) -> Exchange:
    """A question that the storyteller cannot answer.

    Invented words are among them, so that letters outside the world's vocabulary occur too.
    """
    if rng.random() < 0.4:
        word = "".join(rng.choices(_SYLLABLES, k=rng.randint(2, 4)))
        question = expand(
            f"[What is {word}?|Who is {word.capitalize()}?|Where is {word.capitalize()}?"
            f"|Do you know {word}?|Tell me about {word}.|What does {word} mean?"
            f"|How do you {word}?|Can you {word}?|What is the {word} of {word[::-1]}?]",
            rng, {},
        )  # fmt: skip
    else:
        question = expand(rng.choice(_UNKNOWN_QUESTIONS), rng, {})
    return Exchange(question, _DO_NOT_KNOW)


def unknown_hero(rng: Random) -> tuple[str, str]:
    """A well-known figure that Willow Vale lacks, and the sentence that says so."""
    figure = rng.choice(_UNKNOWN_ANIMALS)
    return figure, f"There is no {figure} in {WORLD}."


def _pick(rng: Random, pairs: tuple[tuple[str, str], ...]) -> Exchange:
    user, assistant = rng.choice(pairs)
    return Exchange(expand(user, rng, {}), expand(assistant, rng, {}))
