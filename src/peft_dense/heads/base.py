"""The base of all heads, and their registry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, TypeVar

from torch import Tensor, nn

from peft_dense.errors import HyperparameterError, ShapeError, UnknownNameError
from peft_dense.nn.checks import check_whole

__all__ = ["Head", "head", "heads", "register"]


class Head(nn.Module, ABC):
    """Turn a backbone's stages, finest first, into one map at the finest stage's size.

    Args:
        channels: Channels of each stage, C_i.
        out_channels: Channels of the map.

    Shape:
        a list of ``(B, C_i, H_i, W_i)`` to ``(B, out_channels, H_0, W_0)``

    Raises:
        HyperparameterError: If there is no stage, or a number of channels isn't positive.
        ShapeError: If the features given to ``forward`` aren't those stages, finest first.

    Example:
        >>> class Linear(Head):
        ...     name = "linear"
        ...
        ...     def __init__(self, channels, out_channels):
        ...         super().__init__(channels, out_channels)
        ...         self.last = nn.Conv2d(channels[0], out_channels, 1)
        ...
        ...     def forward(self, features):
        ...         self.check(features)
        ...         return self.last(features[0])
        >>> import torch
        >>> Linear((8, 16), 5)([torch.zeros(1, 8, 4, 4), torch.zeros(1, 16, 2, 2)]).shape
        torch.Size([1, 5, 4, 4])
    """

    name: ClassVar[str]

    def __init__(self, channels: Sequence[int], out_channels: int) -> None:
        super().__init__()
        if not channels:
            raise HyperparameterError("channels is empty; pass the channels of one stage or more.")
        for stage, width in enumerate(channels):
            check_whole(f"channels[{stage}]", width)
        check_whole("out_channels", out_channels)
        self.channels = tuple(channels)
        self.out_channels = out_channels

    @abstractmethod
    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Turn the stages into a map."""

    def check(self, features: Sequence[Tensor]) -> None:
        """Raise unless ``features`` are the stages the head was built for, finest first."""
        shapes = [tuple(x.shape) for x in features]
        fits = len(shapes) == len(self.channels) and all(
            len(shape) == 4
            and shape[:2] == (shapes[0][0], width)
            and shape[2] <= shapes[0][2]
            and shape[3] <= shapes[0][3]
            for shape, width in zip(shapes, self.channels, strict=True)
        )
        if not fits:
            raise ShapeError(
                f"{type(self).__name__} takes one (B, C, H, W) map per stage, finest first, of "
                f"{', '.join(map(str, self.channels))} channels; got shapes "
                f"{', '.join(map(str, shapes)) or 'none'}. Pass the stages in that order, or build "
                "the head with their channels."
            )


AnyHead = TypeVar("AnyHead", bound=Head)
_HEADS: dict[str, type[Head]] = {}


def register(cls: type[AnyHead]) -> type[AnyHead]:
    """Register a head class under its ``name``.

    Args:
        cls: The class, with a ``name``.

    Raises:
        HyperparameterError: If another class has that name.

    Example:
        >>> register(head("segformer")).name
        'segformer'
    """
    known = _HEADS.setdefault(cls.name, cls)
    if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise HyperparameterError(
            f"head {cls.name!r} is {known.__module__}.{known.__qualname__} already; give "
            f"{cls.__module__}.{cls.__qualname__} another name."
        )
    _HEADS[cls.name] = cls
    return cls


def head(name: str) -> type[Head]:
    """Give a head's class by name; call it with ``(channels, out_channels)``.

    Args:
        name: A registered name.

    Raises:
        UnknownNameError: If there is no such head.

    Example:
        >>> head("segformer")((96, 192), 21).out_channels
        21
    """
    if name not in _HEADS:
        raise UnknownNameError.of("head", name, _HEADS)
    return _HEADS[name]


def heads() -> list[str]:
    """List the names of all heads.

    Example:
        >>> "segformer" in heads()
        True
    """
    return sorted(_HEADS)
