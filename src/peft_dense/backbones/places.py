"""Places in a backbone: where a branch, a scale or a low-rank update can go."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

__all__ = ["LinearSite", "MapScope", "Operation", "Site"]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One module with a weight that ran: the stem convolution, a norm, or a linear of a site.

    Attributes:
        name: The module's name.
        kind: ``stem``, ``norm`` or ``linear``.
        channels: Width of its output.
        channel_axis: Where that output keeps them: 1 or -1.

    Example:
        >>> import timm
        >>> from peft_dense.backbones import examine
        >>> first = examine(timm.create_model("pvt_v2_b0")).operations[0]
        >>> first.name, first.kind, first.channels
        ('patch_embed.proj', 'stem', 32)
    """

    name: str
    kind: str
    channels: int
    channel_axis: int


@dataclass(frozen=True, kw_only=True)
class LinearSite:
    """One linear of a site: an ``nn.Linear``, or a 1x1 convolution.

    Attributes:
        name: The module's name.
        role: ``qkv``, ``proj``, ``fc1`` or ``fc2``.
        in_features: Width of its input.
        out_features: Width of its output.
        called: False where the model reads the weight instead of calling the module (SwinV2's and
            BEiT's ``qkv``).

    Example:
        >>> import timm
        >>> from peft_dense.backbones import examine
        >>> linear = examine(timm.create_model("pvt_v2_b0")).linears(["fc1"])[0]
        >>> linear.name, linear.out_features
        ('stages.0.blocks.0.mlp.fc1', 256)
    """

    name: str
    role: str
    in_features: int
    out_features: int
    called: bool


@dataclass(frozen=True, kw_only=True)
class MapScope:
    """The nearest module around a site that sees the height and width of the site's map.

    With (H, W) so read, the site's map is ``ceil(H / stride) x ceil(W / stride)``.

    Attributes:
        module: Its dotted name: the site itself, one around it, or ``""`` for the whole model.
        argument: Index of the positional argument to look at.
        axes: Axes of height and width where that argument is a tensor, or None where it is the pair
            ``(H, W)`` itself, as the ``feat_size`` of PVTv2, Twins and MViTv2.
        stride: What height and width are divided by.

    Example:
        >>> import timm
        >>> from peft_dense.backbones import examine
        >>> examine(timm.create_model("pvt_v2_b0")).find("mlp")[0].scope.module
        'stages.0.blocks.0.mlp'
    """

    module: str
    argument: int
    axes: tuple[int, int] | None
    stride: int


@dataclass(frozen=True, kw_only=True)
class Site:
    """One module beside or after which a branch can go.

    Attributes:
        name: The module's name.
        kind: ``mlp`` or ``attn``.
        layer: The module's class.
        stage: Which stage it is in, counted from the finest.
        width: Its output channels.
        channel_axis: -1 for tokens (B, N, C) and maps (B, H, W, C), 1 for maps (B, C, H, W).
        tokens: How many an image of the probed size has there.
        grid: Their (N,) or (H, W).
        keeps_shape: Whether input and output have one shape.
        linears: Its linears.
        prefix: How many class and register tokens lie before those of the map.
        calls: How often the module runs in a forward.
        raster: Whether its tokens, without the prefix, are the stage output's map row by row, by
            their counts at every size that was tried.
        scope: Where height and width of its map can be read; None where its tokens are no map in
            raster order (windows, mask units).

    Example:
        >>> import timm
        >>> from peft_dense.backbones import examine
        >>> site = examine(timm.create_model("pvt_v2_b0")).find("mlp")[0]
        >>> site.name, site.width, site.stage
        ('stages.0.blocks.0.mlp', 32, 0)
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
