"""Last stage: the UNet. The text encoders stay as they are, as in the training of SDXL."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Final

import torch
from diffusers import EulerDiscreteScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from .autoencoder import save_checkpoint
from .latents import Batch, Latents
from .loop import Progress, run
from .parallel import Workers
from .recipe import TRAINING_TIMESTEPS, Recipe, scheduler_config, text_config, unet_config

CHECKPOINT: Final = "denoiser.pt"
#: Between what the loss of a noise level's weight lies: the noise's deviation over the picture's.
_WEIGHTS: Final = (0.3, 15.0)
#: Deviation of a fresh embedding. CLIP's 0.02 is for its large data: here attention to words so
#: quiet would take long to begin.
_EMBEDDING_DEVIATION: Final = 0.5
_HELD_OUT_EVERY: Final = 250
#: How much of the stage sees pictures of half the size, twice as many a step: what is where is
#: learnt sooner there. SDXL's training goes from small pictures to large ones as well.
_COARSE_UNTIL: Final = 0.3


class TextEncoders(torch.nn.Module):
    """Both text encoders; the names are those of the pipeline's parts."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.text_encoder = CLIPTextModel(text_config(second=False, vocabulary=vocabulary))
        self.text_encoder_2 = CLIPTextModelWithProjection(
            text_config(second=True, vocabulary=vocabulary)
        )
        for name, parameter in self.named_parameters():
            if "embedding" in name:
                torch.nn.init.normal_(parameter, std=_EMBEDDING_DEVIATION)

    @property
    def widths(self) -> tuple[int, int]:
        """Width of the states and of the pooled embedding."""
        first, second = (m.config.hidden_size for m in (self.text_encoder, self.text_encoder_2))
        return first + second, self.text_encoder_2.config.projection_dim

    def forward(self, ids: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode captions.

        Args:
            ids: Token ids of either tokenizer, ``(count, tokens)``.

        Returns:
            The states before the last layer, both encoders' side by side, ``(count, tokens,
            width)``, and the second one's pooled embedding, ``(count, pooled_width)``.
        """
        first = self.text_encoder(ids[0], output_hidden_states=True)
        second = self.text_encoder_2(ids[1], output_hidden_states=True)
        states = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        return states, second.text_embeds


class Denoiser(torch.nn.Module):
    """The UNet, and the text encoders, which are not trained any more."""

    def __init__(self, encoders: TextEncoders) -> None:
        super().__init__()
        self.unet = UNet2DConditionModel(**unet_config())
        self.encoders = encoders.requires_grad_(requires_grad=False)

    def forward(
        self,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        ids: tuple[torch.Tensor, torch.Tensor],
        kept: torch.Tensor,
        time_ids: torch.Tensor,
    ) -> torch.Tensor:
        """Predict the noise.

        Args:
            noisy: ``(count, 4, rows, columns)``.
            timesteps: Integers, ``(count,)``.
            ids: Token ids of either tokenizer, ``(count, tokens)``.
            kept: 0 where the caption is dropped, 1 elsewhere, float ``(count,)``.
            time_ids: ``(count, 6)``.

        Returns:
            The noise, ``(count, 4, rows, columns)``.
        """
        states, pooled = self.encoders(ids)
        added = {"text_embeds": pooled * kept[:, None], "time_ids": time_ids}
        predicted: torch.Tensor = self.unet(
            noisy, timesteps, states * kept[:, None, None], added_cond_kwargs=added
        ).sample
        return predicted


@dataclass(frozen=True, slots=True)
class Noising:
    """The scheduler's noise levels and the tokenizers: what turns a batch into a loss."""

    tokenizers: tuple[CLIPTokenizer, CLIPTokenizer]
    #: How much of the picture's variance is left at each timestep, ``(1000,)``.
    kept_variance: torch.Tensor = field(
        default_factory=lambda: EulerDiscreteScheduler(**scheduler_config()).alphas_cumprod
    )

    def loss(self, model: Denoiser, batch: Batch, rng: Random, dropped: float) -> torch.Tensor:
        """The weighted mean squared error of the predicted noise.

        Timesteps are drawn one from each of as many equal ranges, which makes the loss of small
        batches steadier. Predicting noise is easy where there is much of it, so its loss alone
        would hardly teach what is where; the weight is the noise's deviation relative to the
        picture's, within limits.

        Args:
            model: The denoiser.
            batch: The examples.
            rng: Draws timesteps, noise and which captions are dropped.
            dropped: How often a caption is dropped.
        """
        count = len(batch.captions)
        generator = torch.Generator().manual_seed(rng.getrandbits(40))
        order = torch.randperm(count, generator=generator)
        within = torch.rand(count, generator=generator)
        timesteps = ((order + within) * TRAINING_TIMESTEPS / count).long()
        timesteps.clamp_(max=TRAINING_TIMESTEPS - 1)
        # Shape: (count,) -> (count, 1, 1, 1), to scale whole latents.
        kept = self.kept_variance[timesteps][:, None, None, None]
        noise = torch.randn(batch.latents.shape, generator=generator)
        noisy = kept.sqrt() * batch.latents + (1 - kept).sqrt() * noise
        with_caption = (torch.rand(count, generator=generator) >= dropped).float()
        predicted = model(
            noisy,
            timesteps,
            self.encode(batch.captions),
            with_caption,
            batch.time_ids,
        )
        weights = ((1 - kept) / kept).sqrt().clamp(*_WEIGHTS)
        return (weights * (predicted - noise).square()).mean()

    def encode(self, captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids of either tokenizer, ``(count, 32)``, padded as the pipeline pads."""
        first, second = (
            tokenizer(
                captions, padding="max_length", truncation=True, return_tensors="pt",
                max_length=tokenizer.model_max_length,
            ).input_ids
            for tokenizer in self.tokenizers
        )  # fmt: skip
        return first, second


@dataclass
class DenoiserProgress(Progress):
    """Progress, and the averaged weights' loss on held-out pictures: step, seen, unseen."""

    held_out: list[tuple[int, float, float]] = field(default_factory=list)


def train_denoiser(
    recipe: Recipe,
    work: Path,
    *,
    encoders: TextEncoders,
    latents: Latents,
    held_out: tuple[Latents, Latents],
    noising: Noising,
    workers: Workers,
    stop: threading.Event,
) -> tuple[Denoiser, DenoiserProgress, bool]:
    """Run the stage, or what is left of it.

    Args:
        recipe: The numbers of the run.
        work: Folder of checkpoints; one that is there is gone on from.
        encoders: The trained text encoders.
        latents: The training pictures.
        held_out: Few pictures whose loss is measured now and then: of things that training shows,
            and of things that it does not.
        noising: Noise levels and tokenizers.
        workers: Compute the gradients.
        stop: Set to end early, with a checkpoint.

    Returns:
        The averaged model, what was done, and whether the stage is done.
    """
    torch.manual_seed(recipe.seed)
    model = Denoiser(encoders)
    averaged = copy.deepcopy(model).requires_grad_(requires_grad=False)
    optimizer = torch.optim.AdamW(
        model.unet.parameters(), betas=(0.9, 0.98), weight_decay=recipe.weight_decay, fused=True
    )
    progress = DenoiserProgress()
    if (work / CHECKPOINT).exists():
        saved = torch.load(work / CHECKPOINT, weights_only=True)
        model.load_state_dict(saved["model"])
        averaged.load_state_dict(saved["averaged"])
        optimizer.load_state_dict(saved["optimizer"])
        progress = DenoiserProgress(**saved["progress"])
    schedule = recipe.denoiser

    def take_step(step: int, rate: float) -> float:
        rng = Random(recipe.seed * 1_000_000 + step)
        optimizer.param_groups[0]["lr"] = rate
        coarse = progress.share(schedule) < _COARSE_UNTIL
        loss = workers.backward(
            [
                _part(model, noising, latents, recipe, Random(rng.getrandbits(40)), coarse=coarse)
                for _ in range(schedule.batch // schedule.part)
            ]
        )
        torch.nn.utils.clip_grad_norm_(model.unet.parameters(), recipe.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        _average(averaged, model, min(recipe.ema_decay, (1 + step) / (10 + step)))
        if (step + 1) % _HELD_OUT_EVERY == 0:
            seen, unseen = (held_out_loss(averaged, noising, some) for some in held_out)
            progress.held_out.append((step + 1, round(seen, 5), round(unseen, 5)))
        return loss

    def save() -> None:
        save_checkpoint(
            work / CHECKPOINT,
            {
                "model": model.state_dict(),
                "averaged": averaged.state_dict(),
                "optimizer": optimizer.state_dict(),
                "progress": asdict(progress),
            },
        )

    done = run("denoiser", schedule, progress, take_step=take_step, save=save, stop=stop)
    return averaged, progress, done


def held_out_loss(model: Denoiser, noising: Noising, pictures: Latents) -> float:
    """The loss on some pictures, each with the same noise whenever it is measured."""
    with torch.inference_mode():
        losses = [
            float(noising.loss(model, pictures.batch(16, Random(number)), Random(number), 0.0))
            for number in range(4)
        ]
    return sum(losses) / len(losses)


def _part(
    model: Denoiser,
    noising: Noising,
    latents: Latents,
    recipe: Recipe,
    rng: Random,
    *,
    coarse: bool,
) -> Callable[[], torch.Tensor]:
    batch = latents.batch(recipe.denoiser.part * (2 if coarse else 1), rng)
    captions = ["" if rng.random() < recipe.empty_captions else c for c in batch.captions]
    batch = Batch(batch.latents, batch.time_ids, captions)
    if coarse:
        batch = batch.coarse()
    return lambda: noising.loss(model, batch, rng, recipe.dropped_captions)


@torch.no_grad()
def _average(averaged: Denoiser, model: Denoiser, decay: float) -> None:
    """Move the averaged weights a little towards the present ones."""
    present, mean = model.unet.parameters(), averaged.unet.parameters()
    torch._foreach_lerp_(list(mean), list(present), 1 - decay)
