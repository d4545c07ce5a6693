"""Runs of a denoiser that its blocks are measured on, and an int8 bundle's ranges come from.

A run is what a UNet takes, float32 by role, as :mod:`lambda_split.denoiser_blocks` names them. The
best examples are those of the pictures that the pipeline makes for calibration: latents of every
step, prompts and negative prompts. Artificial ones are noise at several timesteps.
"""

from __future__ import annotations

from typing import Any

import torch

from export.images.latents import CALIBRATION_GUIDANCE, artificial_latents
from lambda_split.partition.pipelines import UNetFacts

__all__ = ["DenoiserRun", "RunRecorder", "artificial_runs"]

DenoiserRun = dict[str, torch.Tensor]

_HEIGHT, _WIDTH = 24, 40  # of artificial latents: not square, as not all pictures are
_TIMESTEPS = 1000
_STRIDE = 3  # prime to the usual numbers of steps: all of them are seen, each with another prompt


class RunRecorder:
    """Keeps some of the runs that a pipeline's UNet is asked for.

    Attributes:
        runs: What was kept.
    """

    def __init__(self) -> None:
        self.runs: list[DenoiserRun] = []
        self._seen = 0

    def __call__(self, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Look at the arguments of a run."""
        self._seen += 1
        if (self._seen - 1) % _STRIDE:
            return
        latents, timestep = (*given, named.get("sample"), named.get("timestep"))[:2]
        rows = len(latents)
        run: DenoiserRun = {
            "latents": latents,
            "timesteps": torch.as_tensor(timestep, dtype=torch.float32).expand(rows),
            "context": named["encoder_hidden_states"],
        }
        added = named.get("added_cond_kwargs") or {}
        for role, name in (("pooled", "text_embeds"), ("time_ids", "time_ids")):
            if name in added:
                run[role] = added[name]
        if named.get("timestep_cond") is not None:
            run["guidance"] = torch.full((rows,), CALIBRATION_GUIDANCE)
        self.runs.append({role: tensor.detach().float().clone() for role, tensor in run.items()})


def artificial_runs(
    count: int, facts: UNetFacts, context: torch.Tensor, pooled: torch.Tensor | None
) -> list[DenoiserRun]:
    """Noise at timesteps from the last to the first, the same at each call.

    Args:
        count: How many.
        facts: What the UNet takes.
        context: Encoded prompts, (prompts, tokens, width), which runs are told in turn.
        pooled: (prompts, width), where it takes them.
    """
    runs: list[DenoiserRun] = []
    for number, latents in enumerate(
        artificial_latents(count, facts.latent_channels, _HEIGHT, _WIDTH)
    ):
        prompt = slice(number % len(context), number % len(context) + 1)
        run: DenoiserRun = {
            "latents": torch.from_numpy(latents),
            "timesteps": torch.tensor([_TIMESTEPS * (count - number - 0.5) / count]),
            "context": context[prompt],
        }
        if pooled is not None:
            run["pooled"] = pooled[prompt]
        if facts.time_ids:
            height, width = 8.0 * facts.height, 8.0 * facts.width
            run["time_ids"] = torch.tensor([[height, width, 0.0, 0.0, height, width]])
        if facts.guidance_embedding is not None:
            run["guidance"] = torch.tensor([CALIBRATION_GUIDANCE])
        runs.append(run)
    return runs
