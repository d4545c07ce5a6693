"""Train the demo language model from scratch, on the CPU, in under an hour.

The corpus is written on the fly by this package's own grammar; nothing is downloaded. The run
saves a checkpoint now and then (--resume goes on from it), and writes the model, rounded to
float16, with its tokenizer to --out. Afterwards run training.demo_text.evaluate, which measures
it and writes the model card.

  # The shipped model:
  python -m training.demo_text.train --out lambda_split/demo_models/text

  # A look at whether everything works, in a minute:
  python -m training.demo_text.train --minutes 1 --out build/demo_text_try
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer
from tqdm import tqdm
from transformers import LlamaForCausalLM

from .batching import IGNORE, Batch, batches
from .perplexity import held_out_documents, perplexity
from .recipe import MAX_POSITIONS, Recipe, model_config
from .shipping import round_to_half, ship_model, to_json, write_text
from .tokenizer import train_tokenizer

#: Held-out documents of each split that are measured during training.
_QUICK_DOCUMENTS: Final = 64
_LOG_EVERY: Final = 25


@dataclass
class Progress:
    """What a run has done so far; saved with each checkpoint."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    losses: list[tuple[int, float]] = field(default_factory=list)
    held_out: list[tuple[int, float, float]] = field(default_factory=list)

    def share(self, recipe: Recipe) -> float:
        """How much of the run is done, from 0 to 1."""
        return max(self.step / recipe.steps, self.seconds / (60 * recipe.minutes))


def new_model(recipe: Recipe) -> LlamaForCausalLM:
    """A model with fresh weights; what writes into the residual stream starts smaller."""
    torch.manual_seed(recipe.seed)
    config = model_config()
    # On the CPU and for short sequences, plain matrix products are faster than torch's fused
    # attention, whose backward pass alone took twice as long as all linear layers.
    model = LlamaForCausalLM(config)
    model.set_attn_implementation("eager")
    scale = (2 * config.num_hidden_layers) ** -0.5
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.mul_(scale)
    return model


def new_optimizers(model: LlamaForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for the embedding and the norms.

    Muon needs about half as many steps here, for a sixth more time a step. Matrices decay, which
    keeps outliers away and quantization easy; norms do not.
    """
    embedding = model.get_input_embeddings().weight
    matrices = [p for p in model.parameters() if p.ndim == 2 and p is not embedding]
    norms = [p for p in model.parameters() if p.ndim == 1]
    decay = recipe.weight_decay
    return [
        # Scaled so that an update is as large as one of AdamW: one learning rate fits both.
        torch.optim.Muon(matrices, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(
            [
                {"params": [embedding], "weight_decay": decay},
                {"params": norms, "weight_decay": 0.0},
            ],
            betas=(0.9, 0.95),
            fused=True,
        ),
    ]


def train(recipe: Recipe, out: Path, work: Path, *, resume: bool, publish_every: int) -> Progress:
    """Run the training.

    Args:
        recipe: The numbers of the run.
        out: Where the model goes.
        work: Where checkpoints go.
        resume: Go on from the checkpoint in ``work``.
        publish_every: Also write the model each so many steps; 0 means only at the end.

    Returns:
        The finished run's progress.
    """
    saved = torch.load(work / "checkpoint.pt", weights_only=True) if resume else None
    # Weights mean nothing without their tokenizer, so a resumed run takes the saved one.
    tokenizer = Tokenizer.from_str(saved["tokenizer"]) if saved else train_tokenizer()
    model, progress = new_model(recipe), Progress()
    optimizers = new_optimizers(model, recipe)
    if saved:
        model.load_state_dict(saved["model"])
        for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        progress = Progress(**saved["progress"])
    # A resumed run reads another stream instead of skipping what the first one has read.
    seed = recipe.seed * 100_000 + progress.step
    stream = batches(tokenizer, seed=seed, size=recipe.batch_tokens, longest=MAX_POSITIONS)
    held_out = [held_out_documents(tokenizer, s, _QUICK_DOCUMENTS) for s in ("seen", "unseen")]
    before, started = progress.seconds, time.perf_counter()
    recent: list[float] = []
    with tqdm(total=recipe.steps, initial=progress.step, unit="step", file=sys.stderr) as bar:
        while progress.share(recipe) < 1.0:
            batch = next(stream)
            rate = recipe.learning_rate_at(progress.step, progress.share(recipe))
            recent.append(_step(model, optimizers, batch, rate, recipe.clip_norm))
            progress.step += 1
            progress.tokens += int((batch.labels != IGNORE).sum())
            progress.seconds = before + time.perf_counter() - started
            bar.update()
            if progress.step % _LOG_EVERY == 0:
                progress.losses.append((progress.step, round(sum(recent) / len(recent), 4)))
                bar.set_postfix(loss=progress.losses[-1][1], done=f"{progress.share(recipe):.0%}")
                recent = []
            if progress.step % 500 == 0:
                seen, unseen = (perplexity(model, texts).value for texts in held_out)
                progress.held_out.append((progress.step, round(seen, 4), round(unseen, 4)))
                _save_checkpoint(work, model, optimizers, progress, tokenizer)
                bar.write(f"step {progress.step}: held-out perplexity {seen:.3f}, {unseen:.3f}")
            if publish_every and progress.step % publish_every == 0:
                ship_model(model, tokenizer, out)
    _save_checkpoint(work, model, optimizers, progress, tokenizer)
    ship_model(round_to_half(model), tokenizer, out)
    return progress


def _step(
    model: LlamaForCausalLM,
    optimizers: list[torch.optim.Optimizer],
    batch: Batch,
    rate: float,
    clip_norm: float,
) -> float:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(input_ids=batch.ids, labels=batch.labels, use_cache=False).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


def _save_checkpoint(
    work: Path,
    model: LlamaForCausalLM,
    optimizers: list[torch.optim.Optimizer],
    progress: Progress,
    tokenizer: Tokenizer,
) -> None:
    work.mkdir(parents=True, exist_ok=True)
    state: dict[str, Any] = {
        "model": model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "progress": asdict(progress),
        "tokenizer": tokenizer.to_str(),
    }
    torch.save(state, work / "checkpoint.tmp")
    (work / "checkpoint.tmp").replace(work / "checkpoint.pt")


def _parser() -> argparse.ArgumentParser:
    default = Recipe()
    parser = argparse.ArgumentParser(
        prog="python -m training.demo_text.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder for the model; its files are replaced")
    add("--work", type=Path, default=Path("build/demo_text"),
        help="folder for checkpoints (default build/demo_text)")  # fmt: skip
    add("--steps", type=int, default=default.steps,
        help=f"end after so many optimizer steps (default {default.steps})")  # fmt: skip
    add("--minutes", type=float, default=default.minutes,
        help=f"end after so much training, even with steps left (default {default.minutes:g}); the"
        " learning rate falls accordingly")  # fmt: skip
    add("--learning-rate", type=float, default=default.learning_rate,
        help=f"peak learning rate (default {default.learning_rate:g})")  # fmt: skip
    add("--seed", type=int, default=default.seed, help="seed of corpus and weights (default 0)")
    add("--threads", type=int, default=2, help="CPU threads (default 2)")
    add("--resume", action="store_true", help="go on from the checkpoint in --work")
    add("--publish-every", type=int, default=0, metavar="STEPS",
        help="also write the unfinished model to --out now and then (default: never)")  # fmt: skip
    return parser


def main() -> None:
    """Train, write the model, and start its training log."""
    arguments = _parser().parse_args()
    torch.set_num_threads(arguments.threads)
    recipe = replace(
        Recipe(),
        steps=arguments.steps,
        minutes=arguments.minutes,
        learning_rate=arguments.learning_rate,
        seed=arguments.seed,
    )
    progress = train(
        recipe, arguments.out, arguments.work,
        resume=arguments.resume, publish_every=arguments.publish_every,
    )  # fmt: skip
    log = {
        "command": "python -m training.demo_text.train " + " ".join(sys.argv[1:]),
        "threads": arguments.threads,
        "recipe": asdict(recipe),
        "steps": progress.step,
        "tokens": progress.tokens,
        "seconds": round(progress.seconds, 1),
        "tokens_per_second": round(progress.tokens / progress.seconds),
        "loss": [list(entry) for entry in progress.losses],
        "held_out_while_training": [list(entry) for entry in progress.held_out],
    }
    write_text(arguments.out / "training_log.json", to_json(log))
    shown = {key: value for key, value in log.items() if not isinstance(value, list)}
    print(json.dumps(shown))


if __name__ == "__main__":
    main()
