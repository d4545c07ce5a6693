"""Measure the shipped pipeline and write its model card.

Measures what is shipped: the float16 weights in --model, computed with in float32, with diffusers'
own pipeline. Renders captions that training has not seen, and judges the pictures by their pixels;
pictures of an empty prompt are the control. Adds the figures to training_log.json and writes
README.md, loss_curves.png, samples.png and prompts.json beside the model.

  python -m training.demo_image.evaluate --model lambda_split/demo_models/image
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import StableDiffusionXLPipeline

from .card import model_card
from .following import decoded_again, drawn, prompted, scenes_to_ask_for, unprompted
from .prompts import SHEET, shipped_prompts
from .rendering import GUIDANCE, STEPS, load_pipeline, render
from .sheet import draw_loss_curves, draw_sheet
from .shipping import to_json, write_text

_SHEET_SEEDS: Final = 6
#: Other settings than the usual ones: steps and guidance.
_SETTINGS: Final = ((4, GUIDANCE), (8, GUIDANCE), (STEPS, 1.0), (STEPS, 2.5), (STEPS, 7.5))
_OTHER_SIZES: Final = ((64, 96), (96, 64))


def measure(pipeline: StableDiffusionXLPipeline, count: int) -> dict[str, Any]:
    """Measure a pipeline.

    Args:
        pipeline: The pipeline, in float32.
        count: Captions of each split; other settings and sizes get half as many.

    Returns:
        The figures, ready for the training log.
    """
    seen, unseen = (scenes_to_ask_for(split, count) for split in ("seen", "unseen"))
    some = seen[: max(1, count // 2)]
    pictures, judged = drawn(seen)
    decoded, psnr = decoded_again(pipeline.vae, pictures, seen)
    return {
        "dtype": "float16 weights, float32 arithmetic",
        "parameters": {
            part: sum(weights.numel() for weights in getattr(pipeline, part).parameters())
            for part in ("unet", "vae", "text_encoder", "text_encoder_2")
        },
        "steps": STEPS,
        "guidance": GUIDANCE,
        "seen": prompted(pipeline, seen).as_dict(),
        "unseen": prompted(pipeline, unseen).as_dict(),
        "no_prompt": unprompted(pipeline, some).as_dict(),
        "drawn": judged.as_dict(),
        "decoded_again": decoded.as_dict(),
        "decoded_again_psnr_db": round(psnr, 2),
        "settings": [
            {"steps": steps, "guidance": guidance}
            | prompted(pipeline, some, steps=steps, guidance=guidance).as_dict()
            for steps, guidance in _SETTINGS
        ],
        "sizes": [
            {"size": list(size)} | prompted(pipeline, some, size=size).as_dict()
            for size in _OTHER_SIZES
        ],
    }


def main() -> None:
    """Measure, then write the log, the card, the curves, the samples and the prompts."""
    parser = argparse.ArgumentParser(
        prog="python -m training.demo_image.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", type=Path, required=True, help="folder of the shipped pipeline")
    parser.add_argument("--captions", type=int, default=200,
                        help="captions of each split (default 200)")  # fmt: skip
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    folder: Path = arguments.model
    pipeline = load_pipeline(folder)
    prompts = shipped_prompts()
    write_text(folder / "prompts.json", to_json(prompts))
    rows = []
    for number in SHEET:
        prompt, seeds = prompts[number]["prompt"], range(_SHEET_SEEDS)
        rows.append((prompt, render(pipeline, [prompt] * _SHEET_SEEDS, seeds=seeds)))
    draw_sheet(rows, folder / "samples.png")
    log: dict[str, Any] = json.loads((folder / "training_log.json").read_text())
    draw_loss_curves(log, folder / "loss_curves.png")
    log["evaluation"] = measure(pipeline, arguments.captions)
    files = [path for path in folder.rglob("*") if path.is_file()]
    log["evaluation"]["bytes"] = sum(path.stat().st_size for path in files)
    write_text(folder / "training_log.json", to_json(log))
    write_text(folder / "README.md", model_card(log))
    print(json.dumps(log["evaluation"], indent=2))


if __name__ == "__main__":
    main()
