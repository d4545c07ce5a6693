"""What the benchmark and its device process say to each other: one JSON object a line."""

from __future__ import annotations

import msgspec

from lambda_split.split import Split

__all__ = ["CloudOnly", "Cost", "Device", "EdgeOnly", "Generate", "Generated", "Ready", "SplitEnds"]


class SplitEnds(msgspec.Struct, frozen=True, kw_only=True, tag="split"):
    """Head and tail on the device, the trunk at an address.

    Attributes:
        bundle: Their folder.
        split: Of those that the bundle has.
        url: The trunk service.
        codec: How hidden states cross.
        max_positions: Of the session.
        threads: CPU threads; the library's choice where None.
        token_file: Holds the bearer token, where there is one.
    """

    bundle: str
    split: Split
    url: str
    codec: str
    max_positions: int
    threads: int | None
    token_file: str | None = None


class EdgeOnly(msgspec.Struct, frozen=True, kw_only=True, tag="edge-only"):
    """The whole model on the device, as the head of one split and the tail of another.

    Attributes:
        bundle: Their folder.
        head_split: Its head has all layers but the last.
        tail_split: Its tail has the last layer.
        max_positions: Of the caches.
        threads: CPU threads; the library's choice where None.
    """

    bundle: str
    head_split: Split
    tail_split: Split
    max_positions: int
    threads: int | None


class CloudOnly(msgspec.Struct, frozen=True, kw_only=True, tag="cloud-only"):
    """The whole model in the cloud.

    Attributes:
        url: The service of the whole model.
    """

    url: str


Device = SplitEnds | EdgeOnly | CloudOnly


class Generate(msgspec.Struct, frozen=True, kw_only=True):
    """An order: generate greedily; stop tokens do not end it.

    Attributes:
        token_ids: The prompt.
        text: The same as text.
        max_new_tokens: Tokens to make.
        everything: Compute and send all positions again for each token.
        afresh: Forget what is held of the generation before.
    """

    token_ids: tuple[int, ...]
    text: str
    max_new_tokens: int
    everything: bool = False
    afresh: bool = True


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What some tokens took.

    Attributes:
        seconds: All of it, at the device.
        head_s: In the head; without a split, everything on the device.
        link_s: Waiting, less the cloud's own time.
        trunk_s: In the cloud, as the server reports it.
        tail_s: In the tail.
        bytes_up: Of messages, without WebSocket's framing.
        bytes_down: The same, back.
        round_trips: Answers that had to be waited for before the next message could be sent.
    """

    seconds: float = 0.0
    head_s: float = 0.0
    link_s: float = 0.0
    trunk_s: float = 0.0
    tail_s: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0
    round_trips: int = 0

    @property
    def rest_s(self) -> float:
        """What is in none of the parts: encoding, sending, sampling, text; never below 0."""
        return max(0.0, self.seconds - self.head_s - self.link_s - self.trunk_s - self.tail_s)

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            **{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__}
        )


class Generated(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to an order.

    Attributes:
        prompt_tokens: Tokens of the prompt, as who ran it counted them.
        new_tokens: Tokens that were made.
        text: They as text; empty where the device has no tokenizer.
        token_ids: They themselves; empty where only their text crossed.
        first: The cost up to the first of them.
        rest: The cost of the others.
        peak_rss: The most memory that the device process has had so far, in bytes.
    """

    prompt_tokens: int
    new_tokens: int
    first: Cost
    rest: Cost
    peak_rss: int
    text: str = ""
    token_ids: tuple[int, ...] = ()


class Ready(msgspec.Struct, frozen=True):
    """The first line: everything is loaded, and connected where there is a cloud."""
