"""Prompts: those that are shipped for tests, and those of the model card's samples."""

from __future__ import annotations

from typing import Final

from .messages import Message

#: What a user says in each sample dialogue of the model card.
SAMPLES: Final = (
    ("Tell me a story about a fox and a lantern.", "What did the fox find?", "Where did she go?",
     "How did she feel at the end?"),
    ("Hello!", "Who are you?", "Tell me a story about a bear who loses a kite.", "Who helped her?",
     "Where was it?"),
    ("Where does the otter live?", "What does he eat?", "Who is bigger, the otter or the bear?"),
    ("Can you tell me a story about a dragon?", "Yes, please!", "What was the story about?"),
    ("What is the capital of France?",),
)  # fmt: skip

_FOUND_STORY: Final = (
    "Once upon a time there was a fox named Fenna. One autumn day she went to the Windy Hill to"
    " look for some blackberries. In a small hollow she found a red lantern. On the way home she"
    " met Ollo the otter, who could not see the path in the dark. \"I can help you,\" said Fenna."
    " She lit the lantern, and soon the whole path was bright. That night Fenna felt proud."
)  # fmt: skip
_RACE_STORY: Final = (
    "There was once a hare named Hob. On a summer morning he ran a race to the Silver River with"
    " Tolo the turtle. The prize was an old drum. But then Tolo fell into a ditch. Hob turned back"
    " and helped him out. They reached the Silver River side by side and shared the drum. Hob felt"
    " happy all day long."
)

_SINGLE: Final = (
    "Tell me a story about a fox and a lantern.",
    "Tell me a story about an owl and a bell.",
    "Can you tell me a story about a mouse named Pip?",
    "I would like to hear a story about a badger in the Thorn Garden.",
    "Please tell me a short story about a frog and a drum.",
    "Tell me a story about a goat who loses a map.",
    "Make up a story about a birthday.",
    "tell me a story about a duck and a boat",
    "Where does the otter live?",
    "What does the bear eat?",
    "Tell me about the Amber Wood.",
    "Who is bigger, the mouse or the horse?",
    "Hello!",
    "What is the capital of France?",
)
_WITH_STORY: Final = (
    (_FOUND_STORY, "a fox", "What did the fox find?"),
    (_FOUND_STORY, "a fox", "Who did she meet?"),
    (_FOUND_STORY, "a fox", "Where did she go?"),
    (_RACE_STORY, "a hare", "What was the prize?"),
    (_RACE_STORY, "a hare", "How did Hob feel at the end?"),
)


def test_prompts() -> list[dict[str, object]]:
    """Twenty prompts as chat messages: single turns, follow-ups, and one with a system message."""
    chats = [[Message("user", text)] for text in _SINGLE]
    chats += [
        [
            Message("user", f"Tell me a story about {hero}."),
            Message("assistant", story),
            Message("user", question),
        ]
        for story, hero, question in _WITH_STORY
    ]
    chats.append(
        [
            Message("system", "You are Lambda, the storyteller of Willow Vale."),
            Message("user", "Could you tell me a story about a heron and a shell?"),
        ]
    )
    return [
        {"id": f"prompt-{number:02d}", "messages": [message.as_dict() for message in chat]}
        for number, chat in enumerate(chats, start=1)
    ]
