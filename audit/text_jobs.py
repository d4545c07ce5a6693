"""The parts of an audit of a language model, each a setting and what is tried on it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import msgspec
import torch

from audit.attacks.inverter import InverterSettings, take_positions
from audit.capture import Setting, Victim, capture
from audit.costs import bytes_per_token, device_seconds, perplexity, root_mean_square
from audit.defending.noise import epsilon
from audit.defending.private_ends import PrivateEndsSettings
from audit.defending.trained_tail import TrainedTailSettings, train_tail
from audit.device_ends import DeviceGraphs
from audit.moving_attacks import attack_moving_split, draw
from audit.private_attacks import Knowledge, attack_private_ends, make_owners
from audit.results import Cost, Finding, SettingRecord
from audit.text_attacks import AttackedSetting, known_pairs
from audit.text_plan import TextPlan
from audit.texts import Reader, Texts
from audit.whole_model import WholeModel
from lambda_split.wire.frames import Codec

__all__ = ["Job", "Subject", "jobs"]

Tick = Callable[[float], None]
_Found = tuple[list[Finding], list[Cost]]


@dataclass(frozen=True, eq=False)
class Subject:
    """What all settings have in common.

    Attributes:
        public: The public model.
        reader: Its tokenizer.
        texts: What is attacked, measured and known.
        plan: What is tried.
        baseline: Perplexity of the whole model.
        device: The graphs that the device runs at each split; none for the model's own modules.
    """

    public: WholeModel
    reader: Reader
    texts: Texts
    plan: TextPlan
    baseline: float
    device: DeviceGraphs


@dataclass(frozen=True, eq=False)
class Job:
    """One part of the work: its name, about how much of all it is, and what it finds.

    ``run`` takes a function that it tells which share of it is done.
    """

    name: str
    weight: float
    run: Callable[[Tick], _Found]


def jobs(subject: Subject) -> Iterator[Job]:
    """All parts, in the order of the report; each captures anew, so that none keeps memory."""
    plan = subject.plan
    first = plan.splits[0]
    for split in plan.splits:
        setting = Setting(split, plan.codec)
        yield Job(
            f"search, tail and replay at {split.head_layers}+{split.tail_layers} layers",
            2.0 + split.head_layers,
            partial(_open_weights, subject, setting),
        )
    if plan.known_positions:
        yield Job(
            "learned inverters",
            4.0 * (len(plan.known_positions) + 1) + 12.0 * plan.transformer,
            partial(_learned, subject, Setting(first, plan.codec)),
        )
    if len(plan.splits) > 1 and plan.known_positions:
        yield Job("moving split", 8.0, partial(_moving, subject, plan.codec))
    for defence in plan.defences:
        for seed in plan.seeds if defence.random else plan.seeds[:1]:
            name = f"{defence.kind} {defence.strength:g}" if defence.strength else defence.kind
            setting = Setting(first, plan.codec, defence)
            yield Job(
                f"defence: {name}, seed {seed}",
                4.0 * plan.beams if defence.random else 4.0,
                partial(_defended, subject, setting, seed),
            )
            if plan.train_tail and defence.random:
                yield Job(
                    f"a tail trained for {name}, seed {seed}",
                    0.1 * plan.training_steps,
                    partial(_with_trained_tail, subject, setting, seed),
                )
    for strength in plan.private_ends:
        yield Job(
            f"private ends {strength:g}, {max(2, len(plan.seeds))} owners",
            (0.3 * plan.training_steps + 20.0) * max(2, len(plan.seeds)),
            partial(_private, subject, Setting(first, plan.codec), strength),
        )


def _open_weights(subject: Subject, setting: Setting, tick: Tick) -> _Found:
    attacked = _attacked(subject, setting, 0, subject.plan.prompts)
    tick(0.3)
    findings = [
        attacked.nearest(),
        attacked.search(),
        attacked.public_tail(),
        attacked.replay(),
    ]
    tick(0.9)
    if setting.split == subject.plan.splits[0]:
        findings.insert(0, attacked.guess())
    return findings, [_cost(subject, attacked)]


def _learned(subject: Subject, setting: Setting, tick: Tick) -> _Found:
    """Inverters of each kind and amount of known text; what crosses for it is computed once."""
    plan = subject.plan
    attacked = _attacked(subject, setting, 0, plan.prompts)
    up, down = known_pairs(attacked.victim, subject.texts.other, plan.known_positions[-1])
    linear = InverterSettings(steps=plan.inverter_steps)
    tried = [(positions, linear) for positions in plan.known_positions]
    if plan.transformer:
        tried.append((plan.known_positions[-1], replace(linear, kind="transformer")))
    findings = []
    for number, (positions, kind) in enumerate(tried, 1):
        findings.append(attacked.prompt_inverter(take_positions(up, positions), kind))
        tick(number / (len(tried) + 1))
    findings.append(attacked.reply_inverter(down, linear))
    return findings, []


def _defended(subject: Subject, setting: Setting, seed: int, tick: Tick) -> _Found:
    plan = subject.plan
    prompts = plan.defended_prompts if setting.defence.random else plan.prompts
    attacked = _attacked(subject, setting, seed, prompts)
    findings = [attacked.search(plan.beams)]
    tick(0.7)
    if plan.known_positions:
        up, _ = known_pairs(attacked.victim, subject.texts.other, plan.known_positions[-1])
        findings.append(attacked.prompt_inverter(up, InverterSettings(steps=plan.inverter_steps)))
    return findings, [_cost(subject, attacked)]


def _with_trained_tail(subject: Subject, setting: Setting, seed: int, tick: Tick) -> _Found:
    """Nothing new crosses upward: only the cost differs from the same noise without training."""
    plan = subject.plan
    attacked = _attacked(subject, setting, seed, plan.defended_prompts)
    settings = TrainedTailSettings(steps=plan.training_steps, seed=seed)
    model = train_tail(
        attacked.victim,
        subject.texts.other,
        settings,
        progress=lambda step: tick(0.9 * step / plan.training_steps),
    )
    trained = replace(
        attacked,
        record=msgspec.structs.replace(attacked.record, ends="trained tail", weights="fp32"),
        victim=replace(attacked.victim, model=model, graphs=None),
    )
    findings = [trained.search(plan.beams)]
    return findings, [_cost(subject, trained)]


def _private(subject: Subject, setting: Setting, strength: float, tick: Tick) -> _Found:
    """As many owners as there are seeds; each is attacked with the ends of the others."""
    plan, texts = subject.plan, subject.texts.other
    seeds = plan.seeds if len(plan.seeds) > 1 else (*plan.seeds, plan.seeds[0] + 1)
    settings = PrivateEndsSettings(strength=strength, steps=plan.training_steps)
    owners = make_owners(
        subject.public,
        setting.split,
        texts,
        settings,
        seeds=seeds,
        progress=lambda share: tick(0.8 * share),
    )
    findings: list[Finding] = []
    costs: list[Cost] = []
    for seed, owner in list(zip(seeds, owners, strict=True))[: len(plan.seeds)]:
        others = tuple(other for other in owners if other is not owner)
        attacked = _attacked(subject, setting, seed, plan.prompts, owner)
        record = msgspec.structs.replace(attacked.record, ends="private ends", strength=strength)
        attacked = replace(attacked, record=record)
        knowledge = Knowledge(texts, plan.training_positions // 2, plan.known_positions[:1], others)
        inverter = InverterSettings(steps=plan.inverter_steps)
        findings += attack_private_ends(attacked, knowledge, inverter, beams=plan.beams)
        costs.append(_cost(subject, attacked))
    return findings, costs


def _moving(subject: Subject, codec: Codec, tick: Tick) -> _Found:
    """One of the plan's splits is drawn for each text."""
    plan = subject.plan
    settings = [Setting(split, codec) for split in plan.splits]
    each = [_attacked(subject, setting, 0, plan.prompts) for setting in settings]
    tick(0.3)
    drawn = draw(plan.prompts, len(each), seed=0)
    record = msgspec.structs.replace(each[0].record, defence="moving split")
    taps = tuple(each[chosen].taps[number] for number, chosen in enumerate(drawn))
    attacked = replace(each[0], record=record, taps=taps)
    findings = attack_moving_split(
        attacked,
        [one.victim for one in each],
        subject.texts.other,
        plan.known_positions[-1],
        InverterSettings(steps=plan.inverter_steps),
    )
    costs = [_cost(subject, one) for one in each]
    mean = Cost(
        setting=record,
        perplexity=statistics.geometric_mean(one.perplexity for one in costs),
        baseline=subject.baseline,
        bytes_per_token=costs[0].bytes_per_token,
        device_s=statistics.fmean(one.device_s for one in costs),
    )
    return findings, [mean]


def _attacked(
    subject: Subject, setting: Setting, seed: int, prompts: int, model: WholeModel | None = None
) -> AttackedSetting:
    """The setting with its captures; the model that runs is the public one by default."""
    public = model is None
    graphs = subject.device.ends.get(setting.split) if public else None
    plain = Victim(subject.public if model is None else model, setting, 1.0, seed, graphs)
    victim = replace(plain, rms=root_mean_square(plain, subject.texts.measured[:4]))
    taps = tuple(
        capture(victim, prompt, subject.plan.reply_tokens, number)
        for number, prompt in enumerate(subject.texts.prompts[:prompts])
    )
    record = SettingRecord(
        head_layers=setting.split.head_layers,
        tail_layers=setting.split.tail_layers,
        codec=setting.codec.label,
        defence=setting.defence.kind,
        strength=setting.defence.strength,
        seed=seed,
        weights="fp32" if graphs is None else subject.device.weights,
    )
    return AttackedSetting(record, victim, taps, subject.public, subject.reader)


def _cost(subject: Subject, attacked: AttackedSetting) -> Cost:
    victim = attacked.victim
    return Cost(
        setting=attacked.record,
        perplexity=perplexity(victim, subject.texts.measured),
        baseline=subject.baseline,
        bytes_per_token=bytes_per_token(victim),
        device_s=device_seconds(victim),
        epsilon=_epsilon(subject, victim) if victim.scale else None,
    )


@torch.inference_mode()
def _epsilon(subject: Subject, victim: Victim) -> float:
    """With the sensitivity that is seen: the largest distance of two positions' states."""
    depth = victim.setting.split.head_layers
    states = torch.cat(
        [subject.public.states(torch.tensor([ids]), depth)[0] for ids in subject.texts.measured[:4]]
    )
    return epsilon(victim.setting.defence, victim.scale, float(torch.cdist(states, states).max()))
