"""The benchmark of the deep split counts the bytes that cross."""

from __future__ import annotations

import pytest

from benchmarks.deep_split import FORMATS, step_bytes
from edge_runtime import ImageGenerator, PictureSpec
from lambda_split.wire.pictures.layout import DeepGeometry
from lambda_split.wire.tensor_format import TensorFormat
from tests.edge_runtime.hostile_server import hostile_server
from tests.edge_runtime.pictures.some_blocks import BLOCKS, serve_twice, write_deep_bundle
from tests.edge_runtime.pictures.some_pictures import ONE_THREAD, SIDE

GEOMETRY = DeepGeometry(BLOCKS.input_channels, BLOCKS.output_channels, BLOCKS.reduction)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_deep_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.mark.parametrize(("guidance", "branches"), [(3.0, 2), (1.0, 1)])
@pytest.mark.parametrize("label", FORMATS.split(","))
def test_a_step_costs_what_it_says(bundle, label, guidance, branches) -> None:
    images = 2

    def script(peer) -> None:
        serve_twice(peer, rows=images * branches)

    with (
        hostile_server(script) as server,
        ImageGenerator.open(bundle, server.url, format=label, runtime=ONE_THREAD) as painter,
    ):
        few, more = (
            painter.generate(
                "a cat", spec=PictureSpec(steps=steps, seed=1, images=images, guidance=guidance)
            ).stats
            for steps in (10, 13)
        )
    form = TensorFormat.from_label(label)
    _, _, up, down = step_bytes(form, GEOMETRY, (SIDE, SIDE), images, branches)
    assert more.bytes_down - few.bytes_down == 3 * down
    # The settings name each step's time, so they grow by a few characters, too.
    assert 0 <= more.bytes_up - few.bytes_up - 3 * up <= 3 * 20
