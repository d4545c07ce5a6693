"""The models that a server has, by name, each with its sessions."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge_runtime.generator import TextGenerator
from edge_runtime.model import TextModel
from edge_runtime.pictures.generator import ImageGenerator, default_max_pixels
from edge_runtime.prompt import Prompt
from edge_runtime.sampling import SamplingSettings
from edge_runtime.sessions.pool import PoolLimits, SessionPool
from edge_runtime.tokenizer import Tokenizer
from lambda_split.errors import ModelUnknown, PromptTooLong, UsageError
from lambda_split.image_bundle import ImageBundle

__all__ = ["PictureBundle", "ServedModels", "ServedPictures", "ServedText", "TextBundle"]


@dataclass(frozen=True)
class TextBundle:
    """A language model to serve.

    Attributes:
        model: What is loaded of it.
        open_session: Opens a session on its trunk.
        max_positions: Tokens that a prompt and its answer may have together.
    """

    model: TextModel
    open_session: Callable[[], TextGenerator]
    max_positions: int


@dataclass(frozen=True)
class PictureBundle:
    """A text-to-image pipeline to serve.

    Attributes:
        bundle: Its bundle.
        open_session: Opens a session on its trunk.
    """

    bundle: ImageBundle
    open_session: Callable[[], ImageGenerator]


class ServedText:
    """A language model that is served."""

    def __init__(self, source: TextBundle, limits: PoolLimits) -> None:
        manifest = source.model.bundle.manifest
        self.id = manifest.model.id
        self.manifest = manifest
        self.fingerprint = f"fp_{manifest.model.fingerprint[:10]}"
        self.max_positions = source.max_positions
        self.default_sampling = SamplingSettings.of(source.model.text.generation)
        self.pool = SessionPool(
            source.open_session, limits, held=lambda generator: generator.held_token_ids
        )
        self._model = source.model

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        """The tokens of a prompt; thread-safe.

        Raises:
            PromptTooLong: they leave no room for an answer.
            UsageError: the prompt is none, as for :meth:`TextGenerator.tokenize`.
            TokenizerInvalid: the tokenizer fails.
        """
        ids = self._model.prompts.encode(prompt)
        if len(ids) > self.max_positions:
            raise PromptTooLong("shorten it", len(ids), self.max_positions)
        return tuple(ids)

    @property
    def tokenizer(self) -> Tokenizer:
        """Knows the texts of tokens."""
        return self._model.prompts.tokenizer


class ServedPictures:
    """A text-to-image pipeline that is served: one request at a time, each takes all the device."""

    def __init__(self, source: PictureBundle, limits: PoolLimits) -> None:
        self.id = source.bundle.manifest.model.id
        self.manifest = source.bundle.manifest
        self.max_pixels = default_max_pixels(self.manifest)
        self.pool = SessionPool(
            source.open_session, dataclasses.replace(limits, sessions=1), held=lambda _: ()
        )


class ServedModels:
    """All models of a server.

    Attributes:
        created: When the server started, in seconds since 1970.
    """

    def __init__(self, sources: Sequence[TextBundle | PictureBundle], limits: PoolLimits) -> None:
        """Prepare sessions; belongs to the event loop's thread.

        Raises:
            UsageError: two models of one name.
        """
        self.created = int(time.time())
        self._models: dict[str, ServedText | ServedPictures] = {}
        for source in sources:
            one: ServedText | ServedPictures
            if isinstance(source, TextBundle):
                one = ServedText(source, limits)
            else:
                one = ServedPictures(source, limits)
            if one.id in self._models:
                raise UsageError(f"two bundles are of the model {one.id!r}: give one of them")
            self._models[one.id] = one

    def all(self) -> list[ServedText | ServedPictures]:
        """Each of them."""
        return list(self._models.values())

    def names(self, kind: type[ServedText | ServedPictures]) -> tuple[str, ...]:
        """The names of one kind's."""
        return tuple(name for name, one in self._models.items() if isinstance(one, kind))

    def any(self, name: str) -> ServedText | ServedPictures:
        """A model by its name.

        Raises:
            ModelUnknown: there is none.
        """
        try:
            return self._models[name]
        except KeyError as error:
            raise ModelUnknown(tuple(self._models)) from error

    def text(self, name: str) -> ServedText:
        """A language model by its name; errors as of :meth:`any`."""
        found = self._models.get(name)
        if not isinstance(found, ServedText):
            raise ModelUnknown(self.names(ServedText))
        return found

    def pictures(self, name: str) -> ServedPictures:
        """A text-to-image pipeline by its name; errors as of :meth:`any`."""
        found = self._models.get(name)
        if not isinstance(found, ServedPictures):
            raise ModelUnknown(self.names(ServedPictures))
        return found

    async def close(self) -> None:
        """End all sessions."""
        for one in self._models.values():
            await one.pool.close()
