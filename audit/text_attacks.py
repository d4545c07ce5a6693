"""The attacks on one setting, each giving a :class:`Finding`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from audit.attacks.alignment import whitening
from audit.attacks.inverter import InverterSettings, Pairs, take_positions, train_inverter
from audit.attacks.open_weights import guess_from_length, nearest_embedding, public_tail, replay
from audit.attacks.search import Likelihood, SearchSettings, search
from audit.capture import Tap, Victim
from audit.costs import device_logits
from audit.defending.noise import quantize_rows
from audit.results import Adversary, Finding, SettingRecord, Target
from audit.scores import bleu, estimate, score
from audit.texts import Reader
from audit.whole_model import WholeModel
from lambda_split.wire.frames import Codec

__all__ = ["AttackedSetting", "known_pairs"]

Floats = npt.NDArray[np.float32]
_Pair = tuple[Sequence[int], Sequence[int]]  # what was secret, and what was found of it

# How far a codec's rounding can take a state away, as a share of its length; a few times what it
# is on average, and far below the distance between two tokens.
_ROUNDING = {Codec.FP32: 2.0**-16, Codec.FP16: 2.0**-10, Codec.BF16: 2.0**-7}


@dataclass(frozen=True, eq=False)
class AttackedSetting:
    """One setting: the victim, what was captured, and what the attackers have.

    Attributes:
        record: Its description.
        victim: The device and its trunk.
        taps: What was captured, one for each text.
        public: The public model.
        reader: The tokenizer.
    """

    record: SettingRecord
    victim: Victim
    taps: tuple[Tap, ...]
    public: WholeModel
    reader: Reader

    def guess(self) -> Finding:
        """Who sees sizes and times only, and writes what is likely."""
        return self._prompts(
            "tls-tapper",
            "guess from the number of tokens",
            lambda tap: guess_from_length(
                self.public, len(tap.prompt_ids), self._known(tap), beams=1
            ),
        )

    def nearest(self) -> Finding:
        """The nearest embedding to each state."""
        return self._prompts(
            "open-weights",
            "nearest embedding",
            lambda tap: nearest_embedding(self.public, tap.up[: len(tap.prompt_ids)]),
        )

    def search(
        self, beams: int = 1, *, through: WholeModel | None = None, whose: str = ""
    ) -> Finding:
        """The vocabulary search through the public head; with the noise's likelihood, if any.

        Args:
            beams: Prefixes that are kept where there is noise.
            through: Another model's head instead.
            whose: What that model is, for the name of the attack.
        """
        defence = self.victim.setting.defence
        rounding = _ROUNDING[self.victim.setting.codec]
        likelihood = _likelihood(self.victim)
        if defence.kind == "permutation":
            settings = SearchSettings(rounding=rounding, view=in_order)
        elif defence.kind == "int":
            # The attacker rounds what he compares in the same way, and need not be patient.
            settings = SearchSettings(view=partial(rounded, bits=int(defence.strength)))
        elif likelihood is not None:
            settings = SearchSettings(beams=beams, prior=True, likelihood=likelihood)
        else:
            settings = SearchSettings(rounding=rounding)
        name = "vocabulary search" if likelihood is None else "vocabulary search with prior"
        return self._prompts(
            "open-weights",
            name + whose,
            lambda tap: search(
                self.public if through is None else through,
                tap.split.head_layers,
                tap.up[: len(tap.prompt_ids)],
                self._known(tap),
                settings,
            ),
        )

    def search_download(self) -> Finding:
        """The vocabulary search on what came back: head and trunk together are a deeper head."""
        settings = SearchSettings(rounding=_ROUNDING[self.victim.setting.codec])
        return self._prompts(
            "open-weights",
            "vocabulary search on the download",
            lambda tap: search(
                self.public,
                self.public.layer_count - tap.split.tail_layers,
                tap.down[: len(tap.prompt_ids)],
                self._known(tap),
                settings,
            ),
        )

    def search_as_if_noise(self, squared_distance: float, beams: int) -> Finding:
        """The search with a prior, taking what differs from the public head for Gaussian noise.

        Args:
            squared_distance: Mean squared difference of a value from the public head's.
            beams: Prefixes that are kept.
        """
        settings = SearchSettings(
            beams=beams, prior=True, likelihood=lambda squared: -squared / (2 * squared_distance)
        )
        return self._prompts(
            "open-weights",
            "vocabulary search with prior",
            lambda tap: search(
                self.public,
                tap.split.head_layers,
                tap.up[: len(tap.prompt_ids)],
                self._known(tap),
                settings,
            ),
        )

    def aligned_inverter(
        self, public: Pairs, traffic: Sequence[Floats], settings: InverterSettings
    ) -> Finding:
        """An inverter of public states, after both are brought to the same mean and covariance.

        This needs no text of the victim's, only its traffic (Sun et al. 2016, "Return of
        frustratingly easy domain adaptation", do the same between images of two kinds).

        Args:
            public: Text and the public head's states of it.
            traffic: What the victim sent, without any text: float32 (T, W) each.
            settings: How the inverter is trained.
        """
        begin = time.perf_counter()
        theirs, ours = whitening(public.states), whitening(traffic)
        states = tuple(theirs(one) for one in public.states)
        inverter = train_inverter(Pairs(states, public.token_ids), self.public.vocab_size, settings)
        trained = time.perf_counter() - begin
        return self._prompts(
            "open-weights",
            "inverter of aligned states (linear)",
            lambda tap: inverter.tokens(ours(tap.up[: len(tap.prompt_ids)])),
            seconds=trained,
        )

    def public_tail(self) -> Finding:
        """The public tail, run on the download."""
        return self._replies(
            "open-weights",
            "public tail",
            lambda tap: public_tail(self.public, tap.split.tail_layers, tap.down),
        )

    def replay(self) -> Finding:
        """The upload, put through all remaining layers."""
        return self._replies(
            "open-weights", "replay", lambda tap: replay(self.public, tap.split.head_layers, tap.up)
        )

    def prompt_inverter(
        self,
        known: Pairs,
        settings: InverterSettings,
        *,
        pairs_from: str = "",
        adversary: Adversary = "trunk-only",
    ) -> Finding:
        """An inverter of the upload, trained on known text."""
        begin = time.perf_counter()
        inverter = train_inverter(known, self.public.vocab_size, settings)
        trained = time.perf_counter() - begin
        return self._prompts(
            adversary,
            f"learned inverter ({settings.kind}{pairs_from})",
            lambda tap: inverter.tokens(tap.up[: len(tap.prompt_ids)]),
            seconds=trained,
            known=sum(map(len, known.token_ids)),
        )

    def reply_inverter(self, known: Pairs, settings: InverterSettings) -> Finding:
        """An inverter of the download, trained on known replies."""
        begin = time.perf_counter()
        inverter = train_inverter(known, self.public.vocab_size, settings)
        trained = time.perf_counter() - begin
        return self._replies(
            "trunk-only",
            f"learned inverter of the download ({settings.kind})",
            lambda tap: inverter.tokens(tap.down),
            seconds=trained,
            known=sum(map(len, known.token_ids)),
        )

    def _known(self, tap: Tap) -> tuple[int, ...]:
        """Everybody knows the start token."""
        start = self.reader.start
        return start if tap.prompt_ids[: len(start)] == start else ()

    def _prompts(
        self,
        adversary: Adversary,
        attack: str,
        find: Callable[[Tap], Sequence[int]],
        *,
        seconds: float = 0.0,
        known: int = 0,
    ) -> Finding:
        def pair(tap: Tap) -> _Pair:
            return tap.prompt_ids, tuple(find(tap))

        return self._finding(adversary, attack, "prompt", pair, seconds=seconds, known=known)

    def _replies(
        self,
        adversary: Adversary,
        attack: str,
        find: Callable[[Tap], Sequence[int]],
        *,
        seconds: float = 0.0,
        known: int = 0,
    ) -> Finding:
        def pair(tap: Tap) -> _Pair:
            # Row P - 1 decides the reply's first token.
            return tap.reply_ids, tuple(find(tap))[len(tap.prompt_ids) - 1 :]

        return self._finding(adversary, attack, "reply", pair, seconds=seconds, known=known)

    def _finding(
        self,
        adversary: Adversary,
        attack: str,
        target: Target,
        pair: Callable[[Tap], _Pair],
        *,
        seconds: float,
        known: int,
    ) -> Finding:
        """Attack every text; ``seconds`` were spent before, on training."""
        begin = time.perf_counter()
        pairs = [pair(tap) for tap in self.taps]
        seconds += time.perf_counter() - begin
        scores = [score(true, found, self.reader.special_ids) for true, found in pairs]
        texts = [(self.reader.decode(true), self.reader.decode(found)) for true, found in pairs]
        return Finding(
            setting=self.record,
            adversary=adversary,
            attack=attack,
            target=target,
            recovered=estimate(scores),
            bleu=bleu([true for true, _ in texts], [found for _, found in texts]),
            tokens=sum(one.total for one in scores),
            texts=len(scores),
            seconds=seconds,
            known_positions=known,
            example=texts[0],
        )


def in_order(states: torch.Tensor) -> torch.Tensor:
    """The channels (…, W) in order of size."""
    return states.sort(dim=-1).values


def rounded(states: torch.Tensor, bits: int) -> torch.Tensor:
    """States (N, W) or (W,) as a device would have rounded them."""
    rows = states.reshape(-1, states.shape[-1]).numpy()  # (…, W) -> (N, W)
    return torch.from_numpy(quantize_rows(rows, bits)).reshape(states.shape)


def _likelihood(victim: Victim) -> Likelihood | None:
    """Log-likelihood of a squared distance under the victim's noise, which attackers know."""
    scale, kind = victim.scale, victim.setting.defence.kind
    if scale == 0.0:
        return None
    if kind == "gaussian":
        return lambda squared: -squared / (2 * scale**2)
    return lambda squared: -squared.sqrt() / scale


@torch.inference_mode()
def known_pairs(
    victim: Victim, texts: Sequence[Sequence[int]], positions: int
) -> tuple[Pairs, Pairs]:
    """What crosses for known text, and the tokens that belong to it.

    Args:
        victim: The device that the known text went through.
        texts: The known text.
        positions: How many positions of it.

    Returns:
        Pairs for the upload (a position's token), and for the download (the token that the tail
        makes of a position).
    """
    up, down, token_ids, replies = [], [], [], []
    seen = 0
    for number, ids in enumerate(texts):
        if seen >= positions:
            break
        # Beyond the numbers of the attacked texts: noise of its own.
        sent, answered, logits = device_logits(victim, ids, 1_000_000 + number)
        up.append(sent)
        down.append(answered)
        token_ids.append(tuple(ids))
        replies.append(tuple(logits.argmax(-1).tolist()))
        seen += len(ids)
    both = Pairs(tuple(up), tuple(token_ids)), Pairs(tuple(down), tuple(replies))
    return take_positions(both[0], positions), take_positions(both[1], positions)
