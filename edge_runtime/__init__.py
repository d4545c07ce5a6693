"""The device side of Λ-Split: head, tail, sampling and the session, without torch.

::

    from edge_runtime import TextGenerator

    with TextGenerator.open("bundle/", "wss://trunk.example:8765", token=token) as llm:
        for piece in llm.stream("Once upon a time", max_new_tokens=64):
            print(piece, end="")
"""

from lambda_split.telemetry import disable_telemetry

# Before any module of this package imports onnxruntime; the one side effect of an import here.
disable_telemetry()

from edge_runtime.asynchronous.pictures import AsyncImageGenerator, AsyncImageStream
from edge_runtime.asynchronous.text import AsyncTextGenerator, AsyncTextStream
from edge_runtime.chat import Message
from edge_runtime.generator import TextGenerator
from edge_runtime.graphs import RuntimeSettings
from edge_runtime.logprobs import TokenLogprobs
from edge_runtime.model import TextModel
from edge_runtime.pictures.generator import ImageGenerator
from edge_runtime.pictures.png import write_png
from edge_runtime.pictures.request import PictureSpec
from edge_runtime.pictures.stream import ImageResult, ImageStats, ImageStep, ImageStream
from edge_runtime.retry import RetryPolicy
from edge_runtime.sampling import SamplingSettings
from edge_runtime.stats import GenerationStats
from edge_runtime.stream import GenerationResult, TextStream
from lambda_split.split import Split

__all__ = [
    "AsyncImageGenerator",
    "AsyncImageStream",
    "AsyncTextGenerator",
    "AsyncTextStream",
    "GenerationResult",
    "GenerationStats",
    "ImageGenerator",
    "ImageResult",
    "ImageStats",
    "ImageStep",
    "ImageStream",
    "Message",
    "PictureSpec",
    "RetryPolicy",
    "RuntimeSettings",
    "SamplingSettings",
    "Split",
    "TextGenerator",
    "TextModel",
    "TextStream",
    "TokenLogprobs",
    "write_png",
]
