"""Latents become pixels: scaled as the manifest says, rounded to the nearest level."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from edge_runtime.pictures.decoder import load_decoder
from lambda_split.errors import GraphInvalid, ManifestInvalid
from tests.edge_runtime.pictures import some_pictures
from tests.edge_runtime.pictures.some_pictures import ONE_THREAD, Wanted


def _decoder(folder, **changes):
    return load_decoder(some_pictures.write_bundle(folder, Wanted(**changes)), ONE_THREAD)


def _latents(*values: float) -> np.ndarray:
    """One value to each channel: float32 (1, C, 1, 1)."""
    return np.array(values, np.float32).reshape(1, -1, 1, 1)  # (C,) -> (1, C, 1, 1)


def _some_latents(images: int = 1, seed: int = 0) -> np.ndarray:
    shape = (images, some_pictures.CHANNELS, 3, 5)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _levels(picture: np.ndarray) -> np.ndarray:
    """float64 (B, 3, h, w), -1 to 1, to uint8 (B, h, w, 3)."""
    return np.rint(np.clip(picture / 2 + 0.5, 0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)


def test_from_minus_one_to_one_is_black_to_white_and_all_beyond_is_clipped(tmp_path) -> None:
    decoder = _decoder(tmp_path, vae={"scaling_factor": 1.0})
    assert decoder.decode(_latents(-1, 0.5, 1, 0)).ravel().tolist() == [0, 191, 255]
    assert decoder.decode(_latents(-1e30, 1e30, -1.01, 0)).ravel().tolist() == [0, 255, 0]


def test_each_value_goes_to_the_nearest_level(tmp_path) -> None:
    decoder = _decoder(tmp_path, vae={"scaling_factor": 1.0})
    levels = np.arange(256)
    for away in (-0.49, -0.2, 0, 0.2, 0.49):
        values = ((levels + away) / 255 * 2 - 1).astype(np.float32)
        latents = np.tile(values, (1, some_pictures.CHANNELS, 1, 1))  # (256,) -> (1, C, 1, 256)
        assert np.array_equal(decoder.decode(latents)[0, 0, :, 1], levels)


def test_pixels_are_rows_of_red_green_and_blue(tmp_path) -> None:
    latents = _some_latents(images=3)
    pixels = _decoder(tmp_path, vae={"scaling_factor": 0.5}).decode(latents)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (3, 3, 5, 3)
    assert pixels.flags.c_contiguous
    assert np.array_equal(pixels, _levels(latents[:, :3].astype(np.float64) / 0.5))


def test_images_do_not_see_each_other(tmp_path) -> None:
    decoder = _decoder(tmp_path)
    latents = _some_latents(images=3)
    alone = np.concatenate([decoder.decode(image[None]) for image in latents])
    assert np.array_equal(decoder.decode(latents), alone)


def test_the_shift_is_added_after_scaling(tmp_path) -> None:
    latents = _some_latents()
    decoder = _decoder(tmp_path, vae={"scaling_factor": 2.0, "shift_factor": 0.25})
    expected = _levels(latents[:, :3].astype(np.float64) / 2 + 0.25)
    assert np.array_equal(decoder.decode(latents), expected)


def test_statistics_are_by_channel_and_take_the_place_of_the_shift(tmp_path) -> None:
    latents = _some_latents()
    mean, std = (0.5, -0.25, 0.125, 9.0), (0.5, 1.0, 2.0, 9.0)
    statistics = {"latents_mean": mean, "latents_std": std, "shift_factor": 0.75}
    decoder = _decoder(tmp_path, vae={"scaling_factor": 2.0, **statistics})
    # (C,) -> (C, 1, 1), the colours only
    deviations, means = (np.array(each).reshape(-1, 1, 1)[:3] for each in (std, mean))
    expected = _levels(latents[:, :3].astype(np.float64) / 2 * deviations + means)
    assert np.array_equal(decoder.decode(latents), expected)


def test_the_export_scales_alike(tmp_path) -> None:
    """What the export's verification decodes is what the device decodes."""
    statistics = {"latents_mean": (0.5, -0.25, 0.1, 0.0), "latents_std": (0.5, 1.0, 2.0, 1.0)}
    for number, changes in enumerate(({}, {"shift_factor": 0.1}, statistics)):
        folder = tmp_path / str(number)
        folder.mkdir()
        bundle = some_pictures.write_bundle(folder, Wanted(vae=changes))
        latents = _some_latents(seed=number)
        scaled = bundle.manifest.vae.decoder_input(latents)
        pixels = load_decoder(bundle, ONE_THREAD).decode(latents)
        difference = pixels.astype(int) - _levels(scaled[:, :3].astype(np.float64))
        assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_latents_that_are_not_finite(tmp_path, bad) -> None:
    latents = _some_latents(images=2)
    latents[1, 2, 0, 0] = bad
    with pytest.raises(GraphInvalid, match=r"vae_decoder/model\.onnx.*NaN"):
        _decoder(tmp_path).decode(latents)


def test_a_decoder_that_gives_nan(tmp_path) -> None:
    colours = "chosen = Gather <axis = 1> (latents, colours)"
    decoder = _decoder(tmp_path, decoder=f"{colours}\n picture = Div(chosen, zero)")
    with pytest.raises(GraphInvalid, match="NaN or infinity"):
        decoder.decode(_some_latents())


def test_a_decoder_for_latents_of_other_channels(tmp_path) -> None:
    bundle = some_pictures.write_bundle(tmp_path)
    latents = msgspec.structs.replace(bundle.manifest.latents, channels=16)
    manifest = msgspec.structs.replace(bundle.manifest, latents=latents)
    with pytest.raises(GraphInvalid, match=r"vae_decoder/model\.onnx"):
        load_decoder(msgspec.structs.replace(bundle, manifest=manifest), ONE_THREAD)


def test_a_bundle_without_a_decoder(tmp_path) -> None:
    bundle = some_pictures.write_bundle(tmp_path)
    manifest = msgspec.structs.replace(bundle.manifest, graphs={})
    with pytest.raises(ManifestInvalid, match="vae_decoder"):
        load_decoder(msgspec.structs.replace(bundle, manifest=manifest), ONE_THREAD)


def test_a_file_that_is_no_graph(tmp_path) -> None:
    bundle = some_pictures.write_bundle(tmp_path)
    (tmp_path / "vae_decoder" / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(GraphInvalid, match=r"vae_decoder/model\.onnx"):
        load_decoder(bundle, ONE_THREAD)
