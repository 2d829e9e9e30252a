"""What the probe found, as a table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from peft_dense.backbones.info import BackboneInfo
from peft_dense.backbones.places import LinearSite, MapScope, Site

__all__ = ["describe"]

_LEGEND = """\
fits: its tokens are its stage's map, so features of a task can be added there
height and width: where a branch that asks for them finds them"""


def describe(info: BackboneInfo) -> str:
    """Lay out a backbone's stages, and its sites with their linears, as a table.

    Args:
        info: What the probe found.

    Example:
        >>> import timm
        >>> from peft_dense.backbones import examine
        >>> table = describe(examine(timm.create_model("pvt_v2_b0")))
        >>> for line in table.splitlines()[:5]:
        ...     print(line or "--")
        PyramidVisionTransformerV2: 3,409,760 parameters in use, 4 stages
        images (B, 3, H, W), both sides divisible by 32
        --
        stage  channels  stride  map at 224x224
            0        32       4  56x56
    """
    parts = [_head(info), _table(list(_stages(info)), ">>><")]
    if info.sites:
        parts.append(_table(list(_sites(info)), "<<>><>><<"))
        parts.append(_LEGEND)
    else:
        parts.append(f"no module is a place for an adapter.{info.about_blocks()}")
    if info.updating:
        parts.append(f"written in train mode: {_some(info.updating)}")
    if info.unused:
        parts.append(f"left out, since nothing calls it: {_some(info.unused)}")
    return "\n\n".join(parts)


def _head(info: BackboneInfo) -> str:
    height, width = info.probed_size
    sides = (
        f"of {height}x{width} only"
        if info.multiple is None
        else f"both sides divisible by {info.multiple}"
    )
    flat = ", flat: one scale" if info.flat and len(info.channels) > 1 else ""
    return (
        f"{info.model}: {info.size:,} parameters in use, {len(info.channels)} "
        f"stage{'s' if len(info.channels) > 1 else ''}{flat}\n"
        f"images (B, {info.in_channels}, H, W), {sides}"
    )


def _stages(info: BackboneInfo) -> Iterator[Sequence[str]]:
    yield "stage", "channels", "stride", "map at {}x{}".format(*info.probed_size)
    rows = zip(info.channels, info.reductions, info.grids, strict=True)
    for stage, (channels, stride, (height, width)) in enumerate(rows):
        yield str(stage), str(channels), str(stride), f"{height}x{width}"


def _sites(info: BackboneInfo) -> Iterator[Sequence[str]]:
    yield (
        "site",
        "what",
        "stage",
        "channels",
        "layout",
        "tokens",
        "runs",
        "fits",
        "height and width",
    )
    for site in info.sites:
        yield (
            site.name,
            site.kind,
            str(site.stage),
            str(site.width),
            _layout(site),
            _tokens(site),
            str(site.calls),
            "yes" if info.fits(site) else "no",
            _scope(site, site.scope),
        )
        for linear in site.linears:
            yield _linear(site, linear)


def _linear(site: Site, linear: LinearSite) -> Sequence[str]:
    widths = f"{linear.in_features}->{linear.out_features}"
    read = "" if linear.called else "weight read, never called"
    inside = linear.name.removeprefix(f"{site.name}.")
    return f"  .{inside}", linear.role, "", widths, "", "", "", "", read


def _layout(site: Site) -> str:
    if len(site.grid) == 2:
        return "NCHW" if site.channel_axis == 1 else "NHWC"
    return "NCL" if site.channel_axis == 1 else "NLC"


def _tokens(site: Site) -> str:
    area = math.prod(site.grid)
    inner = "x".join(map(str, site.grid))
    if area != site.tokens:
        return f"{site.tokens // area} of {inner}"
    return f"{site.prefix}+{site.tokens - site.prefix}" if site.prefix else inner


def _scope(site: Site, scope: MapScope | None) -> str:
    if scope is None:
        return "-"
    over = f" / {scope.stride}" if scope.stride > 1 else ""
    if not scope.module:
        return f"the image's{over}"
    where = "its" if scope.module == site.name else f"{scope.module}'s"
    what = "(H, W)" if scope.axes is None else "map"
    return f"{where} argument {scope.argument}, {what}{over}"


def _some(names: Sequence[str]) -> str:
    rest = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + rest


def _table(rows: Sequence[Sequence[str]], align: str) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(align))]
    return "\n".join(
        "  ".join(
            f"{cell:{side}{width}}" for cell, side, width in zip(row, align, widths, strict=True)
        ).rstrip()
        for row in rows
    )
