"""``lambda-split export`` of a text-to-image pipeline, as a user meets it."""

from __future__ import annotations

import pytest

from lambda_split.cli import main
from lambda_split.image_bundle import load_image_bundle


def test_a_pipeline_is_found_written_and_described(pipeline_folder, tmp_path, capsys) -> None:
    out = tmp_path / "pictures"
    folder = pipeline_folder("sd1")
    capsys.readouterr()
    arguments = ["export", str(folder), "--out", str(out), "--weights", "fp16"]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert "64 × 64" in captured.out
    assert "PSNR" in captured.out
    assert f"serve {folder}\n" in captured.out
    assert "verifying the VAE …\n" in captured.err
    assert load_image_bundle(out).manifest.graphs["text_encoder"].weights == "fp16"
    assert main([*arguments, "--quiet"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "--overwrite" in captured.err


@pytest.mark.slow
def test_the_deep_split_is_described(pipeline_folder, tmp_path, capsys) -> None:
    out = tmp_path / "pictures"
    capsys.readouterr()
    arguments = ["export", str(pipeline_folder("sd1")), "--out", str(out), "--weights", "fp32"]
    assert main([*arguments, "--split", "deep"]) == 0
    captured = capsys.readouterr()
    assert "first and last blocks" in captured.out
    assert "relative error of the noise" in captured.out
    assert "verifying the denoiser's blocks …\n" in captured.err
    assert main(["inspect", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "split        deep" in shown
    assert "unet_first" in shown
    assert "error of the noise" in shown


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (("--weights", "int4"), "fp32, fp16, int8"),
        (("--head-layers", "2"), "--head-layers"),
        (("--attention", "concat-kv"), "--attention"),
        (("--max-positions", "9"), "--max-positions"),
        (("--calibrate-steps", "-1"), "--calibrate-steps"),
        (("--split", "half"), "--split"),
    ],
)
def test_wrong_use_is_2_and_writes_nothing(wrong, words, pipeline_folder, tmp_path, capsys) -> None:
    folder = pipeline_folder("sd1")
    capsys.readouterr()
    try:
        code = main(["export", str(folder), "--out", str(tmp_path / "pictures"), *wrong])
    except SystemExit as end:
        code = end.code
    assert code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong", [("--vae", "tiny"), ("--calibrate-steps", "0"), ("--split", "deep")]
)
def test_what_is_for_pictures_is_refused_for_text(
    wrong, checkpoint_folder, tmp_path, capsys
) -> None:
    arguments = ["export", str(checkpoint_folder("gpt2")), "--out", str(tmp_path / "bundle")]
    assert main([*arguments, *wrong]) == 2
    assert wrong[0] in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_there(tmp_path, capsys) -> None:
    assert main(["export", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 1
    assert "nowhere" in capsys.readouterr().err
