"""A trunk that is larger than one GPU: its layers spread over several.

Each device gets consecutive layers, so that a token's hidden states cross from one device to the
next once for each device. The moving is accelerate's: its hooks bring a layer's inputs to the
layer's device, and the result back to where the first input was. One step runs on one device after
the other; while one computes, the others wait. This buys memory, not speed.

Keys and values belong on their layer's device: whoever keeps them asks for :func:`spread`'s answer.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import nn

from lambda_split.errors import UsageError
from lambda_split.partition import Trunk

__all__ = ["parse_devices", "plan_layers", "spread"]


def parse_devices(text: str) -> list[torch.device]:
    """Devices from a list such as ``cuda:0,cuda:1``, or ``auto`` for all that torch sees.

    Raises:
        UsageError: one is not a CPU or CUDA device that torch sees, or stands there twice.
    """
    names = text.split(",")
    if text == "auto":
        names = [f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["cpu"]
    devices = [_device(name.strip()) for name in names]
    if len(set(devices)) < len(devices):
        raise UsageError(f"--devices {text}: name each device once")
    return devices


def plan_layers(layer_bytes: Sequence[int], room: Sequence[int]) -> list[int]:
    """Which device each layer goes to.

    Every device is filled to about the same share, so that what is left for keys and values is in
    the same proportion to the layers that need it.

    Args:
        layer_bytes: Each layer's weights.
        room: Free bytes of each device, in the order in which layers should go to them.

    Returns:
        For each layer the index of its device, never decreasing.

    Raises:
        UsageError: they do not fit.
    """
    total, space = sum(layer_bytes), sum(room)
    if total > space:
        raise UsageError(
            f"--devices: the trunk's layers take {total / 1e9:.3g} GB, the devices have "
            f"{space / 1e9:.3g} GB free: give more devices"
        )
    borders = [total * share / space for share in accumulate(room)] if space else []
    planned: list[int] = []
    device, used = 0, [0] * len(room)
    before = 0
    for size in layer_bytes:
        # A layer goes where its middle falls; further, where there is no room for it.
        while device < len(room) - 1 and (
            before + size / 2 > borders[device] or used[device] + size > room[device]
        ):
            device += 1
        if used[device] + size > room[device]:
            raise UsageError(
                f"--devices: layer {len(planned)} of the trunk ({size / 1e9:.3g} GB) does not fit "
                "into what is free on any device: give more devices"
            )
        used[device] += size
        before += size
        planned.append(device)
    return planned


def spread(
    trunk: Trunk, devices: Sequence[torch.device], *, room: Sequence[int] | None = None
) -> list[torch.device]:
    """Move a trunk's layers to several devices and let hidden states follow.

    The trunk is called as before, with inputs on the first device; what it returns is there, too.

    Args:
        trunk: On the CPU: what is larger than one device cannot be loaded there first. It is
            changed in place and must not be moved any more.
        devices: Where to, the first being where inputs come in.
        room: Free bytes of each; asked of the devices where None.

    Returns:
        Each layer's device, in the order of ``trunk.stack.numbers``.

    Raises:
        UsageError: no devices, or the layers do not fit.
    """
    from accelerate import dispatch_model

    if not devices:
        raise UsageError("--devices: name at least one")
    stack = trunk.stack
    sizes = [_nbytes(layer) for layer in stack.layers]
    planned = plan_layers(sizes, [_free(each) for each in devices] if room is None else room)
    placed = [devices[index] for index in planned]
    device_map = {f"layers.{number}": device for number, device in enumerate(placed)}
    if stack.rotary is not None:
        device_map["rotary"] = devices[0]
    dispatch_model(
        stack,
        device_map=device_map,
        main_device=devices[0],
        # The cache stays where it is: it has each layer's part on the layer's device.
        skip_keys=["past_key_values"],
        force_hooks=True,
    )
    return placed


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--devices {name}: use cpu, cuda:0, cuda:1 …") from error
    if device.type == "cpu":
        return torch.device("cpu")
    if device.type != "cuda":
        raise UsageError(f"--devices {name}: use cpu, cuda:0, cuda:1 …")
    if (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"--devices {name}: torch sees {torch.cuda.device_count()} CUDA device(s)")
    return torch.device("cuda", device.index or 0)


def _nbytes(layer: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*layer.parameters(), *layer.buffers()))


def _free(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
