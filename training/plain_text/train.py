"""Train a small Llama on a text file, on the CPU.

The demo model knows only the sentences of its grammar, which are easy to foresee. What is measured
on it (what leaks, what a defence costs) is therefore measured on ordinary text as well. The last
tenth of the file is held out: training never sees it, and ``held_out.txt`` beside the model holds
it for measurements.

  python -m training.plain_text.train --text tinyshakespeare.txt --out build/plain_text
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Final

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from training.demo_text.recipe import Recipe
from training.demo_text.train import new_optimizers

VOCABULARY: Final = 1024
MAX_POSITIONS: Final = 512
BOS, EOS = "<s>", "</s>"
_HELD_OUT: Final = 0.1
_ROW_TOKENS: Final = 256  # longer rows cost attention, and the text has few longer scenes


def train_tokenizer(text: str) -> Tokenizer:
    """A byte-level BPE tokenizer of the text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, 0)]
    )
    return tokenizer


def new_model(seed: int) -> LlamaForCausalLM:
    """A model of the demo model's size."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=8,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        attention_dropout=0.1,
        bos_token_id=0,
        eos_token_id=1,
    )
    model = LlamaForCausalLM(config)
    model.set_attn_implementation("eager")  # faster to train on a CPU
    return model


def rows(ids: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Random passages, each after the start token: int64 (count, 256)."""
    starts = torch.randint(0, len(ids) - _ROW_TOKENS, (count,), generator=generator)
    body = torch.stack([ids[start : start + _ROW_TOKENS - 1] for start in starts.tolist()])
    return torch.cat([torch.zeros(count, 1, dtype=torch.long), body], dim=1)


@torch.inference_mode()
def held_out_perplexity(model: LlamaForCausalLM, ids: torch.Tensor) -> float:
    """Perplexity per token over passages side by side."""
    model.eval()
    whole = len(ids) // (_ROW_TOKENS - 1) * (_ROW_TOKENS - 1)
    body = ids[:whole].view(-1, _ROW_TOKENS - 1)  # (tokens,) -> (passages, 255)
    batch = torch.cat([torch.zeros(len(body), 1, dtype=torch.long), body], dim=1)
    losses = [float(model(input_ids=part, labels=part).loss) for part in batch.split(16)]
    model.train()
    return math.exp(sum(losses) / len(losses))


def train(text: str, out: Path, *, minutes: float, seed: int, batch_rows: int = 12) -> None:
    """Train for a time and write model, tokenizer and the held-out text."""
    cut = text.rindex("\n\n", 0, int(len(text) * (1 - _HELD_OUT))) + 2
    tokenizer = train_tokenizer(text[:cut])
    known, held_out = (
        torch.tensor(tokenizer.encode(part, add_special_tokens=False).ids)
        for part in (text[:cut], text[cut:])
    )
    model = new_model(seed)
    optimizers = new_optimizers(model, Recipe())
    generator = torch.Generator().manual_seed(seed)
    recipe = Recipe(learning_rate=2e-3)
    began, step, share = time.perf_counter(), 0, 0.0
    with tqdm(total=100, unit="%", file=sys.stderr) as bar:
        while share < 1.0:
            batch = rows(known, batch_rows, generator)
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = recipe.learning_rate_at(step, share)
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(input_ids=batch, labels=batch, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            step += 1
            share = (time.perf_counter() - began) / (60 * minutes)
            bar.update(min(100, int(100 * share)) - bar.n)
            if step % 200 == 0:
                bar.write(f"step {step}: loss {float(loss.detach()):.3f}")
            if step % 1000 == 0:
                perplexity = held_out_perplexity(model, held_out[:20_000])
                bar.write(f"step {step}: held-out perplexity {perplexity:.2f}")
    write(model, tokenizer, out)
    (out / "held_out.txt").write_text(text[cut:], encoding="utf-8")
    log = {
        "steps": step,
        "minutes": round((time.perf_counter() - began) / 60, 1),
        "tokens": step * batch_rows * _ROW_TOKENS,
        "held_out_perplexity": round(held_out_perplexity(model, held_out), 3),
    }
    (out / "training_log.json").write_text(json.dumps(log, indent=2) + "\n")
    print(json.dumps(log))


def write(model: LlamaForCausalLM, tokenizer: Tokenizer, out: Path) -> None:
    """Write what ``from_pretrained`` reads."""
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, model_max_length=MAX_POSITIONS
    ).save_pretrained(out)


def main() -> None:
    """Read the file and train."""
    parser = argparse.ArgumentParser(
        prog="python -m training.plain_text.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--text", type=Path, required=True, help="a text of a few hundred kB")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    parser.add_argument("--minutes", type=float, default=20.0, help="how long (default 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the passages")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    text = arguments.text.read_text(encoding="utf-8")
    train(text, arguments.out, minutes=arguments.minutes, seed=arguments.seed)


if __name__ == "__main__":
    main()
