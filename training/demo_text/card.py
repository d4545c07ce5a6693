"""The model card and the picture of the loss curve, both written from the training log."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

from .recipe import model_config
from .things import THINGS
from .world import ANIMALS, PLACES, STORYTELLER, WORLD

_SPEAKERS: Final = {"user": "You", "assistant": STORYTELLER, "system": "System"}


def draw_loss_curve(log: dict[str, Any], path: Path) -> None:
    """Draw training loss and held-out perplexity over the steps."""
    mpl.use("Agg")  # No screen is needed; chosen here so that importing has no effect.
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 3.2), dpi=90)
    steps, losses = zip(*log["loss"], strict=True)
    axes.plot(steps, losses, linewidth=0.8, color="#4472a8", label="training loss")
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats per token)")
    axes.set_ylim(0, min(3.0, max(losses)))
    if log["held_out_while_training"]:
        other = axes.twinx()
        points, seen, unseen = zip(*log["held_out_while_training"], strict=True)
        other.plot(points, seen, "o-", markersize=3, linewidth=0.8, color="#c05a2e",
                   label="held-out perplexity, seen combinations")  # fmt: skip
        other.plot(points, unseen, "s--", markersize=3, linewidth=0.8, color="#6a9a3b",
                   label="held-out perplexity, unseen combinations")  # fmt: skip
        other.set_ylabel("perplexity")
        other.set_ylim(1, max(*seen, *unseen) * 1.05)
    figure.legend(loc="upper right", bbox_to_anchor=(0.88, 0.95), fontsize=7)
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


def model_card(log: dict[str, Any]) -> str:
    """Write the model card."""
    found = log["evaluation"]
    perplexities = found["held_out_perplexity"]
    config = model_config()
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    rows = [
        ("parameters", f"{found['parameters']:,}"),
        ("size of all files here", f"{found['bytes'] / 1e6:.1f} MB"),
        ("training tokens", f"{log['tokens']:,} ({log['steps']:,} steps)"),
        ("training time", f"{log['seconds'] / 60:.0f} minutes on {_threads(log['threads'])}"),
        ("training speed", f"{log['tokens_per_second']:,} tokens/s"),
        ("perplexity, held out by seed", f"{perplexities['seen_combinations']:.3f}"),
        ("perplexity, unseen combinations", f"{perplexities['unseen_combinations']:.3f}"),
        ("perplexity of `heldout.jsonl`", f"{perplexities['heldout_jsonl']:.3f}"),
        ("stories with the animal and the thing asked for",
         _share(found["story_has_what_was_asked"])),
        ("follow-ups on who, what and where, right word for word",
         _share(found["follow_ups_on_who_what_where_right"])),
        ("follow-ups on moods, days and seasons, right word for word",
         _share(found["follow_ups_on_moods_and_times_right"])),
        ("facts right, word for word", _share(found["facts_right"])),
        ("largest weight of any matrix", f"{found['largest_weight']:.2f}"),
    ]  # fmt: skip
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    samples = "\n\n---\n\n".join(_dialogue(sample) for sample in found["samples"])
    return f"""---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---

# Willow Vale storyteller

A very small chat model that tells stories about an invented world, {WORLD}: {len(ANIMALS)} animals,
{len(PLACES)} places and {len(THINGS)} things. It tells a story on request, answers questions about
the story it has just told, and knows where each animal lives and what it eats. It is here so that
Λ-Split can be tried at once, without a download, on a model that visibly works.

## What it is

A Llama (`LlamaForCausalLM`) with {config.num_hidden_layers} layers, width {config.hidden_size},
{heads} query heads and {groups} key/value heads of size {config.head_dim}, feed-forward width
{config.intermediate_size}, a byte-level BPE vocabulary of {config.vocab_size} tokens, tied
embeddings and {config.max_position_embeddings} positions. Weights are stored in float16; the
figures below are those of the float16 weights, computed with in float32.

| | |
|---|---|
{table}

![Training loss and held-out perplexity](loss_curve.png)

"Unseen combinations" are stories about an animal, a thing and a place that never occur together in
the training text. Most of the remaining perplexity is free choice: which friend comes along, or
what the weather is like, cannot be foreseen.

## Samples

Greedy, from the shipped weights.

{samples}

---

Plain completion, without chat markup:

> {found["plain_sample"]}

## Where the text is from

Every training document is written by the grammar in `training/demo_text/`, which was made for this
project. No other text, model or data set went into it. Text, tokenizer and weights are under the
Apache License 2.0.

## How to make it again

```
python -m training.demo_text.train --out lambda_split/demo_models/text
python -m training.demo_text.evaluate --model lambda_split/demo_models/text
```

{log.get("note", "")}Corpus, split and tokenizer are the same each time. The weights are
not bit for bit the same: the run ends after a set time, so a faster machine does more steps.

## Files

| file | |
|---|---|
| `model.safetensors`, `config.json`, `generation_config.json` | the model |
| `tokenizer.json`, `tokenizer_config.json`, `chat_template.jinja` | tokenizer and chat format |
| `heldout.jsonl` | some fifty held-out documents: half by seed, half unseen combinations |
| `prompts.json` | 20 prompts for tests, as chat messages |
| `training_log.json`, `loss_curve.png` | every figure on this page |

## Limits

- It knows {WORLD} and nothing else. To other questions it says that it does not know, but a
  question in unfamiliar words may also get an answer that is beside the point.
- Its sentences are those of its grammar. It writes no other style, and English only.
- In its world a season belongs to a place, and a mood to what has happened. A story given to it
  that says otherwise may be remembered wrongly: it looks up who, what and where, but guesses these.
- Greedy, it likes some adjectives and places best; sampling gives more variety.
- It has seen chats of up to about 1000 tokens, most of them shorter than 400.
- It is a demonstration, not a measure of anything: what splitting, quantizing or a codec does to
  it says little about what they do to a large model.
"""


def _dialogue(messages: list[dict[str, str]]) -> str:
    return "\n\n".join(f"**{_SPEAKERS[m['role']]}:** {m['content']}" for m in messages)


def _share(score: dict[str, int]) -> str:
    return f"{score['right']} of {score['asked']} ({score['right'] / score['asked']:.0%})"


def _threads(count: int) -> str:
    return "one CPU thread" if count == 1 else f"{count} CPU threads"
