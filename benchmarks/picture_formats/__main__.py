"""What the formats of the predicted noise cost a picture: bytes, and likeness to that of fp32.

Makes pictures of 20 prompts with 3 seeds each in every format, with the codecs, solvers and rules
that device and server use, in one process. The trunk is synchronized (it steps with what the device
decodes, the default) or not. Pictures are compared with those of fp32 before they are rounded to
8 bits. Prints Markdown, and draws the curves and a sheet of pictures.

    python -m benchmarks.picture_formats --model demo-image --out docs/images
    python -m benchmarks.picture_formats --formats int5,nf4-delta --seeds 1     a quick look
"""

from __future__ import annotations

import argparse
import json
import pathlib
from dataclasses import asdict

from audit.pictures.asking import Plan
from benchmarks.picture_formats.chosen_formats import FORMATS
from benchmarks.picture_formats.measuring import measure
from benchmarks.picture_formats.table import best_of_four_bits, table
from lambda_split.wire.tensor_format import TensorFormat


def chosen(labels: str) -> list[TensorFormat]:
    """The formats of those names; all that the table has for an empty text."""
    if not labels:
        return list(FORMATS)
    found = {label: TensorFormat.from_label(label) for label in labels.split(",")}
    if unknown := [label for label, form in found.items() if form is None]:
        raise SystemExit(f"unknown formats: {', '.join(unknown)}")
    return [form for form in found.values() if form is not None]


def prompts_of(file: pathlib.Path | None) -> tuple[str, ...]:
    """The lines of a file; the demo image model's own prompts where there is none."""
    if file is not None:
        return tuple(line.strip() for line in file.read_text().splitlines() if line.strip())
    from training.demo_image.prompts import shipped_prompts

    return tuple(one["prompt"] for one in shipped_prompts())


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.picture_formats",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model", default="demo-image", help="the shipped one, or a folder (%(default)s)"
    )
    parser.add_argument("--formats", default="", help="their names, with commas; all by default")
    parser.add_argument("--prompts", type=pathlib.Path, help="a file, one a line")
    parser.add_argument("--seeds", type=int, default=3, help="pictures a prompt (%(default)s)")
    parser.add_argument("--steps", type=int, default=25, help="of a picture (%(default)s)")
    parser.add_argument("--guidance", type=float, default=5.0, help="its scale (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of torch (%(default)s)")
    parser.add_argument("--out", type=pathlib.Path, metavar="FOLDER", help="draw PNGs there")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="also write figures")
    args = parser.parse_args()
    import torch

    from audit.pictures.model import open_public_model

    torch.set_num_threads(args.threads)
    prompts = prompts_of(args.prompts)
    plan = Plan(prompts, tuple(range(args.seeds)), args.steps, args.guidance)
    wanted, figures = measure(open_public_model(args.model), plan, chosen(args.formats))
    print("\n".join(table(figures)))
    if sentence := best_of_four_bits(figures):
        print(f"\n{sentence}")
    if args.json is not None:
        rows = [
            {
                "format": one.form.label,
                "step_bytes": one.step_bytes,
                "picture_bytes": one.picture_bytes,
                "synchronized": asdict(one.synchronized),
                "unsynchronized": asdict(one.unsynchronized),
            }
            for one in figures
        ]
        args.json.write_text(json.dumps(rows, indent=2) + "\n")
    if args.out is not None:
        from benchmarks.picture_formats.plots import draw_curves, draw_sheet

        args.out.mkdir(parents=True, exist_ok=True)
        draw_curves(figures, args.out / "picture_formats.png")
        draw_sheet(wanted, figures, prompts, args.seeds, args.out / "picture_formats_sheet.png")


if __name__ == "__main__":
    main()
