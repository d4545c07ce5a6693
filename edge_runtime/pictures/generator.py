"""Text to pictures on the device: the library that the command line and the APIs stand on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Self

import numpy as np
import numpy.typing as npt

import lambda_split
from edge_runtime.closing import Closing
from edge_runtime.endpoint import Endpoint
from edge_runtime.given_numbers import whole_number
from edge_runtime.graph_session import RuntimeSettings
from edge_runtime.notebook import Fact, card, plain
from edge_runtime.pictures.blocks import BlockRunner, load_blocks
from edge_runtime.pictures.decoder import VaeDecoder, load_decoder
from edge_runtime.pictures.deep_run import DeepRun
from edge_runtime.pictures.orders import make_order
from edge_runtime.pictures.prompts import PromptEncoders, load_prompt_encoders
from edge_runtime.pictures.request import PictureSpec, check_spec
from edge_runtime.pictures.runs import PictureOrder, PictureRun
from edge_runtime.pictures.stream import ImageResult, ImageStream
from edge_runtime.pictures.trunk import ReplayingDenoiser
from edge_runtime.pictures.whole_run import WholeRun
from edge_runtime.retry import RetryPolicy
from edge_runtime.stats import Meter
from lambda_split.diffusion.scheduler_config import SchedulerConfig, parse_scheduler_config
from lambda_split.errors import UsageError
from lambda_split.image_bundle import ImageBundle, ImageManifest, load_image_bundle
from lambda_split.wire.frames import PROTOCOL_VERSION
from lambda_split.wire.messages import PictureHello
from lambda_split.wire.pictures.handshake import serves
from lambda_split.wire.pictures.settings import MAX_STEPS
from lambda_split.wire.tensor_format import Base, TensorFormat, payload_bytes

__all__ = ["DEFAULT_FORMAT", "ImageGenerator", "default_max_pixels"]

DEFAULT_FORMAT = "fp16"
_MAX_CONTEXT = 8192
_MOST_LATENTS = (1 << 32) - 1  # that a hello can ask for
Latents = npt.NDArray[np.float32]


def default_max_pixels(manifest: ImageManifest) -> int:
    """The most pixels of all pictures at once where the caller does not say: four pictures'."""
    return 4 * manifest.latents.height * manifest.latents.width


def _most_latents(max_pixels: int | None, manifest: ImageManifest) -> int:
    """The latent positions of so many pixels."""
    pixels = default_max_pixels(manifest)
    if max_pixels is not None:
        pixels = whole_number("max_pixels", max_pixels)
    latents = -(-pixels // manifest.latents.scale_factor**2)
    if not 1 <= latents <= _MOST_LATENTS:
        raise UsageError(
            f"max_pixels must be at least 1 and what a server can be asked for, not {pixels}"
        )
    return latents


def _deep_runs(blocks: BlockRunner, meter: Meter) -> Callable[[PictureOrder], PictureRun]:
    return lambda order: DeepRun(order, blocks, meter)


def _longest_answer(form: TensorFormat, latents: int, manifest: ImageManifest) -> int:
    """Bytes of the longest payload that a step of so many latent positions may bring back."""
    blocks = manifest.blocks
    if blocks is None:
        shape = (latents, manifest.latents.channels, 1, 1)
    else:
        # Two rows an image with guidance, and no smaller than the latents where these are one.
        shape = (2 * latents, blocks.output_channels, 1, 1)
    return max(payload_bytes(one, shape) for one in (form, TensorFormat(Base.FP32)))


class ImageGenerator(Closing):
    """Makes pictures with text encoders, solver and decoder here and the denoiser in the cloud.

    With a bundle whose split is ``deep`` the denoiser's first and last blocks are here as well.

    Not thread-safe: open one for each thread.

    Example:
        ```python
        with ImageGenerator.open("bundle/", "ws://127.0.0.1:8765") as painter:
            result = painter.generate("a red circle", spec=PictureSpec(steps=25, seed=1))
            write_png("circle.png", result.images[0])
        ```
    """

    def __init__(
        self,
        bundle: ImageBundle,
        *,
        encoders: PromptEncoders,
        decoder: VaeDecoder,
        scheduler: SchedulerConfig,
        denoiser: ReplayingDenoiser,
        meter: Meter,
        form: TensorFormat,
    ) -> None:
        """Use :meth:`open`, which builds these."""
        self._bundle = bundle
        self._encoders = encoders
        self._decoder = decoder
        self._scheduler = scheduler
        self._denoiser = denoiser
        self._meter = meter
        self._format = form

    @classmethod
    def open(
        cls,
        bundle: str | os.PathLike[str] | ImageBundle,
        url: str,
        *,
        token: str | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        format: str = DEFAULT_FORMAT,  # noqa: A002  # the wire's own word for it
        max_pixels: int | None = None,
        runtime: RuntimeSettings | None = None,
        retry: RetryPolicy | None = None,
    ) -> Self:
        """Load a bundle and open a session on a service of its denoiser.

        Args:
            bundle: The bundle's folder, or one that was loaded already.
            url: ``ws://`` or ``wss://`` address of the service.
            token: Bearer token, where the server wants one.
            ca_file: PEM file with issuers to trust beside the system's, for a private certificate.
            format: How predicted noise, or with the split ``deep`` features, cross the wire, such
                as ``fp16`` or ``nf4-delta``; see ``docs/protocol-images.md``.
            max_pixels: The most pixels of all pictures that are made at once; four pictures of the
                model's own size where None.
            runtime: Threads of onnxruntime.
            retry: How long to wait for the server, and how hard to try when the connection is
                lost.

        Raises:
            BundleError: the bundle is missing, altered or malformed.
            UsageError: a setting makes no sense.
            SchedulerUnsupported: the model's scheduler_config.json has values that are not known.
            LinkError: the server cannot be reached.
            TlsError: its certificate is not to be trusted, or only one side speaks TLS.
            CapacityRefused: the server is full; ``retry_after_s`` says when to try again.
            Refused: the server does not serve this bundle, or wants another token.
            ServerError: the server is shutting down, or failed.
            ProtocolError: the server broke the protocol.
            RemoteError: an error that this version does not know.
        """
        loaded = bundle if isinstance(bundle, ImageBundle) else load_image_bundle(bundle)
        manifest = loaded.manifest
        form = TensorFormat.from_label(format)
        if form is None:
            raise UsageError(
                f"unknown format {format!r}: fp32, fp16, bf16, fp8-e4m3, fp8-e5m2, int1 … int8 or "
                "nf1 … nf8, the last two also with -channel, all but fp32 with -delta"
            )
        if not serves(form, manifest.split):
            raise UsageError(
                f"{format!r} codes differences, which the split 'deep' has not: take "
                f"{format.removesuffix('-delta')!r}"
            )
        latents = _most_latents(max_pixels, manifest)
        settings = RuntimeSettings() if runtime is None else runtime
        policy = RetryPolicy() if retry is None else retry
        meter = Meter()
        hello = PictureHello(
            protocol=PROTOCOL_VERSION,
            fingerprint=manifest.model.fingerprint,
            witnesses=manifest.model.witnesses,
            split=manifest.split,
            formats=(form.label,),
            latents=latents,
            context=_MAX_CONTEXT,
            steps=MAX_STEPS,
            agent=f"lambda-split-python/{lambda_split.__version__}",
        )
        blocks = None if manifest.blocks is None else load_blocks(loaded, settings)
        denoiser = ReplayingDenoiser(
            Endpoint(url, token, policy.connect_timeout_s, policy.reply_timeout_s, ca_file),
            hello,
            meter,
            longest_answer=_longest_answer(form, latents, manifest),
            retry=policy,
            runs=WholeRun if blocks is None else _deep_runs(blocks, meter),
        )
        scheduler = parse_scheduler_config(loaded.file(manifest.scheduler.file).read_bytes())
        generator = cls(
            loaded,
            encoders=load_prompt_encoders(loaded, settings),
            decoder=load_decoder(loaded, settings),
            scheduler=scheduler,
            denoiser=denoiser,
            meter=meter,
            form=form,
        )
        # Last, so that whatever else is wrong takes no place on the server.
        denoiser.connect()
        return generator

    def close(self) -> None:
        """End the session for good."""
        self._denoiser.close()

    def wait_while(self, wanted: Callable[[], bool]) -> None:
        """From now on wait for a trunk that is away only as long as somebody wants it.

        For programs that run this in a thread, where Ctrl-C does not reach it.

        Args:
            wanted: Asked in that thread, some ten times a second; where it says no,
                :class:`ConnectionLost` is raised, and the generator stays usable.
        """
        self._denoiser.wait_while(wanted)

    @property
    def facts(self) -> list[Fact]:
        """What people want to know of it, by name."""
        manifest = self._bundle.manifest
        return [
            ("model", manifest.model.id),
            ("split", manifest.split),
            ("size", f"{manifest.latents.width} × {manifest.latents.height}"),
            ("format", self._format.label),
            ("is", "closed" if self._denoiser.closed else "open"),
        ]

    def __repr__(self) -> str:
        return plain(type(self).__name__, self.facts)

    def _repr_html_(self) -> str:
        return card(type(self).__name__, self.facts)

    @property
    def bundle(self) -> ImageBundle:
        """The bundle that is running."""
        return self._bundle

    def unseen_tokens(self, prompt: str) -> int:
        """How many of a prompt's last tokens no text encoder takes, so that they change nothing.

        Raises:
            UsageError: it is not Unicode.
            TokenizerInvalid: a tokenizer fails.
        """
        return self._encoders.unseen_tokens(prompt)

    def generate(
        self,
        prompt: str,
        *,
        negative_prompt: str = "",
        spec: PictureSpec | None = None,
        latents: Latents | None = None,
    ) -> ImageResult:
        """Make pictures; arguments and errors as for :meth:`stream` and its iteration."""
        stream = self.stream(prompt, negative_prompt=negative_prompt, spec=spec, latents=latents)
        for _ in stream:
            pass
        return stream.result

    def stream(
        self,
        prompt: str,
        *,
        negative_prompt: str = "",
        spec: PictureSpec | None = None,
        latents: Latents | None = None,
        preview_every: int = 0,
    ) -> ImageStream:
        """Make pictures, step by step.

        Args:
            prompt: What to show.
            negative_prompt: What to lead away from; with guidance only.
            spec: Steps, guidance, size, seed, number of images, solver.
            latents: float32 (images, C, h, w), noise of variance 1 to start from, instead of that
                of the seed.
            preview_every: Decode a preview after every so many steps; 0 for none.

        Returns:
            The stream. Starting another one ends it.

        Raises:
            UsageError: what is asked for makes no sense, or the generator is closed.
            SchedulerUnsupported: the model's scheduler is not known, and no other was chosen.
            TokenizerInvalid: a tokenizer fails.
            GraphInvalid: a text encoder fails.
        """
        wanted = PictureSpec() if spec is None else spec
        manifest = self._bundle.manifest
        check_spec(wanted, manifest)
        if self._denoiser.closed:
            raise UsageError("this ImageGenerator is closed: open another one")
        previews = whole_number("preview_every", preview_every, 0)
        reading, began = self._meter.reading(), time.perf_counter()
        order = make_order(
            wanted,
            prompt,
            negative_prompt,
            manifest=manifest,
            encoders=self._encoders,
            scheduler=self._scheduler,
            exact=self._format.base is Base.FP32,
            latents=latents,
        )
        return ImageStream(
            self._denoiser.run(order),
            order,
            self._decoder,
            spec=wanted,
            meter=self._meter,
            began=reading,
            encode_s=time.perf_counter() - began,
            preview_every=previews,
        )
