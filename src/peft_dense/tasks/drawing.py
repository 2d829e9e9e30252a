"""Colours: classes by the PASCAL VOC palette, amounts by a grey or a coloured ramp."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["IGNORED_COLOUR", "grey", "palette", "ramp"]

# Dark blue, blue, teal, green, yellow: brighter with every step, so it reads in grey print too.
_RAMP = torch.tensor([[40, 20, 90], [45, 80, 150], [35, 140, 145], [110, 195, 95], [250, 230, 60]])


def palette(classes: int = 256) -> Tensor:
    """Give a colour per class: bit ``3 j + c`` of the class becomes bit ``7 - j`` of channel ``c``.

    This is the numbering of PASCAL VOC (development kit, colour map of the label images); class
    255, an ignored pixel, comes out as a pale cream.

    Args:
        classes: How many, up to 2^24.

    Shape:
        ``() -> (classes, 3)`` uint8

    Example:
        >>> palette()[[0, 1, 15, 255]].tolist()
        [[0, 0, 0], [128, 0, 0], [192, 128, 128], [224, 224, 192]]
    """
    index, channel = torch.arange(classes)[:, None], torch.arange(3)
    bits = [((index >> (3 * j + channel)) & 1) << (7 - j) for j in range(8)]
    return torch.stack(bits).sum(0).to(torch.uint8)


def grey(amount: Tensor) -> Tensor:
    """Paint amounts from 0, black, to 1, white.

    Shape:
        ``(H, W) -> (H, W, 3)`` uint8

    Example:
        >>> grey(torch.tensor([[0.0, 1.0]])).tolist()
        [[[0, 0, 0], [255, 255, 255]]]
    """
    return _bytes(255 * _unit(amount))[..., None].expand(*amount.shape, 3).contiguous()


def ramp(amount: Tensor) -> Tensor:
    """Paint amounts from 0, dark blue, to 1, yellow.

    Shape:
        ``(H, W) -> (H, W, 3)`` uint8

    Example:
        >>> ramp(torch.tensor([[0.0, 1.0]])).tolist()
        [[[40, 20, 90], [250, 230, 60]]]
    """
    place = _unit(amount) * (len(_RAMP) - 1)
    before = place.long().clamp(max=len(_RAMP) - 2)
    return _bytes(
        torch.lerp(_RAMP[before].float(), _RAMP[before + 1].float(), (place - before)[..., None])
    )


def _unit(amount: Tensor) -> Tensor:
    return amount.float().nan_to_num(0.0, posinf=1.0, neginf=0.0).clamp(0, 1)


def _bytes(colour: Tensor) -> Tensor:
    return colour.round().to(torch.uint8)


IGNORED_COLOUR = palette()[255]
"""The colour of ignored pixels in every picture."""
