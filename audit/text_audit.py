"""An audit of a language model: captures, attacks and costs, setting by setting."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch

from audit.attacks.inverter import InverterSettings
from audit.capture import Setting, Victim, capture
from audit.costs import bytes_per_token, device_seconds, perplexity, root_mean_square
from audit.defences import Defence, epsilon
from audit.results import SCHEMA, Cost, Finding, SettingRecord, TextAudit
from audit.text_attacks import AttackedSetting, known_pairs
from audit.text_plan import TextPlan
from audit.texts import Reader, Texts, open_reader, read_texts, text_rows
from export.sampled_texts import sampled_texts
from lambda_split import __version__
from lambda_split.partition import Checkpoint
from lambda_split.partition.whole import WholeModel, load_whole

__all__ = ["Progress", "audit_text"]

Progress = Callable[[str, float], None]
"""Is told what happens next, and the share of all work that is done before it."""


@dataclass(frozen=True, eq=False)
class _Bench:
    """What all settings have in common."""

    public: WholeModel
    reader: Reader
    texts: Texts
    plan: TextPlan
    baseline: float


@dataclass(frozen=True, eq=False)
class _Job:
    """One part of the work: its name, about how much of all it is, and what it finds."""

    name: str
    weight: float
    run: Callable[[], tuple[list[Finding], list[Cost]]]


def audit_text(
    checkpoint: Checkpoint, path: pathlib.Path, plan: TextPlan, *, progress: Progress
) -> TextAudit:
    """Attack what a device would send, and measure what each setting costs.

    Args:
        checkpoint: The public model.
        path: The file with the texts; see :mod:`audit.texts`.
        plan: What to try.
        progress: Is told how far it is.

    Raises:
        CheckpointError: the model cannot be read.
        UsageError: the file cannot be read or holds too little text.
        SplitImpossible: the model has fewer layers.
    """
    began = time.perf_counter()
    for split in plan.splits:
        split.check(checkpoint.layer_count)
    progress("reading the model and the texts", 0.0)
    bench = _prepare(checkpoint, path, plan)
    findings: list[Finding] = []
    costs: list[Cost] = []
    jobs = list(_jobs(bench))
    total = sum(job.weight for job in jobs)
    done = 0.0
    for job in jobs:
        progress(job.name, done / total)
        found, cost = job.run()
        findings += found
        costs += cost
        done += job.weight
    progress("done", 1.0)
    return TextAudit(
        schema=SCHEMA,
        producer=f"lambda-split {__version__}",
        model=checkpoint.id,
        fingerprint=checkpoint.fingerprint,
        layer_count=checkpoint.layer_count,
        hidden_size=checkpoint.hidden_size,
        text=path.name,
        findings=tuple(findings),
        costs=tuple(costs),
        seconds=time.perf_counter() - began,
    )


def _prepare(checkpoint: Checkpoint, path: pathlib.Path, plan: TextPlan) -> _Bench:
    public = load_whole(checkpoint)
    reader = open_reader(checkpoint)
    room = public.max_positions - plan.reply_tokens
    texts = read_texts(
        path,
        reader,
        prompts=plan.prompts,
        prompt_tokens=min(plan.prompt_tokens, room),
        measured=plan.measured,
    )
    missing = plan.known_positions[-1] - sum(map(len, texts.other)) if plan.known_positions else 0
    if missing > 0:
        # The model's own text stands for what an attacker knows beside the file.
        more = sampled_texts(public, reader.start, reader.stop_ids, missing, seed=0)
        texts = replace(texts, other=(*texts.other, *text_rows(more)))
    plain = Victim(public, Setting(plan.splits[0], plan.codec), 1.0)
    return _Bench(public, reader, texts, plan, perplexity(plain, texts.measured))


def _jobs(bench: _Bench) -> Iterator[_Job]:
    plan = bench.plan
    first = plan.splits[0]
    for split in plan.splits:
        setting = Setting(split, plan.codec)
        yield _Job(
            f"search, tail and replay at {split.head_layers}+{split.tail_layers} layers",
            2.0 + split.head_layers,
            partial(_open_weights, bench, setting),
        )
    yield from _learned(bench, Setting(first, plan.codec))
    for defence in plan.defences:
        for seed in plan.seeds if defence.strength else plan.seeds[:1]:
            name = f"{defence.kind} {defence.strength:g}" if defence.strength else defence.kind
            setting = Setting(first, plan.codec, defence)
            yield _Job(
                f"defence: {name}, seed {seed}",
                4.0 * plan.beams if defence.strength else 4.0,
                partial(_defended, bench, setting, seed),
            )


def _open_weights(bench: _Bench, setting: Setting) -> tuple[list[Finding], list[Cost]]:
    attacked = _attacked(bench, setting, 0, bench.plan.prompts)
    findings = [
        attacked.nearest(),
        attacked.search(),
        attacked.public_tail(),
        attacked.replay(),
    ]
    if setting.split == bench.plan.splits[0]:
        findings.insert(0, attacked.guess())
    return findings, [_cost(bench, attacked)]


def _learned(bench: _Bench, setting: Setting) -> Iterator[_Job]:
    plan = bench.plan

    def run(
        positions: int, kind: InverterSettings, *, download: bool
    ) -> tuple[list[Finding], list[Cost]]:
        attacked = _attacked(bench, setting, 0, plan.prompts)
        up, down = known_pairs(attacked.victim, bench.texts.other, positions)
        findings = [attacked.prompt_inverter(up, kind)]
        if download:
            findings.append(attacked.reply_inverter(down, kind))
        return findings, []

    linear = InverterSettings(steps=plan.inverter_steps)
    for positions in plan.known_positions:
        last = positions == plan.known_positions[-1]
        yield _Job(
            f"learned inverter, linear, {positions} known positions",
            6.0 if last else 3.0,
            partial(run, positions, linear, download=last),
        )
    if plan.transformer and plan.known_positions:
        transformer = replace(linear, kind="transformer")
        yield _Job(
            "learned inverter, transformer",
            12.0,
            partial(run, plan.known_positions[-1], transformer, download=False),
        )


def _defended(bench: _Bench, setting: Setting, seed: int) -> tuple[list[Finding], list[Cost]]:
    plan = bench.plan
    noisy = setting.defence.strength > 0
    prompts = plan.defended_prompts if noisy else plan.prompts
    attacked = _attacked(bench, setting, seed, prompts)
    findings = [attacked.search(plan.beams)]
    if plan.known_positions:
        up, _ = known_pairs(attacked.victim, bench.texts.other, plan.known_positions[-1])
        findings.append(attacked.prompt_inverter(up, InverterSettings(steps=plan.inverter_steps)))
    return findings, [_cost(bench, attacked)]


def _attacked(bench: _Bench, setting: Setting, seed: int, prompts: int) -> AttackedSetting:
    plain = Victim(bench.public, setting, 1.0, seed)
    victim = replace(plain, rms=root_mean_square(plain, bench.texts.measured[:4]))
    taps = tuple(
        capture(victim, prompt, bench.plan.reply_tokens, number)
        for number, prompt in enumerate(bench.texts.prompts[:prompts])
    )
    record = SettingRecord(
        head_layers=setting.split.head_layers,
        tail_layers=setting.split.tail_layers,
        codec=setting.codec.label,
        defence=setting.defence.kind,
        strength=setting.defence.strength,
        seed=seed,
    )
    return AttackedSetting(record, victim, taps, bench.public, bench.reader)


def _cost(bench: _Bench, attacked: AttackedSetting) -> Cost:
    victim = attacked.victim
    defence = victim.setting.defence
    return Cost(
        setting=attacked.record,
        perplexity=perplexity(victim, bench.texts.measured),
        baseline=bench.baseline,
        bytes_per_token=bytes_per_token(victim),
        device_s=device_seconds(victim),
        epsilon=_epsilon(bench, victim, defence) if victim.scale else None,
    )


@torch.inference_mode()
def _epsilon(bench: _Bench, victim: Victim, defence: Defence) -> float:
    """With the sensitivity that is seen: the largest distance of two positions' states."""
    depth = victim.setting.split.head_layers
    states = torch.cat(
        [bench.public.states(torch.tensor([ids]), depth)[0] for ids in bench.texts.measured[:4]]
    )
    return epsilon(defence, victim.scale, float(torch.cdist(states, states).max()))
