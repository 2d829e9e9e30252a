"""Colours changed at random: brightness, contrast, saturation, hue."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.tv_tensors import TVTensor

from peft_dense.data.labels import Item
from peft_dense.data.transforms.draws import between
from peft_dense.errors import HyperparameterError

__all__ = ["ColorJitter", "shift_hue"]

_GREY = (0.2989, 0.587, 0.114)
"""ITU-R BT.601, as torchvision's."""


class ColorJitter:
    """Change the colours of the image at random, in random order; labels stay as they are.

    It draws and does what torchvision's ``v2.ColorJitter`` does, within rounding of bytes, in less
    than half of its time: bytes become floats once, not four times, and the hue is turned without
    sorting pixels by sector.

    Args:
        brightness: A factor is drawn from 1 - b to 1 + b, or from a given pair.
        contrast: As brightness.
        saturation: As brightness.
        hue: A shift is drawn from -h to h, h at most 0.5, or from a given pair.

    Shape:
        ``(..., H, W) -> (..., H, W)`` for every map

    Raises:
        HyperparameterError: If one of them is out of range.

    Example:
        >>> item = {"image": torch.rand(3, 4, 4), "sal": torch.ones(4, 4, dtype=torch.int64)}
        >>> jittered = ColorJitter(brightness=0.4, hue=0.1)(item)
        >>> torch.equal(jittered["image"], item["image"]), jittered["sal"].unique().tolist()
        (False, [1])
    """

    treats_bytes = True

    def __init__(
        self,
        brightness: float | tuple[float, float] = 0,
        contrast: float | tuple[float, float] = 0,
        saturation: float | tuple[float, float] = 0,
        hue: float | tuple[float, float] = 0,
    ) -> None:
        self.brightness = _range("brightness", brightness, 1, (0, float("inf")))
        self.contrast = _range("contrast", contrast, 1, (0, float("inf")))
        self.saturation = _range("saturation", saturation, 1, (0, float("inf")))
        self.hue = _range("hue", hue, 0, (-0.5, 0.5))

    def __call__(self, item: Item) -> Item:
        """Change the image of one item."""
        image: Tensor = item["image"]
        if image.shape[-3] not in (1, 3):
            raise HyperparameterError(
                f"ColorJitter changes the colours of 1 or 3 channels; an image has "
                f"{image.shape[-3]}. Leave it out (colour=0)."
            )
        plain = image.as_subclass(Tensor)
        whole = plain.dtype == torch.uint8
        changed = plain.float() / 255 if whole else plain.clone()
        ways: list[Callable[[Tensor, float], Tensor]] = [_brighten, _contrast, _saturate, shift_hue]
        ranges = (self.brightness, self.contrast, self.saturation, self.hue)
        order = torch.randperm(4).tolist()
        drawn = [None if pair is None else between(*pair) for pair in ranges]
        for number in order:
            amount = drawn[number]
            if amount is not None:
                changed = ways[number](changed, amount)
        if whole:
            changed = changed.mul_(255).round_().to(torch.uint8)
        return {
            **item,
            "image": changed.as_subclass(type(image)) if isinstance(image, TVTensor) else changed,
        }


def shift_hue(image: Tensor, shift: float) -> Tensor:
    r"""Turn the hue of an image; grey and images of one channel stay as they are.

    With V the largest and C the spread of a pixel's channels and H its turned hue in 0..6, red
    becomes V - C [2 - abs(H - 3)], green V - C [abs(H - 2) - 1] and blue V - C [abs(H - 4) - 1],
    where [] cuts to 0..1: the HSV hexcone, written without its six sectors.

    Args:
        image: RGB in 0..1.
        shift: Share of a whole turn.

    Shape:
        ``(..., 3, H, W) -> (..., 3, H, W)``

    Example:
        >>> red = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
        >>> shift_hue(red, 1 / 3).flatten().round().tolist()
        [0.0, 1.0, 0.0]
    """
    if image.shape[-3] == 1:
        return image
    red, green, blue = image.unbind(-3)
    value = torch.maximum(torch.maximum(red, green), blue)
    spread = value - torch.minimum(torch.minimum(red, green), blue)
    safe = spread.clamp(min=1e-8)
    from_red, from_green = (green - blue) / safe, (blue - red).div_(safe).add_(2)
    from_blue = (red - green).div_(safe).add_(4)
    hue = torch.where(value == green, from_green, from_blue)
    hue = torch.where(value == red, from_red, hue).add_(6 * shift).remainder_(6)
    turned = torch.empty_like(image)
    for channel, (centre, sign, start) in enumerate(((3, -1, 2), (2, 1, -1), (4, 1, -1))):
        part = (hue - centre).abs_().mul_(sign).add_(start).clamp_(0, 1).mul_(spread)
        torch.sub(value, part, out=turned.select(-3, channel))
    return turned


def _brighten(image: Tensor, factor: float) -> Tensor:
    return image.mul_(factor).clamp_(0, 1)


def _contrast(image: Tensor, factor: float) -> Tensor:
    mean = _grey(image).mean()
    return image.mul_(factor).add_((1 - factor) * mean).clamp_(0, 1)


def _saturate(image: Tensor, factor: float) -> Tensor:
    if image.shape[-3] == 1:
        return image
    grey = _grey(image).mul_(1 - factor)
    return image.mul_(factor).add_(grey.unsqueeze(-3)).clamp_(0, 1)


def _grey(image: Tensor) -> Tensor:
    if image.shape[-3] == 1:
        return image.select(-3, 0).clone()
    red, green, blue = image.unbind(-3)
    return (red * _GREY[0]).add_(green, alpha=_GREY[1]).add_(blue, alpha=_GREY[2])


def _range(
    name: str,
    given: float | tuple[float, float],
    centre: float,
    bounds: tuple[float, float],
) -> tuple[float, float] | None:
    """Give smallest and largest of what is drawn; None where nothing changes."""
    try:
        if isinstance(given, (int, float)):
            low, high = (centre - given, centre + given) if given >= 0 else (1.0, 0.0)
            low = max(low, 0.0) if centre else low
        else:
            low, high = (float(end) for end in given)
    except (TypeError, ValueError):
        low, high = 1.0, 0.0
    if not bounds[0] <= low <= high <= bounds[1]:
        raise HyperparameterError(
            f"{name}={given}: expected numbers from 0, or pairs smallest <= largest; hue at most "
            "0.5."
        )
    return None if low == high == centre else (low, high)
