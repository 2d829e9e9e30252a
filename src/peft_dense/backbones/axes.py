"""On which axis a module keeps its channels, read off what went in and out of it.

Two forwards at two image sizes tell most: the channels are the axis that stays as it is while
height, width and the number of tokens change. Where several axes would do (a model that takes one
size only, as many tokens as channels) the module itself is asked: changing one entry of its bias or
one row of its weight changes one channel of its output.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from peft_dense.backbones.watch import Call, Shape

__all__ = ["channel_axis", "steady_axes"]


def steady_axes(shapes: Sequence[Shape]) -> list[int]:
    """Axes, but for the batch's, along which all shapes agree.

    Example:
        >>> steady_axes([(1, 56, 56, 96), (2, 64, 72, 96)])
        [3]
    """
    first = shapes[0]
    if any(len(shape) != len(first) for shape in shapes):
        return []
    return [axis for axis in range(1, len(first)) if len({shape[axis] for shape in shapes}) == 1]


def channel_axis(module: nn.Module, calls: Sequence[Call], channels: int) -> int | None:
    """Return 1 or -1, or None where the output of a module has no such axis.

    Args:
        module: A module with a weight whose first axis is its output channels.
        calls: Its calls at one size or several.
        channels: How many channels its output has.
    """
    shapes = [call.outputs for call in calls if call.outputs is not None]
    if not shapes:
        return None
    axes = [axis for axis in steady_axes(shapes) if shapes[0][axis] == channels]
    if len(axes) > 1 and calls[0].inputs is not None:
        asked = _changed_axis(module, calls[0].inputs)
        axes = [asked] if asked in axes else axes[-1:]
    return _signed(axes[0], len(shapes[0])) if axes else None


def _signed(axis: int, ndim: int) -> int | None:
    return -1 if axis == ndim - 1 else 1 if axis == 1 else None


def _changed_axis(module: nn.Module, inputs: Shape) -> int | None:
    """Axis along which one channel alone changes with its entry of the bias or the weight."""
    try:
        alone = _awake(module)
        image = _spread(torch.empty(inputs, dtype=torch.float32))
        with torch.no_grad():
            before = alone(image)
            own = dict(alone.named_parameters())
            told = next((p for n, p in own.items() if n.endswith("bias")), None)
            if told is None:
                told = next(p for n, p in own.items() if "weight" in n)
            told[0] += 1
            changed = (alone(image) - before).abs() > 1e-6
    except Exception:  # it may not run alone, in any way
        return None
    for axis in range(1, changed.ndim):
        others = changed.narrow(axis, 1, changed.shape[axis] - 1)
        if changed.any() and not others.any():
            return axis
    return None


def _awake(module: nn.Module) -> nn.Module:
    """Copy a module from the meta device, give it values, and take its forward hooks off."""
    alone = copy.deepcopy(module)
    for part in alone.modules():
        part._forward_hooks.clear()
    alone = alone.to_empty(device="cpu").float()
    with torch.no_grad():
        for parameter in alone.parameters():
            _spread(parameter)
        for buffer in alone.buffers():
            buffer.fill_(1)
    return alone.eval()


def _spread(x: Tensor) -> Tensor:
    """Fill a tensor with values that differ, without drawing random numbers."""
    with torch.no_grad():
        return x.copy_(torch.arange(1.0, x.numel() + 1).mul(0.7).sin().view(x.shape))
