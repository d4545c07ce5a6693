"""The model card, written from the training log."""

from __future__ import annotations

from typing import Any

from .recipe import MAX_TOKENS, SIDE
from .world import BACKGROUNDS, KINDS, PLACES, SHAPE_COLOURS


def model_card(log: dict[str, Any]) -> str:
    """Write the model card."""
    found = log["evaluation"]
    parameters = found["parameters"]
    autoencoder, wording, denoiser = log["autoencoder"], log["wording"], log["denoiser"]
    parts = "\n".join(f"| {part} | {count:,} |" for part, count in parameters.items())
    main = [
        (f"captions held out by seed ({_at(found)})", found["seen"]),
        ("captions with a thing that training never showed", found["unseen"]),
        ("no prompt, judged by the same captions", found["no_prompt"]),
        ("drawn pictures: the judge's own test", found["drawn"]),
        ("drawn pictures through the autoencoder and back", found["decoded_again"]),
    ]
    others = [(_at(one), one) for one in found["settings"]]
    others += [(f"{one['size'][0]} × {one['size'][1]} (height × width)", one)
               for one in found["sizes"]]  # fmt: skip
    return f"""---
license: apache-2.0
language: en
library_name: diffusers
pipeline_tag: text-to-image
---

# Coloured shapes

A very small text-to-image pipeline with the architecture of Stable Diffusion XL. It draws one or
two coloured shapes where the prompt says, {SIDE} × {SIDE} pixels. It is here so that Λ-Split can be
tried at once, without a download, on a pipeline that visibly follows its prompt.

![Samples: a prompt a row, a seed a column](samples.png)

{_at(found)}, made by diffusers from the files here, without selection.

## What it is

`StableDiffusionXLPipeline`: two CLIP text encoders (three layers each; widths 64 and 96), their
states before the last layer side by side, the second one's pooled embedding and the six size
numbers added to the time embedding; a UNet of two levels (32 and 96 channels, attention in the
second); a VAE with 4 channels, a latent for 4 × 4 pixels; prompts of up to {MAX_TOKENS} tokens; an
Euler scheduler with SDXL's noise schedule and trailing timesteps. Weights are stored in float16,
{found["bytes"] / 1e6:.1f} MB with everything here.

| part | parameters |
|---|---|
{parts}

## What it can

- Shapes: {", ".join(KINDS)}
- Colours of shapes: {", ".join(SHAPE_COLOURS)}
- Backgrounds: {", ".join(BACKGROUNDS)}
- Places: {", ".join(PLACES)}
- "small" and "large", and relations: "above", "below", "left of", "right of"

Prompts look like

> a red circle on the left and a blue square on the right, on a white background

`training/demo_image/judge.py` tells from the pixels whether a picture has the right background,
every colour, in its place, in its shape, and nothing else. Shares of pictures:

{_table(main)}

The same for other settings, on {found["settings"][0]["asked"]} of the captions held out by seed:

{_table(others)}

The autoencoder alone returns drawn pictures with a peak signal-to-noise ratio of
{found["decoded_again_psnr_db"]:.1f} dB. All figures are those of the float16 weights, computed with
in float32.

## How it was trained

| | autoencoder | text encoders | UNet |
|---|---|---|---|
| steps | {autoencoder["step"]:,} | {wording["step"]:,} | {denoiser["step"]:,} |
| examples | {autoencoder["pictures"]:,} | {wording["captions"]:,} | {denoiser["pictures"]:,} |
| minutes | {_minutes(autoencoder)} | {_minutes(wording)} | {_minutes(denoiser)} |
| loss at the end | {_loss(autoencoder)} | {_loss(wording)} | {_loss(denoiser)} |

![Losses](loss_curves.png)

The loss of held-out pictures is measured at full size, also while training sees small ones.

From nothing, seed {log["recipe"]["seed"]}, on {log["threads"]} CPU threads of a machine that others
used as well. The autoencoder saw windows of ever new pictures, then whole ones; the text encoders
learnt from captions alone to tell what is where, and then stayed as they were; the UNet saw
{log["recipe"]["pictures"]:,} pictures again and again, with ever new captions and noise, first at
half their size. Every number of the recipe is in `training_log.json`.

```
python -m training.demo_image.train --out lambda_split/demo_models/image
python -m training.demo_image.evaluate --model lambda_split/demo_models/image
```

{log.get("note", "")}Pictures, captions and tokenizers are the same each time. The weights are
not bit for bit the same: the run ends after a set time, so a faster machine does more steps.

## Where the pictures are from

Every training picture is drawn and described by `training/demo_image/`, which was made for this
project. No other picture, text, model or data set went into it. Pictures, tokenizers and weights
are under the Apache License 2.0.

## Files

| file | |
|---|---|
| `model_index.json`, the folders | the pipeline, in the layout of SDXL |
| `prompts.json` | 20 prompts for tests |
| `samples.png` | the sheet above |
| `training_log.json`, `loss_curves.png` | every figure on this page |

## Limits

- It knows its shapes, colours and places and nothing else; other words change a picture in ways
  that mean nothing. Three shapes, or two in the centre, it has never seen.
- It was trained on {_sizes(log)}. Other multiples of 8 work, the worse the further away they are.
- Small shapes lose their corners, since a latent stands for 4 × 4 pixels.
- A negative prompt is followed as far as guidance carries it: it was trained with dropped captions
  ({log["recipe"]["dropped_captions"]:.0%}) and empty ones ({log["recipe"]["empty_captions"]:.0%}).
- It is a demonstration, not a measure of anything: what splitting, quantizing or a codec does to
  it says little about what they do to a large model.
"""


def _table(rows: list[tuple[str, dict[str, Any]]]) -> str:
    names = {
        "asked": "pictures",
        "background": "background",
        "colours": "colours",
        "places": "and places",
        "kinds": "shapes",
        "nothing_else": "nothing else",
        "all_right": "**all right**",
    }
    lines = [f"| | {' | '.join(names.values())} |", "|---" * (len(names) + 1) + "|"]
    for label, counts in rows:
        shares = [f"{counts[name] / counts['asked']:.0%}" for name in list(names)[1:]]
        lines.append(f"| {label} | {' | '.join([str(counts['asked']), *shares])} |")
    return "\n".join(lines)


def _at(setting: dict[str, Any]) -> str:
    guidance = setting["guidance"]
    said = "no guidance" if guidance == 1 else f"guidance {guidance:g}"
    return f"{setting['steps']} steps, {said}"


def _minutes(stage: dict[str, Any]) -> str:
    return f"{stage['seconds'] / 60:.0f}"


def _loss(stage: dict[str, Any]) -> str:
    return f"{stage['losses'][-1][1]:.3f}"


def _sizes(log: dict[str, Any]) -> str:
    return ", ".join(f"{height} × {width}" for height, width in log["recipe"]["sizes"])
