"""Where the channels sit: to the last axis and back, and from tokens to maps.

Layers of this library act on the last axis. Backbones keep their channels there too (``NLC``,
``NHWC``) or on axis 1 (``NCHW``); heads expect ``NCHW`` maps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from peft_dense.errors import ShapeError

__all__ = [
    "check_last_axis",
    "from_channels_last",
    "join_map",
    "split_map",
    "to_channels_last",
    "tokens_to_map",
]


def check_last_axis(x: Tensor, features: int, layer: str) -> None:
    """Raise unless the last axis of ``x`` has ``features`` entries, in the name of ``layer``.

    Raises:
        ShapeError: If it has another number. Broadcasting would let an axis of size 1 pass.
    """
    if x.ndim == 0 or x.shape[-1] != features:
        raise ShapeError(
            f"{layer} works on a last axis of {features} channels; got a tensor of shape "
            f"{tuple(x.shape)}. Build the layer with that width, or move the channels last."
        )


def to_channels_last(x: Tensor, channel_axis: int) -> Tensor:
    """Move ``channel_axis`` to the end: ``(B, C, H, W) -> (B, H, W, C)`` for axis 1.

    Axis -1 leaves ``x`` as it is. The result is a view.

    Example:
        >>> import torch
        >>> to_channels_last(torch.zeros(2, 96, 7, 5), 1).shape
        torch.Size([2, 7, 5, 96])
    """
    return x if channel_axis == -1 else x.movedim(channel_axis, -1)


def from_channels_last(x: Tensor, channel_axis: int) -> Tensor:
    """Move the last axis to ``channel_axis``: undoes :func:`to_channels_last`.

    Example:
        >>> import torch
        >>> from_channels_last(torch.zeros(2, 7, 5, 96), 1).shape
        torch.Size([2, 96, 7, 5])
    """
    return x if channel_axis == -1 else x.movedim(-1, channel_axis)


def tokens_to_map(x: Tensor, height: int, width: int) -> Tensor:
    """Lay tokens out as a map: ``(B, N, C)`` or ``(B, H, W, C)`` to ``(B, C, H, W)``.

    Tokens run row by row. Where there are more than ``height * width`` of them, the leading ones
    (class token, registers, prompts) are dropped.

    Args:
        x: Tokens, or a map with its channels last.
        height: Rows of the map, H.
        width: Columns of the map, W.

    Shape:
        ``(B, P + H W, C)`` or ``(B, H, W, C)`` to ``(B, C, H, W)``, P prefix tokens.

    Raises:
        ShapeError: If there are too few tokens, or the map has another size.

    Example:
        >>> import torch
        >>> tokens_to_map(torch.zeros(2, 1 + 7 * 5, 96), 7, 5).shape
        torch.Size([2, 96, 7, 5])
    """
    given = tuple(x.shape)
    if x.ndim == 3 and given[1] >= height * width:
        x = torch.unflatten(x[:, given[1] - height * width :], 1, (height, width))
    elif x.ndim != 4 or given[1:3] != (height, width):
        raise ShapeError(
            f"a {height} x {width} map needs a tensor (B, {height}, {width}, C), or (B, N, C) with "
            f"N >= {height * width}; got shape {given}. Check the size of the stage that made it."
        )
    return x.movedim(-1, 1)


def split_map(x: Tensor, height: int, width: int) -> tuple[Tensor | None, Tensor]:
    """Part the tokens that come before a map from the map, and lay that out.

    For layers that convolve: class and register tokens have no place on the map, so a layer says
    itself what becomes of them. :func:`join_map` puts both together again.

    Args:
        x: Tokens, or a map with its channels last.
        height: Rows of the map, H.
        width: Columns of the map, W.

    Returns:
        The P tokens before the map's, or None where there are none, and the map.

    Shape:
        ``(B, P + H W, C)`` or ``(B, H, W, C)`` to ``(B, P, C)`` or None, and ``(B, C, H, W)``

    Raises:
        ShapeError: If there are too few tokens, or the map has another size.

    Example:
        >>> import torch
        >>> prefix, laid = split_map(torch.zeros(2, 1 + 7 * 5, 96), 7, 5)
        >>> prefix.shape, laid.shape
        (torch.Size([2, 1, 96]), torch.Size([2, 96, 7, 5]))
    """
    laid = tokens_to_map(x, height, width)
    before = x.shape[1] - height * width if x.ndim == 3 else 0
    return (x[:, :before] if before else None), laid


def join_map(prefix: Tensor | None, laid: Tensor, *, flat: bool) -> Tensor:
    """Undo :func:`split_map`, with as many channels as there are now.

    Args:
        prefix: The tokens before the map's, or None.
        laid: The map.
        flat: Whether the result is tokens; else it is a map with its channels last.

    Shape:
        ``(B, P, C)`` or None, and ``(B, C, H, W)``, to ``(B, P + H W, C)`` or ``(B, H, W, C)``

    Example:
        >>> import torch
        >>> x = torch.randn(2, 1 + 7 * 5, 96)
        >>> torch.equal(join_map(*split_map(x, 7, 5), flat=True), x)
        True
    """
    last = laid.movedim(1, -1)
    if not flat:
        return last
    tokens = last.flatten(1, 2)
    return tokens if prefix is None else torch.cat([prefix, tokens], dim=1)
