"""``POST /v1/images/generations``."""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import Generator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from edge_runtime.api.parameters import parse_request
from edge_runtime.api.replies import ImageData, Images
from edge_runtime.api.requests import IMAGE_NEUTRAL, ImageRequest
from edge_runtime.api.responding import json_response, while_connected
from edge_runtime.pictures.generator import ImageGenerator
from edge_runtime.pictures.png import encode_png
from edge_runtime.pictures.request import PictureSpec, check_spec
from edge_runtime.pictures.stream import ImageResult
from edge_runtime.sessions.served import ServedModels, ServedPictures
from edge_runtime.sessions.session_thread import Wanted
from lambda_split.errors import ParameterInvalid, UsageError

__all__ = ["PictureAnswer", "plan_pictures"]


async def plan_pictures(fields: dict[str, Any], models: ServedModels) -> PictureAnswer:
    """Check a request.

    Args:
        fields: Of the body.
        models: What is served.

    Raises:
        ApiError: the request is not one that can be answered.
    """
    request = parse_request(fields, ImageRequest, IMAGE_NEUTRAL)
    served = models.pictures(request.model)
    spec = _spec(request)
    try:
        check_spec(spec, served.manifest)
    except UsageError as error:
        raise ParameterInvalid("size", str(error)) from error
    _check_pixels(spec, served)
    return PictureAnswer(served, request, spec)


def _spec(request: ImageRequest) -> PictureSpec:
    defaults = PictureSpec()
    width = height = None
    if request.size not in {None, "auto"}:
        width, height = map(int, str(request.size).split("x"))
    return PictureSpec(
        steps=defaults.steps if request.steps is None else request.steps,
        guidance=defaults.guidance if request.guidance is None else request.guidance,
        height=height,
        width=width,
        seed=request.seed,
        images=request.n or 1,
    )


def _check_pixels(spec: PictureSpec, served: ServedPictures) -> None:
    """A session is opened for so many pixels, so that its memory is bounded."""
    height, width = spec.size(served.manifest)
    if spec.images * height * width > served.max_pixels:
        raise ParameterInvalid(
            "n" if spec.images > 1 else "size",
            f"at most {served.max_pixels:,} pixels can be made at once, of all pictures",
        )


class PictureAnswer:
    """Pictures in the making."""

    def __init__(self, served: ServedPictures, request: ImageRequest, spec: PictureSpec) -> None:
        self._served = served
        self._request = request
        self._spec = spec

    async def respond(self, request: Request) -> Response:
        """Make them, and answer.

        Raises:
            ClientGone: nobody waits for them any more.
            LambdaSplitError: they cannot be made.
        """
        return await while_connected(request.receive, self._whole())

    async def _whole(self) -> Response:
        async with contextlib.aclosing(self._served.pool.run(self._steps)) as items:
            images = [item async for item in items]
        return json_response(images[-1])

    def _steps(self, generator: ImageGenerator, wanted: Wanted) -> Generator[Images | None]:
        generator.wait_while(wanted)
        stream = generator.stream(
            self._request.prompt,
            negative_prompt=self._request.negative_prompt or "",
            spec=self._spec,
        )
        with stream:
            for _ in stream:
                yield None  # between two steps it may be given up
        yield self._finished(stream.result)

    def _finished(self, result: ImageResult) -> Images:
        height, width = self._spec.size(self._served.manifest)
        return Images(
            created=int(time.time()),
            # No parameters in the files: they would hold the prompt.
            data=[
                ImageData(base64.b64encode(encode_png(image)).decode("ascii"))
                for image in result.images
            ],
            size=f"{width}x{height}",
            seed=result.seed,
        )
