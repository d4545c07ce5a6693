"""The attacks on a device with private ends, by somebody who knows how such ends are made.

Beside the attacks that everybody faces there are two more. Whoever holds the public model can make
private ends of his own by the same recipe, and search or train through those; and he can bring the
victim's states to the form of public ones without knowing any text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from audit.attacks.inverter import InverterSettings, Pairs, take_positions
from audit.capture import Victim
from audit.defending.private_ends import PrivateEndsSettings, train_private_ends
from audit.results import Finding
from audit.text_attacks import AttackedSetting, known_pairs
from audit.whole_model import WholeModel
from lambda_split.split import Split

__all__ = ["Knowledge", "attack_private_ends", "make_owners"]


@dataclass(frozen=True, eq=False)
class Knowledge:
    """What the attacker has.

    Attributes:
        texts: Text like the victim's, none of it the victim's own.
        positions: How much of it states are computed for.
        of_victim: How much of the victim's own text is known, each tried.
        others: Models with private ends of the attacker's own making.
    """

    texts: Sequence[Sequence[int]]
    positions: int
    of_victim: tuple[int, ...]
    others: tuple[WholeModel, ...]


def make_owners(
    public: WholeModel,
    split: Split,
    texts: Sequence[Sequence[int]],
    settings: PrivateEndsSettings,
    *,
    seeds: Sequence[int],
    progress: Callable[[float], None] = lambda _share: None,
) -> list[WholeModel]:
    """Private ends of several owners, made alike but for the seed."""
    owners: list[WholeModel] = []
    for number, seed in enumerate(seeds):

        def tell(step: int, _divergence: float, number: int = number) -> None:
            progress((number + step / settings.steps) / len(seeds))

        own = replace(settings, seed=seed)
        owners.append(train_private_ends(public, split, texts, own, progress=tell))
    return owners


def attack_private_ends(
    attacked: AttackedSetting,
    knowledge: Knowledge,
    inverter: InverterSettings,
    *,
    beams: int,
) -> list[Finding]:
    """Everything that is tried against private ends.

    Args:
        attacked: The victim's setting; its model has the private ends.
        knowledge: What the attacker has.
        inverter: How learned attacks are trained.
        beams: Prefixes that the search keeps.
    """
    setting = attacked.victim.setting
    public = Victim(attacked.public, setting, attacked.victim.rms)
    public_up, _ = known_pairs(public, knowledge.texts, knowledge.positions)
    victim_up, _ = known_pairs(attacked.victim, knowledge.texts, knowledge.positions)
    distance = float(
        np.mean(
            [
                np.square(theirs - ours).mean()
                for theirs, ours in zip(victim_up.states, public_up.states, strict=True)
            ]
        )
    )
    findings = [
        attacked.nearest(),
        attacked.search(),
        attacked.search_as_if_noise(distance, beams),
        attacked.search_download(),
        attacked.public_tail(),
        attacked.replay(),
        attacked.prompt_inverter(
            public_up, inverter, pairs_from=", of the public head", adversary="open-weights"
        ),
        attacked.aligned_inverter(public_up, victim_up.states, inverter),
    ]
    if knowledge.others:
        findings.append(
            attacked.search(through=knowledge.others[0], whose=" through ends of his own")
        )
        findings.append(
            attacked.prompt_inverter(
                _pairs_of_others(knowledge, public),
                inverter,
                pairs_from=", of ends of his own",
                adversary="open-weights",
            )
        )
    findings += [
        attacked.prompt_inverter(take_positions(victim_up, amount), inverter)
        for amount in knowledge.of_victim
    ]
    return findings


def _pairs_of_others(knowledge: Knowledge, public: Victim) -> Pairs:
    """Text and states of every set of ends that the attacker made, in equal parts."""
    each = knowledge.positions // len(knowledge.others)
    parts = [
        known_pairs(replace(public, model=model), knowledge.texts, each)[0]
        for model in knowledge.others
    ]
    return Pairs(
        tuple(states for part in parts for states in part.states),
        tuple(ids for part in parts for ids in part.token_ids),
    )
