"""How many channels a model's images have, read off its first layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

__all__ = ["channels_to_try", "first_layer_checked"]


def channels_to_try(model: nn.Module) -> list[int]:
    """Numbers of channels to run a model with: its first convolution's, then three."""
    first = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), 3)
    return list(dict.fromkeys((first, 3)))


@contextmanager
def first_layer_checked(model: nn.Module, channels: int) -> Iterator[list[int]]:
    """Stop a forward at its first layer where images of ``channels`` don't fit it.

    Yields:
        A list that then holds the number that fits. A stem may bring space into channels first (a
        multiple) or add channels of its own (a difference).
    """
    needed: list[int] = []
    handles: list[Any] = []

    def check(layer: nn.Module, args: tuple[Any, ...]) -> None:
        for handle in handles:
            handle.remove()
        if not args or not isinstance(args[0], Tensor):
            return
        axis = 1 if isinstance(layer, nn.Conv2d) else -1
        expected = layer.in_channels if isinstance(layer, nn.Conv2d) else layer.in_features
        given = args[0].shape[axis]
        if given == expected:
            return
        assert isinstance(expected, int)
        factor, rest = divmod(given, channels)
        fits = expected // factor if not rest else channels + expected - given
        if fits > 0:
            needed.append(fits)
            raise ValueError(f"the first layer takes {expected} channels and was given {given}")

    handles += [
        module.register_forward_pre_hook(check)
        for module in model.modules()
        if isinstance(module, (nn.Conv2d, nn.Linear))
    ]
    try:
        yield needed
    finally:
        for handle in handles:
            handle.remove()
