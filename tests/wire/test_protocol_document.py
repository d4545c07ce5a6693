"""``docs/protocol.md`` says what the code does: error codes, fields, limits and examples."""

import dataclasses
import pathlib
import re

import msgspec
import pytest

from lambda_split import errors
from lambda_split.diffusion.scheduler_config import SchedulerConfig
from lambda_split.errors import ProtocolError, Refused, RemoteError, RequestError, ServerError
from lambda_split.wire.frames import HEADER_BYTES, PROTOCOL_VERSION, Codec
from lambda_split.wire.messages import (
    MAX_MESSAGE_BYTES,
    Bye,
    ErrorMessage,
    Hello,
    PictureHello,
    Welcome,
    message_type,
)
from lambda_split.wire.pictures.frames import PictureFrameKind
from lambda_split.wire.pictures.server_session import MAX_STATE_TENSORS
from lambda_split.wire.pictures.settings import MAX_IMAGES, MAX_STEPS, Denoising, PictureSettings
from tests.vectors.reading import read_vectors

DOCS = pathlib.Path(__file__).parents[2] / "docs"
DOCUMENT = (DOCS / "protocol.md").read_text(encoding="utf-8")
IMAGES = (DOCS / "protocol-images.md").read_text(encoding="utf-8")
WIRE = [
    cls
    for cls in vars(errors).values()
    if isinstance(cls, type)
    and issubclass(cls, errors.WireError)
    and "code" in vars(cls)
    and cls is not errors.WireError
    and cls is not RemoteError
]
GROUPS = {
    "Protocol errors": ProtocolError,
    "Refusals": Refused,
    "Request errors": RequestError,
    "Server errors": ServerError,
}


def rows_of(group):
    """The table below a group's bold heading: code to the names of its fields."""
    section = DOCUMENT.split(f"**{group}**", 1)[1]
    table = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)[0]
    rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()]
    return {row[0].strip("`"): [] if row[1] == "–" else row[1].split(", ") for row in rows[2:]}


@pytest.mark.parametrize("group", GROUPS)
def test_every_error_code_stands_in_its_table_with_its_fields(group):
    expected = {
        cls.code: [field.name for field in dataclasses.fields(cls)]
        for cls in WIRE
        if issubclass(cls, GROUPS[group])
    }
    assert expected
    assert rows_of(group) == expected


def test_the_groups_are_all_there_is():
    assert all(issubclass(cls, tuple(GROUPS.values())) for cls in WIRE)


@pytest.mark.parametrize(
    "struct", [Hello, PictureHello, Welcome, ErrorMessage, Bye], ids=lambda s: s.__name__
)
def test_every_field_of_a_message_is_described(struct):
    name = struct.__struct_config__.tag
    described = fields_in(DOCUMENT.split(f"### {name} (", 1)[1])
    assert described == {field.name: not field.required for field in msgspec.structs.fields(struct)}


@pytest.mark.parametrize(
    ("heading", "struct"), [("Settings", PictureSettings), ("denoising", Denoising)]
)
def test_every_field_of_a_picture_s_settings_is_described(heading, struct):
    described = fields_in(IMAGES.split(f"### {heading}\n", 1)[1])
    assert described == {field.name: not field.required for field in msgspec.structs.fields(struct)}


def test_every_field_of_a_scheduler_is_described():
    described = fields_in(IMAGES.split("### scheduler\n", 1)[1])
    assert described == {
        field.encode_name: not field.required for field in msgspec.structs.fields(SchedulerConfig)
    }


def fields_in(text):
    """The fields of the table in a text's first section, and whether they have a default."""
    section = text.split("\n### ", 1)[0].split("\n## ", 1)[0]
    described = {}
    for names, kind in re.findall(r"^\| ([a-z_, ]+) \| (.*?) \|", section, re.MULTILINE):
        described |= dict.fromkeys(names.split(", "), "default" in kind)
    del described["field"]  # the table's head
    return described


def test_every_example_is_a_golden_vector():
    golden = {frame["hex"] for frame in read_vectors("frames.json")["frames"]}
    examples = re.findall(r"```hex\n(.*?)```", DOCUMENT, re.DOTALL)
    assert len(examples) >= 5
    for example in examples:
        assert re.sub(r"\s", "", example) in golden


def test_numbers_are_those_of_the_code():
    assert f"version {PROTOCOL_VERSION}" in DOCUMENT.splitlines()[0]
    assert f"A {HEADER_BYTES}-byte header" in DOCUMENT
    assert f"at most {MAX_MESSAGE_BYTES} bytes" in DOCUMENT
    for codec in Codec:
        assert f"| `{codec.label}` | {codec.value} |" in DOCUMENT


def test_kinds_of_pictures_frames_are_those_of_the_code():
    for kind in PictureFrameKind:
        assert f"`{kind.name}` (kind {kind.value}, " in IMAGES
    assert f"at most {MAX_STATE_TENSORS} tensors" in IMAGES
    assert f"integer 1 … {MAX_IMAGES} " in IMAGES
    assert f"integer 1 … {MAX_STEPS} " in IMAGES
    assert f"at most {MAX_MESSAGE_BYTES} bytes" in IMAGES


def test_message_types_have_sections():
    assert message_type(Bye()) == "bye"
    assert re.findall(r"^### ([a-z-]+) \(", DOCUMENT, re.MULTILINE) == [
        "hello",
        "picture-hello",
        "welcome",
        "error",
        "bye",
    ]
