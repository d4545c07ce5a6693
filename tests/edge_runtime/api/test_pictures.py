"""Pictures by OpenAI's client, from a server that also has a language model."""

from __future__ import annotations

import base64
import io
import subprocess
import sys

import hypothesis
import numpy as np
import openai
import PIL.Image
import pytest
import schemathesis
from schemathesis import GenerationMode

from edge_runtime import ImageGenerator, PictureSpec
from export import ImageExportSettings, export_image_bundle
from lambda_split.image_bundle import load_image_bundle
from tests.edge_runtime.api.described import CHECKS, few
from tests.edge_runtime.api.servers import running_api
from tests.servers import serving
from tests.tiny_pipelines import save_tiny_pipeline

SIZE = "64x48"
FEW = {"steps": 2, "guidance": 3.0, "seed": 5}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A tiny pipeline's folder and bundle."""
    place = tmp_path_factory.mktemp("pictures")
    save_tiny_pipeline("sdxl", place / "tiny-pictures")
    settings = ImageExportSettings(weights="fp32")
    export_image_bundle(str(place / "tiny-pictures"), place / "bundle", settings)
    return place / "tiny-pictures", load_image_bundle(place / "bundle")


@pytest.fixture(scope="module")
def denoiser(pictures):
    with serving(str(pictures[0])) as server:
        yield server


@pytest.fixture(scope="module")
def both(demo_bundle, trunk, pictures, denoiser):
    arguments = [
        *("--bundle", str(demo_bundle.path), "--url", trunk.url),
        *("--bundle", str(pictures[1].path), "--url", denoiser.url),
    ]
    with running_api(*arguments) as server:
        yield server


def test_pictures_are_those_of_the_library(both, pictures, denoiser) -> None:
    spec = PictureSpec(width=64, height=48, images=2, **FEW)
    with ImageGenerator.open(pictures[1], denoiser.url) as painter:
        expected = painter.generate("a red cat", negative_prompt="dog", spec=spec).images
    with both.client() as client:
        assert [model.id for model in client.models.list()] == ["demo", "tiny-pictures"]
        answer = client.images.generate(
            model="tiny-pictures",
            prompt="a red cat",
            n=2,
            size=SIZE,
            response_format="b64_json",
            extra_body={**FEW, "negative_prompt": "dog"},
        )
        assert client.completions.create(model="demo", prompt="The fox", max_tokens=2).choices
    assert answer.size == SIZE
    assert answer.output_format == "png"
    assert answer.seed == 5
    files = [base64.b64decode(item.b64_json) for item in answer.data]
    assert not any(b"red cat" in file for file in files)
    found = [np.asarray(PIL.Image.open(io.BytesIO(file))) for file in files]
    assert np.array_equal(found, expected)


def test_a_drawn_seed_makes_the_picture_again(both) -> None:
    with both.client() as client:
        settings = {"model": "tiny-pictures", "prompt": "a blue dog", "size": SIZE}
        first = client.images.generate(**settings, extra_body={"steps": 1})
        again = client.images.generate(**settings, extra_body={"steps": 1, "seed": first.seed})
        other = client.images.generate(**settings, extra_body={"steps": 1})
    assert first.data[0].b64_json == again.data[0].b64_json != other.data[0].b64_json


@pytest.mark.parametrize(
    ("fields", "parameter"),
    [
        ({"size": "63x48"}, "size"),
        ({"size": "large"}, "size"),
        ({"size": "99999x99999"}, "size"),
        ({"n": 11}, "n"),
        ({"n": 10, "size": "1024x1024"}, "n"),
        ({"response_format": "url"}, "response_format"),
        ({"quality": "hd"}, "quality"),
        ({"style": "vivid"}, "style"),
        ({"background": "transparent"}, "background"),
        ({"extra_body": {"output_format": "jpeg"}}, "output_format"),
        ({"extra_body": {"steps": 0}}, "steps"),
        ({"extra_body": {"colour": "red"}}, "colour"),
    ],
)
def test_what_cannot_be_made_is_named(both, fields, parameter) -> None:
    with both.client() as client, pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(model="tiny-pictures", prompt="a cat", **fields)
    assert caught.value.param == parameter


def test_kinds_of_models_are_not_mixed_up(both) -> None:
    with both.client() as client:
        with pytest.raises(openai.NotFoundError, match="tiny-pictures"):
            client.images.generate(model="demo", prompt="a cat")
        with pytest.raises(openai.NotFoundError, match="demo"):
            client.completions.create(model="tiny-pictures", prompt="a cat")


@pytest.mark.parametrize("option", [("--split", "1,1"), ("--max-positions", "64")])
def test_options_of_language_models_are_refused_where_there_is_none(pictures, option) -> None:
    command = [sys.executable, "-m", "lambda_split.cli", "api", "--port", "0", *option]
    where = ("--bundle", str(pictures[1].path), "--url", "ws://127.0.0.1:1")
    run = subprocess.run(
        [*command, *where], capture_output=True, text=True, check=False, timeout=60
    )
    assert (run.returncode, run.stdout) == (2, "")
    assert f"{option[0]} is for language models" in run.stderr


def test_more_steps_than_the_model_knows(both) -> None:
    with both.client() as client, pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(model="tiny-pictures", prompt="a cat", extra_body={"steps": 1000})
    assert caught.value.param is None
    assert caught.value.code == "invalid_value"


def test_a_client_that_goes_away_ends_the_picture(both) -> None:
    with both.client() as client, pytest.raises(openai.APITimeoutError):
        client.images.generate(
            model="tiny-pictures", prompt="a cat", n=4, timeout=1, extra_body={"steps": 900}
        )
    both.await_idle("tiny-pictures")


def test_no_described_request_breaks_the_server(both) -> None:
    described = schemathesis.openapi.from_url(f"{both.root}/openapi.json", timeout=60)
    operation = described["/v1/images/generations"]["POST"]

    @hypothesis.given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
    @few
    def send(case) -> None:
        case.body = {**case.body, "steps": 1, "n": 1}  # so that it is soon done
        case.call_and_validate(checks=CHECKS, timeout=120)

    send()
