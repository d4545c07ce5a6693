r"""Train the demo image model from scratch, on the CPU, in about an hour and a half.

Every picture is drawn and described by this package; nothing is downloaded. Four stages: the
autoencoder, the latents of the training pictures, the meaning of captions, the denoiser. --work
keeps what each has reached: whoever interrupts the run (Ctrl-C finishes the step and saves) and
starts it again goes on from there. At the end the pipeline is written to --out, its weights
rounded to float16. Afterwards run training.demo_image.evaluate, which measures it and writes the
model card.

  # The shipped model:
  python -m training.demo_image.train --out lambda_split/demo_models/image

  # A look at whether everything works, in a few minutes:
  python -m training.demo_image.train --autoencoder-minutes 1 --wording-minutes 1 --minutes 1 \
      --pictures 500 --work build/demo_image_try --out build/demo_image_try/pipeline
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from .autoencoder import train_autoencoder
from .denoiser import Noising, train_denoiser
from .latents import cached_latents, encode_pictures
from .parallel import Workers
from .recipe import SIZES, Recipe
from .scene import Split
from .shipping import ship_pipeline, to_json, write_text
from .tokenizer import load_tokenizers, save_tokenizers
from .wording import train_wording

#: Pictures of each split whose loss is measured during training.
_HELD_OUT_PICTURES: Final = 96
_HELD_OUT: Final[tuple[tuple[Split, int], ...]] = (("seen", 1_000_001), ("unseen", 1_000_002))


def train(
    recipe: Recipe, out: Path, work: Path, workers: Workers, stop: threading.Event
) -> dict[str, Any] | None:
    """Run all stages, or what is left of them.

    Args:
        recipe: The numbers of the run.
        out: Where the pipeline goes.
        work: Where checkpoints go, and where they are looked for.
        workers: Compute the gradients.
        stop: Set to end early, with a checkpoint and without a pipeline.

    Returns:
        What the training log says of the run, or None if it was stopped.
    """
    with tempfile.TemporaryDirectory() as folder:
        save_tokenizers(Path(folder))
        noising = Noising(load_tokenizers(Path(folder)))
    autoencoder, first, done = train_autoencoder(recipe, work, workers, stop)
    if not done:
        return None
    autoencoder.eval().requires_grad_(requires_grad=False)
    latents = cached_latents(autoencoder, recipe, work, workers)
    seen, unseen = (
        replace(
            encode_pictures(autoencoder, _HELD_OUT_PICTURES, seed, workers, split=split),
            scaling_factor=latents.scaling_factor,
        )
        for split, seed in _HELD_OUT
    )
    encoders, words, done = train_wording(recipe, work, noising, workers, stop)
    if not done:
        return None
    denoiser, second, done = train_denoiser(
        recipe,
        work,
        encoders=encoders,
        latents=latents,
        held_out=(seen, unseen),
        noising=noising,
        workers=workers,
        stop=stop,
    )
    if not done:
        return None
    ship_pipeline(denoiser, autoencoder, latents.scaling_factor, out)
    return {
        "recipe": asdict(recipe) | {"sizes": [list(size) for size in SIZES]},
        "autoencoder": asdict(first) | {"pictures": first.step * recipe.autoencoder.batch},
        "wording": asdict(words) | {"captions": words.step * recipe.wording.batch},
        "denoiser": asdict(second) | {"pictures": second.step * recipe.denoiser.batch},
        "scaling_factor": round(latents.scaling_factor, 6),
    }


def _parser() -> argparse.ArgumentParser:
    default = Recipe()
    parser = argparse.ArgumentParser(
        prog="python -m training.demo_image.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder for the pipeline; its files are replaced")
    add("--work", type=Path, default=Path("build/demo_image"),
        help="folder for checkpoints; a run found there is gone on with"
        " (default build/demo_image)")  # fmt: skip
    add("--autoencoder-minutes", type=float, default=default.autoencoder.minutes,
        help=f"end the first stage after so long (default {default.autoencoder.minutes:g})"
        )  # fmt: skip
    add("--autoencoder-steps", type=int, default=default.autoencoder.steps,
        help=f"or after so many steps (default {default.autoencoder.steps})")  # fmt: skip
    add("--wording-minutes", type=float, default=default.wording.minutes,
        help="end the training of the text encoders after so long"
        f" (default {default.wording.minutes:g})")  # fmt: skip
    add("--minutes", type=float, default=default.denoiser.minutes,
        help=f"end the last stage after so long (default {default.denoiser.minutes:g}); the"
        " learning rates fall accordingly")  # fmt: skip
    add("--steps", type=int, default=default.denoiser.steps,
        help=f"or after so many steps (default {default.denoiser.steps})")  # fmt: skip
    add("--pictures", type=int, default=default.pictures,
        help=f"pictures to draw and encode (default {default.pictures})")  # fmt: skip
    add("--seed", type=int, default=default.seed, help="seed of pictures and weights (default 0)")
    add("--threads", type=int, default=2, help="CPU threads (default 2)")
    return parser


def main() -> None:
    """Train, write the pipeline, and start its training log."""
    arguments = _parser().parse_args()
    default = Recipe()
    recipe = replace(
        default,
        autoencoder=replace(
            default.autoencoder,
            steps=arguments.autoencoder_steps,
            minutes=arguments.autoencoder_minutes,
        ),
        wording=replace(default.wording, minutes=arguments.wording_minutes),
        denoiser=replace(default.denoiser, steps=arguments.steps, minutes=arguments.minutes),
        pictures=arguments.pictures,
        seed=arguments.seed,
    )
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    log = train(recipe, arguments.out, arguments.work, Workers(arguments.threads), stop)
    if log is None:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return
    log = {
        "command": "python -m training.demo_image.train " + " ".join(sys.argv[1:]),
        "threads": arguments.threads,
    } | log
    write_text(arguments.out / "training_log.json", to_json(log))
    print(json.dumps({stage: log[stage]["losses"][-1:] for stage in ("autoencoder", "denoiser")}))


if __name__ == "__main__":
    main()
