"""What whoever reads the trunk's messages sees of a picture: a table, and a sheet of pictures.

All attacks are those of ``audit.pictures``. Prints Markdown.

    python -m benchmarks.tapped_pictures --model demo-image --out docs/images
"""

from __future__ import annotations

import argparse
import math
import pathlib
from collections.abc import Sequence
from textwrap import fill

import numpy as np

from audit.pictures import PictureAttack, PicturesAudit, audit_pictures
from edge_runtime.graph_session import RuntimeSettings
from edge_runtime.pictures.prompts import PromptEncoders, load_prompt_encoders
from export.progress import progress_on_stderr
from lambda_split.image_bundle import load_image_bundle


def main() -> None:
    """Audit, and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tapped_pictures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model", default="demo-image", help="the shipped one, or a folder (%(default)s)"
    )
    parser.add_argument("--steps", type=int, default=25, help="of a picture (%(default)s)")
    parser.add_argument("--after", default="5,13,25", help="steps that were seen (%(default)s)")
    parser.add_argument("--pairs", default="8,64,200", help="to learn from (%(default)s)")
    parser.add_argument("--guidance", type=float, default=5.0, help="its scale (%(default)s)")
    parser.add_argument("--bundle", metavar="FOLDER", help="encode prompts with its text encoders")
    parser.add_argument("--threads", type=int, default=2, help="of torch (%(default)s)")
    parser.add_argument("--out", type=pathlib.Path, metavar="FOLDER", help="draw a PNG there")
    args = parser.parse_args()
    import torch

    torch.set_num_threads(args.threads)
    progress = progress_on_stderr()
    found = audit_pictures(
        args.model,
        encoders=None if args.bundle is None else encoders_of(args.bundle),
        steps=args.steps,
        guidance=args.guidance,
        after=[int(count) for count in args.after.split(",")],
        pairs=[int(count) for count in args.pairs.split(",")],
        whole_formats=("fp16",),
        deep_formats=("fp16",),
        progress=progress,
    )
    progress.close()
    print("\n".join(table(found)))
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        draw_sheet(found, args.out / "tapped_pictures.png")


def encoders_of(bundle: str) -> PromptEncoders:
    """A bundle's text encoders, in its own weight format."""
    return load_prompt_encoders(load_image_bundle(bundle), RuntimeSettings())


def table(found: PicturesAudit) -> list[str]:
    """Prompts in a sentence, pictures in a table."""
    prompts, control = found.prompts, found.control
    sentence = (
        f"{prompts.recovered} of {prompts.total} tokens of {len(found.captions)} prompts were found"
        f" in {prompts.seconds:.1f} s; {control.recovered} of {control.total} from noise."
    )
    lines = [
        sentence,
        "",
        "| split | seen by | after steps | own pictures | PSNR, dB | SSIM |",
        "|---|---|---|---|---|---|",
    ]
    for one in found.attacks:
        mean = float(np.mean(one.likeness.psnr))
        cells = (
            one.split,
            one.name,
            str(one.step or ""),
            str(one.pairs or ""),
            f"{mean:.2f}" if math.isfinite(mean) else "the same",
            f"{np.mean(one.likeness.ssim):.3f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def draw_sheet(found: PicturesAudit, path: pathlib.Path) -> None:
    """Draw the first pictures, an attack a column, those after the last step and some before."""
    import matplotlib as mpl

    from benchmarks.picture_formats.plots import save_small

    mpl.use("Agg")  # no screen is needed; chosen here so that importing has no effect
    import matplotlib.pyplot as plt

    columns = {"the picture": found.samples.shown} | {
        fill(f"{one.split}: {one.name}, {one.step} steps", 17): one.pictures
        for one in _shown(found.attacks)
    }
    rows = len(found.samples.shown)
    figure, places = plt.subplots(
        rows, len(columns), figsize=(1.05 * len(columns), 0.97 * rows + 0.45), dpi=90, squeeze=False
    )
    for column, (name, pictures) in enumerate(columns.items()):
        places[0][column].set_title(name, fontsize=6)
        for row, picture in enumerate(pictures):
            places[row][column].imshow(picture, interpolation="nearest")
            places[row][column].axis("off")
    figure.tight_layout(pad=0.3)
    save_small(figure, path)
    plt.close(figure)


def _shown(attacks: Sequence[PictureAttack]) -> list[PictureAttack]:
    """What goes into the sheet: of ``whole`` the first and last steps, of ``deep`` the last."""
    steps = sorted({one.step for one in attacks if one.step})
    most = max(one.pairs for one in attacks)
    return [
        one
        for one in attacks
        if one.step
        and (one.step == steps[-1] or (one.step == steps[0] and one.split == "whole"))
        and one.pairs in {0, most}
    ]


if __name__ == "__main__":
    main()
