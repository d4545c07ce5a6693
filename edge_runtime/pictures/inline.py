"""Pictures within a notebook's page."""

from __future__ import annotations

import base64
import html

from edge_runtime.pictures.decoder import Pixels
from edge_runtime.pictures.png import encode_png

__all__ = ["inline_pictures"]

_PLACE = "display:flex;flex-wrap:wrap;gap:.5em;margin:.3em 0 .5em 0"
_PICTURE = "max-width:100%;height:auto;margin:0"


def inline_pictures(images: Pixels, what: str) -> str:
    """Pictures side by side as HTML, each a PNG file within the page.

    Args:
        images: uint8 (images, height, width, 3).
        what: What to say of them to who does not see them.
    """
    count, height, width = images.shape[:3]
    shown = "".join(
        f'<img src="data:image/png;base64,{base64.b64encode(encode_png(image)).decode("ascii")}" '
        f'width="{width}" height="{height}" style="{_PICTURE}" '
        f'alt="{html.escape(what)}, {number} of {count}">'
        for number, image in enumerate(images, start=1)
    )
    return f'<div style="{_PLACE}">{shown}</div>'
