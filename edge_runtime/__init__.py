"""The device side of Λ-Split: head, tail, sampling and the session, without torch.

::

    from edge_runtime import TextGenerator

    with TextGenerator.open("bundle/", "wss://trunk.example:8765", token=token) as llm:
        for piece in llm.stream("Once upon a time", max_new_tokens=64):
            print(piece, end="")
"""

from edge_runtime.chat import Message
from edge_runtime.generator import GenerationResult, TextGenerator, TextStream
from edge_runtime.graphs import RuntimeSettings
from edge_runtime.replay import RetryPolicy
from edge_runtime.sampling import SamplingSettings
from edge_runtime.stats import GenerationStats

__all__ = [
    "GenerationResult",
    "GenerationStats",
    "Message",
    "RetryPolicy",
    "RuntimeSettings",
    "SamplingSettings",
    "TextGenerator",
    "TextStream",
]
