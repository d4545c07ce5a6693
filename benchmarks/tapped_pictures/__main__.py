"""What whoever reads the trunk's messages sees of a picture.

That is the service itself, or a tapper where the link is not encrypted. With the split ``whole`` it
goes the device's way with what crosses the wire. With ``deep`` it tries what is simple: some
channels as they are, a linear map fitted on pictures of its own, and a search for the latents that
the public model's first block makes the same features of. All have the public model, and none has
the prompt's words. Prints Markdown, and draws a sheet.

    python -m benchmarks.tapped_pictures --model demo-image --out docs/images
"""

from __future__ import annotations

import argparse
import math
import pathlib

from benchmarks.picture_formats.measuring import Plan
from benchmarks.tapped_pictures.attempts import attempt_all

_SHEET_ROWS = 5


def main() -> None:
    """Try everything and print the table."""
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
    parser.add_argument("--guidance", type=float, default=5.0, help="its scale (%(default)s)")
    parser.add_argument(
        "--others", type=int, default=20, help="pictures a prompt to fit on (%(default)s)"
    )
    parser.add_argument("--threads", type=int, default=2, help="of torch (%(default)s)")
    parser.add_argument("--out", type=pathlib.Path, metavar="FOLDER", help="draw a PNG there")
    args = parser.parse_args()
    import torch

    from benchmarks.picture_formats.painter import open_painter
    from training.demo_image.prompts import shipped_prompts

    torch.set_num_threads(args.threads)
    after = [int(count) for count in args.after.split(",")]
    if not all(1 <= count <= args.steps for count in after):
        raise SystemExit(f"--after: from 1 to {args.steps}")
    prompts = tuple(one["prompt"] for one in shipped_prompts())
    # The map is fitted on other prompts and other seeds than those of the pictures attacked.
    attacked = Plan(prompts[0::2], (0,), args.steps, args.guidance)
    others = Plan(prompts[1::2], tuple(range(1, args.others + 1)), args.steps, args.guidance)
    true, attempts = attempt_all(open_painter(args.model), attacked, others, after)
    print("| split | seen by | after steps | PSNR, dB | SSIM |\n|---|---|---|---|---|")
    for one in attempts:
        psnr = f"{one.scores.psnr:.2f}" if math.isfinite(one.scores.psnr) else "the same"
        print(f"| {one.split} | {one.name} | {one.step or ''} | {psnr} | {one.scores.ssim:.3f} |")
    if args.out is not None:
        from benchmarks.tapped_pictures.sheet import draw_sheet

        args.out.mkdir(parents=True, exist_ok=True)
        shown = [one for one in attempts if one.step in (after[0], after[-1])]
        shown = [one for one in shown if one.step == after[-1] or one.split == "whole"]
        draw_sheet(true, shown, range(_SHEET_ROWS), args.out / "tapped_pictures.png")


if __name__ == "__main__":
    main()
