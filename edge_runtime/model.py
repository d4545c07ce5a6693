"""A language model's bundle, loaded once for any number of generators."""

from __future__ import annotations

import os
import threading
from typing import Self

from edge_runtime.graphs import HeadRunner, RuntimeSettings, TailRunner, load_head, load_tail
from edge_runtime.prompt import PromptEncoder, load_prompt_encoder
from lambda_split.bundle import Bundle, TextSettings, load_bundle
from lambda_split.errors import BundleKindWrong
from lambda_split.split import Split

__all__ = ["TextModel"]


class TextModel:
    """Tokenizer, chat template and graphs of a bundle, which its generators share.

    The weights are in memory once, however many generators there are; each keeps caches of its own.
    Thread-safe.

    Example::

        model = TextModel.load("bundle/")
        first = TextGenerator.open(model, "ws://127.0.0.1:8765")
        second = TextGenerator.open(model, "ws://127.0.0.1:8765")

    Attributes:
        bundle: The bundle.
        text: What its manifest says of tokenizer and sampling.
        prompts: Turns prompts into tokens.
    """

    def __init__(
        self, bundle: Bundle, text: TextSettings, prompts: PromptEncoder, runtime: RuntimeSettings
    ) -> None:
        """Use :meth:`load`, which reads these."""
        self.bundle = bundle
        self.text = text
        self.prompts = prompts
        self._runtime = runtime
        self._graphs: dict[Split, tuple[HeadRunner, TailRunner]] = {}
        self._loading = threading.Lock()

    @classmethod
    def load(
        cls,
        bundle: str | os.PathLike[str] | Bundle,
        *,
        runtime: RuntimeSettings | None = None,
    ) -> Self:
        """Read a bundle; its graphs are loaded when the first generator wants them.

        Args:
            bundle: The bundle's folder, or one that was loaded already.
            runtime: Threads and memory settings of onnxruntime.

        Raises:
            BundleError: the bundle is missing, altered or malformed.
        """
        loaded = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
        text = loaded.manifest.text
        if loaded.manifest.kind != "causal-lm" or text is None:
            raise BundleKindWrong(str(loaded.path), loaded.manifest.kind)
        settings = RuntimeSettings() if runtime is None else runtime
        return cls(loaded, text, load_prompt_encoder(loaded, text), settings)

    def graphs(self, split: Split) -> tuple[HeadRunner, TailRunner]:
        """Head and tail of one of the bundle's splits, loaded once.

        Raises:
            UsageError: the bundle has no such split.
            BundleError: a graph is missing, corrupt or not what the manifest says.
        """
        with self._loading:
            if split not in self._graphs:
                chosen = self.bundle.at(split)
                self._graphs[split] = (
                    load_head(chosen, self._runtime),
                    load_tail(chosen, self._runtime),
                )
            return self._graphs[split]
