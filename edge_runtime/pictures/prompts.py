"""Prompts to conditioning: CLIP's tokenizers and text encoders, on the device."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.graph_session import RuntimeSettings, TensorSpec
from edge_runtime.pictures.graphs import PictureGraph, open_picture_graph
from edge_runtime.tokenizer import Tokenizer
from lambda_split.errors import GraphInvalid
from lambda_split.image_bundle import ImageBundle, TextEncoder

__all__ = ["EncodedPrompts", "PromptEncoders", "load_prompt_encoders"]

_logger = logging.getLogger(__name__)
_LARGEST_TOKEN = 1 << 24
Tensor = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class EncodedPrompts:
    """What the denoiser is told of n prompts.

    Attributes:
        context: float32 (n, tokens, width).
        pooled: float32 (n, pooled width), where the denoiser takes it.
    """

    context: Tensor
    pooled: Tensor | None = None


@dataclass(frozen=True)
class _Encoder:
    description: TextEncoder
    tokenizer: Tokenizer
    graph: PictureGraph

    def tokenize(self, prompt: str) -> list[int]:
        """Token ids, cut or padded to the encoder's length."""
        most = self.description.max_tokens
        ids = self.tokenizer.encode(prompt)
        if len(ids) > most:
            _logger.warning(
                "the prompt has %d tokens: what comes behind the first %d is not seen",
                len(ids),
                most,
            )
            ids = [*ids[: most - 1], ids[-1]]  # the end token closes what is left, too
        return ids + [self.description.pad_token_id] * (most - len(ids))


class PromptEncoders:
    """All text encoders of a bundle; made by :func:`load_prompt_encoders`."""

    def __init__(self, encoders: Sequence[_Encoder]) -> None:
        self._encoders = encoders

    @property
    def tokens(self) -> int:
        """Positions of the conditioning."""
        return self._encoders[0].description.max_tokens

    def unseen_tokens(self, prompt: str) -> int:
        """How many of a prompt's tokens stand behind what an encoder takes.

        Raises:
            UsageError: it is not Unicode.
            TokenizerInvalid: a tokenizer fails.
        """
        return max(
            max(0, len(each.tokenizer.encode(prompt)) - each.description.max_tokens)
            for each in self._encoders
        )

    def encode(self, prompts: Sequence[str]) -> EncodedPrompts:
        """Encode n prompts.

        Raises:
            UsageError: a prompt is not Unicode.
            TokenizerInvalid: a tokenizer fails.
            GraphInvalid: a graph fails.
        """
        contexts: list[Tensor] = []
        pooled: Tensor | None = None
        for encoder in self._encoders:
            ids = np.array([encoder.tokenize(prompt) for prompt in prompts], np.int64)  # (n, T)
            found = encoder.graph.run({"token_ids": ids})
            if not all(np.isfinite(tensor).all() for tensor in found.values()):
                raise GraphInvalid(encoder.graph.graph.file, "it gives NaN or infinity")
            contexts.append(found["hidden"])
            pooled = found.get("pooled", pooled)
        context = np.concatenate(contexts, axis=2)  # n × (n, T, width) -> (n, T, sum of widths)
        return EncodedPrompts(context, pooled)


def load_prompt_encoders(bundle: ImageBundle, settings: RuntimeSettings) -> PromptEncoders:
    """Load a bundle's tokenizers and text encoders.

    Raises:
        BundleError: a file is missing, corrupt or not what the manifest says.
    """
    return PromptEncoders([_load(bundle, each, settings) for each in bundle.manifest.encoders])


def _load(bundle: ImageBundle, description: TextEncoder, settings: RuntimeSettings) -> _Encoder:
    tokens = description.max_tokens
    pooled_width = bundle.manifest.conditioning.pooled_width
    outputs = {"hidden": TensorSpec("tensor(float)", (None, tokens, description.width))}
    if pooled_width is not None:
        outputs["pooled"] = TensorSpec("tensor(float)", (None, pooled_width), required=False)
    graph = open_picture_graph(
        bundle,
        description.graph,
        settings,
        inputs={"token_ids": TensorSpec("tensor(int64)", (None, tokens))},
        outputs=outputs,
    )
    tokenizer = Tokenizer.load(bundle.file(description.tokenizer), _LARGEST_TOKEN)
    return _Encoder(description, tokenizer, graph)
