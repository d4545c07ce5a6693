"""``lambda-split image``: what it says, writes and refuses; end_to_end has the real pictures."""

from __future__ import annotations

import io
import json
import pathlib
import subprocess
import sys

import PIL.Image
import pytest

from edge_runtime.commands import image
from lambda_split.cli import main
from lambda_split.diffusion.scheduler_config import SOLVER_NAMES
from tests.edge_runtime.hostile_server import hostile_server
from tests.edge_runtime.pictures import some_pictures
from tests.edge_runtime.pictures.some_denoiser import serve_zeros
from tests.servers import free_port

PROMPT = "a red cat"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("bundle")
    some_pictures.write_bundle(folder)
    return str(folder)


def _arguments(bundle: str, out: pathlib.Path, *more: str, url: str = "ws://127.0.0.1:1"):
    needed = ["--bundle", bundle, "--url", url, "--prompt", PROMPT, "--out", str(out)]
    return ["image", *needed, "--threads", "1", *more]


def _paint(bundle: str, out: pathlib.Path, *more: str, images: int = 1) -> int:
    side = some_pictures.SIDE
    shape = (images, some_pictures.CHANNELS, side, side)

    def script(peer) -> None:
        serve_zeros(peer, shape=shape)

    settings = ("--steps", "4", "--images", str(images), *more)
    with hostile_server(script) as server:
        return main(_arguments(bundle, out, *settings, url=server.url))


def test_help_teaches_and_needs_no_torch() -> None:
    script = (
        "import sys\nfrom lambda_split.cli import main\n"
        "try:\n    main(['image', '--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'torch', 'transformers', 'diffusers', 'onnx', 'PIL'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert all(solver in run.stdout for solver in SOLVER_NAMES)
    words = ("Try:", "--preview-every", "--no-metadata", "docs/threat-model.md")
    assert all(word in run.stdout for word in words)


# --- what is written ------------------------------------------------------------------------------


def test_a_picture_with_its_parameters(bundle, tmp_path, capsys) -> None:
    out = tmp_path / "a.png"
    assert _paint(bundle, out, "--seed", "7", "--negative", "dog", "--solver", "euler") == 0
    with PIL.Image.open(out) as picture:
        assert picture.size == (some_pictures.SIDE, some_pictures.SIDE)
        assert picture.text == {
            "Prompt": PROMPT,
            "Negative prompt": "dog",
            "Seed": "7",
            "Steps": "4",
            "Guidance": "5",
            "Solver": "euler",
            "Format": "fp16",
            "Software": "lambda-split",
        }
    told = capsys.readouterr()
    assert told.out == f"{out}\n"
    assert "step 4 of 4\n" in told.err
    assert "\nseed 7\n" in told.err
    assert "bytes up" in told.err


def test_a_terminal_sees_a_bar_in_place_of_lines(bundle, tmp_path, monkeypatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    assert _paint(bundle, tmp_path / "a.png") == 0
    shown = sys.stderr.getvalue()
    assert "painting" in shown
    assert "steps/s" in shown or "s/steps" in shown
    assert "step 4 of 4" not in shown


def test_a_prompt_from_stdin(bundle, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{PROMPT}\n"))
    out = tmp_path / "a.png"
    assert _paint(bundle, out, "--prompt", "-") == 0
    with PIL.Image.open(out) as picture:
        assert picture.text["Prompt"] == PROMPT


def test_stdin_is_read_before_a_session_is_opened(bundle, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff"), encoding="utf-8"))
    # Nothing listens there: a session that was opened first would say so.
    assert main(_arguments(bundle, tmp_path / "a.png", "--prompt", "-")) == 2
    assert "not UTF-8" in capsys.readouterr().err


def test_without_metadata_the_file_says_nothing(bundle, tmp_path) -> None:
    out = tmp_path / "a.png"
    assert _paint(bundle, out, "--no-metadata") == 0
    with PIL.Image.open(out) as picture:
        assert picture.text == {}
    assert PROMPT.encode() not in out.read_bytes()


def test_a_seed_that_was_drawn_is_in_the_file_and_makes_the_same_picture(bundle, tmp_path) -> None:
    assert _paint(bundle, tmp_path / "a.png", "--quiet") == 0
    with PIL.Image.open(tmp_path / "a.png") as picture:
        seed = picture.text["Seed"]
    assert _paint(bundle, tmp_path / "b.png", "--quiet", "--seed", seed) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_several_images_are_numbered(bundle, tmp_path, capsys) -> None:
    assert _paint(bundle, tmp_path / "a.b.png", "--quiet", images=3) == 0
    names = ["a.b-1.png", "a.b-2.png", "a.b-3.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    told = capsys.readouterr()
    assert told.out.splitlines() == [str(tmp_path / name) for name in names]
    assert told.err == ""
    assert len({(tmp_path / name).read_bytes() for name in names}) == 3


def test_previews_are_written_to_the_same_file(bundle, tmp_path, monkeypatch) -> None:
    written: list[tuple[str, bool]] = []

    def write(path, pixels, texts=None) -> None:
        written.append((path.name, texts is not None))

    monkeypatch.setattr(image, "write_png", write)
    assert _paint(bundle, tmp_path / "a.png", "--quiet", "--preview-every", "2") == 0
    assert written == [("a.png", False), ("a.png", False), ("a.png", True)]


def test_one_json_object(bundle, tmp_path, capsys) -> None:
    out = tmp_path / "a.png"
    assert _paint(bundle, out, "--json", "--quiet", "--seed", "9") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["files"], told["seed"]) == ([str(out)], 9)
    parts = {"encode_s", "link_s", "trunk_s", "blocks_s", "decode_s"}
    assert set(told["timing"]) == {"total_s", *parts}
    assert told["timing"]["total_s"] > 0
    # 4 steps: the answer's header and two bytes a value, and the picture's own answer without one.
    values = some_pictures.CHANNELS * some_pictures.SIDE**2
    assert 4 * 2 * values < told["wire"]["bytes_down"] < 4 * 2 * values + 1000
    assert told["wire"]["reconnects"] == 0


# --- wrong use and errors -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        ("--steps", "0"),
        ("--steps", "many"),
        ("--images", "0"),
        ("--height", "-8"),
        ("--width", "0"),
        ("--seed", "-1"),
        ("--guidance", "much"),
        ("--solver", "magic"),
        ("--preview-every", "0"),
        ("--threads", "0"),
        ("--nonsense",),
    ],
)
def test_arguments_that_make_no_sense_are_2(tmp_path, wrong, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        main(_arguments("nowhere", tmp_path / "a.png", *wrong))
    assert end.value.code == 2
    assert wrong[0] in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["--bundle", "--url", "--prompt", "--out"])
def test_what_has_to_be_given(tmp_path, missing, capsys) -> None:
    arguments = _arguments("nowhere", tmp_path / "a.png")
    at = arguments.index(missing)
    with pytest.raises(SystemExit) as end:
        main(arguments[:at] + arguments[at + 2 :])
    assert end.value.code == 2
    assert missing in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (("--codec", "int9"), "unknown format 'int9'"),
        (("--url", "http://127.0.0.1"), "http://127.0.0.1"),
        (("--token-file", "no/such/file"), "no/such/file"),
    ],
)
def test_settings_that_make_no_sense_are_2_with_one_line(
    bundle, tmp_path, wrong, words, capsys
) -> None:
    assert main(_arguments(bundle, tmp_path / "a.png", *wrong)) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("lambda-split: ")
    assert told.err.count("\n") == 1
    assert words in told.err


def test_a_picture_that_cannot_be_asked_for_is_2(bundle, tmp_path, capsys) -> None:
    assert _paint(bundle, tmp_path / "a.png", "--rescale", "2") == 2
    assert "rescale" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_unreachable_server_is_1(bundle, tmp_path, capsys) -> None:
    url = f"ws://127.0.0.1:{free_port()}"
    assert main(_arguments(bundle, tmp_path / "a.png", url=url)) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert url in told.err
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_bundle_is_1(tmp_path, capsys) -> None:
    assert main(_arguments(str(tmp_path), tmp_path / "a.png")) == 1
    assert "is not a bundle" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.png.webp", ".png"])
def test_a_name_that_is_no_pngs_is_told_before_anything_is_made(tmp_path, name, capsys) -> None:
    assert main(_arguments("nowhere", tmp_path / name)) == 2
    assert "ends with .png" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_told_before_anything_is_made(tmp_path, capsys) -> None:
    assert main(_arguments("nowhere", tmp_path / "no" / "a.png")) == 1
    assert "no such folder" in capsys.readouterr().err
