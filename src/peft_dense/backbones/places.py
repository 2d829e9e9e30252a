"""Places in a backbone: where a branch, a scale or a low-rank update can go."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

__all__ = ["LinearSite", "MapScope", "Operation", "Site"]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One module with a weight that ran: the stem convolution, a norm, or a linear of a site.

    ``kind`` is ``stem``, ``norm`` or ``linear``; ``channels`` the width of its output and
    ``channel_axis`` where that output keeps them: 1 or -1.
    """

    name: str
    kind: str
    channels: int
    channel_axis: int


@dataclass(frozen=True, kw_only=True)
class LinearSite:
    """One linear of a site: an ``nn.Linear``, or a 1x1 convolution.

    ``role`` is ``qkv``, ``proj``, ``fc1`` or ``fc2``. ``called`` is False where the model reads the
    weight instead of calling the module (SwinV2's and BEiT's ``qkv``).
    """

    name: str
    role: str
    in_features: int
    out_features: int
    called: bool


@dataclass(frozen=True, kw_only=True)
class MapScope:
    """The nearest module around a site that sees the height and width of the site's map.

    ``module`` is its dotted name: the site itself, one around it, or ``""`` for the whole model.
    ``argument`` is the index of the positional argument to look at. ``axes`` are the axes of height
    and width where that argument is a tensor, or None where it is the pair ``(H, W)`` itself, as
    the ``feat_size`` of PVTv2, Twins and MViTv2. With (H, W) so read, the site's map is
    ``ceil(H / stride) x ceil(W / stride)``.
    """

    module: str
    argument: int
    axes: tuple[int, int] | None
    stride: int


@dataclass(frozen=True, kw_only=True)
class Site:
    """One module beside or after which a branch can go.

    ``kind`` is ``mlp`` or ``attn``; ``layer`` the module's class; ``width`` its output channels;
    ``channel_axis`` -1 for tokens (B, N, C) and maps (B, H, W, C), 1 for maps (B, C, H, W);
    ``tokens`` how many an image of the probed size has there, and ``grid`` their (N,) or (H, W);
    ``stage`` counts from the finest; ``keeps_shape`` tells whether input and output have one shape.

    ``prefix`` is how many class and register tokens lie before those of the map; ``calls`` how
    often the module runs in a forward; ``raster`` whether its tokens, without the prefix, are the
    stage output's map row by row, by their counts at every size that was tried; ``scope`` says
    where height and width of its map can be read, or is None where its tokens are no map in raster
    order (windows, mask units).
    """

    name: str
    kind: str
    layer: type[nn.Module]
    stage: int
    width: int
    channel_axis: int
    tokens: int
    grid: tuple[int, ...]
    keeps_shape: bool
    linears: tuple[LinearSite, ...] = ()
    prefix: int = 0
    calls: int = 1
    raster: bool = True
    scope: MapScope | None = None
