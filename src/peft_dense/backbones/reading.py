"""Sites and operations, read off the calls that one forward or two have left."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from timm.layers.norm import RmsNorm, RmsNorm2d, SimpleNorm, SimpleNorm2d
from torch import nn

from peft_dense.backbones.axes import channel_axis, steady_axes
from peft_dense.backbones.families import Family
from peft_dense.backbones.places import LinearSite, Operation, Site
from peft_dense.backbones.scopes import common_stride, find_scope, prefix_tokens
from peft_dense.backbones.watch import Call, Calls

__all__ = ["Reader"]

_NORMS = (
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.modules.batchnorm._NormBase,
    RmsNorm,
    RmsNorm2d,
    SimpleNorm,
    SimpleNorm2d,
)

Grid = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Read the places of a backbone off its calls.

    Args:
        model: The watched model.
        family: What the probe can't see of it.
        records: Calls at the native size, and at a second one where the model takes it.
        batches: How many images each of those forwards had.
        maps: Height and width of every stage's map, at each size.
        widths: Channels of the stages.
        depths: Where in the depth of the model each stage ends, up to 1.
        reductions: Strides of the stages.
        used: Names of the parameters on which they depend.
    """

    model: nn.Module
    family: Family
    records: Sequence[Calls]
    batches: Sequence[int]
    maps: Sequence[Sequence[Grid]]
    widths: Sequence[int]
    depths: Sequence[float]
    reductions: Sequence[int]
    used: Collection[str]

    # ------------------------------------------------------------------ sites

    def sites(self) -> tuple[Site, ...]:
        """Find the sites, in the order in which they ran; of nested ones the outermost."""
        found: list[tuple[int, Site]] = []
        for name in sorted(self.records[0], key=lambda name: name.count(".")):
            kind = self._kind(name)
            if kind is None or any(name.startswith(f"{site.name}.") for _, site in found):
                continue
            site = self._site(name, kind)
            if site is not None:
                found.append((self.records[0][name][0].order, site))
        ordered = [site for _, site in sorted(found, key=lambda pair: pair[0])]
        return tuple(self._placed(site) for site in self._staged(ordered))

    def _kind(self, name: str) -> str | None:
        leaf = name.rpartition(".")[2]
        return "mlp" if leaf in self.family.mlp else "attn" if leaf in self.family.attn else None

    def _site(self, name: str, kind: str) -> Site | None:
        """Describe a module that ran on tokens and gave tokens of one width, or return None."""
        module, calls = self.model.get_submodule(name), self.records[0][name]
        first = calls[0]
        if isinstance(module, nn.Identity) or first.inputs is None or first.outputs is None:
            return None
        if len(first.outputs) not in (3, 4) or len(first.inputs) != len(first.outputs):
            return None
        if any((call.inputs, call.outputs) != (first.inputs, first.outputs) for call in calls):
            return None
        if kind == "mlp" and first.inputs != first.outputs:
            return None
        parameters = [f"{name}.{leaf}" for leaf, _ in module.named_parameters()]
        if parameters and not any(parameter in self.used for parameter in parameters):
            return None  # it ran after the last stage
        axis = self._channel_axis(name)
        if axis is None:
            return None
        width = first.outputs[axis]
        return Site(
            name=name,
            kind=kind,
            layer=type(module),
            stage=0,
            width=width,
            channel_axis=axis,
            tokens=math.prod(first.outputs) // width,
            grid=_grid(first, axis),
            keeps_shape=first.inputs == first.outputs,
            linears=self._linears(name, kind),
            calls=len(calls),
        )

    def _channel_axis(self, name: str) -> int | None:
        """Axis of a site's channels: what stays from size to size, or what its last layer says."""
        calls = self._seen(name)
        shapes = [call.outputs for call in calls if call.outputs is not None]
        steady, last = steady_axes(shapes), len(shapes[0]) - 1
        if len(steady) == 1:
            return -1 if steady[0] == last else 1 if steady[0] == 1 else None
        inside = [
            (inner[-1].order, other)
            for other, inner in self.records[0].items()
            if other.startswith(f"{name}.") and inner[-1].outputs == shapes[0]
        ]
        for _, other in sorted(inside, reverse=True):
            module = self.model.get_submodule(other)
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                axis = self._axis(other, module.weight.shape[0])
                if axis is not None and (not steady or axis % (last + 1) in steady):
                    return axis
        able = [axis for axis in (1, last) if not steady or axis in steady]
        wide = [axis for axis in able if shapes[0][axis] in self.widths]
        if len(shapes[0]) == 4 and wide == [1]:
            return 1
        return -1

    def _staged(self, sites: Iterable[Site]) -> list[Site]:
        """Give each site the first stage whose map isn't larger; in a flat model, by its depth."""
        maps, listed = self.maps[0], list(sites)
        flat = len(set(maps)) == 1
        kinds = [site.kind for site in listed]
        staged = []
        for place, site in enumerate(listed):
            if flat:
                done = (kinds[: place + 1].count(site.kind)) / kinds.count(site.kind)
                later = [i for i, depth in enumerate(self.depths) if done <= depth + 1e-9]
            else:
                # A windowed mixer has its windows in the batch; the probe's first batch is one.
                later = [i for i, area in enumerate(maps) if math.prod(area) <= site.tokens]
            if later:
                staged.append(replace(site, stage=later[0]))
        return staged

    def _placed(self, site: Site) -> Site:
        """Add to a site how its tokens lie on its stage's map, and where that map can be seen."""
        records = [
            (record, batch, maps[site.stage])
            for record, batch, maps in zip(self.records, self.batches, self.maps, strict=True)
            if site.name in record
        ]
        calls = [record[site.name][0] for record, _, _ in records]
        grids = [_grid(call, site.channel_axis) for call in calls]
        whole = all(
            call.outputs is not None and call.outputs[0] == batch
            for call, (_, batch, _) in zip(calls, records, strict=True)
        )
        prefix = prefix_tokens(grids, [area for _, _, area in records]) if whole else None
        site = replace(site, prefix=prefix or 0, raster=prefix is not None)
        if not whole or self.family.to_map is not None:
            return site
        kept = [record for record, _, _ in records]
        if len(grids[0]) == 1:
            grids = [(grid[0] - site.prefix,) for grid in grids]
        else:
            images = [record[""][0].inputs for record in kept]
            sizes = [image[2:] for image in images if image is not None]
            if common_stride(sizes, grids) is None:
                return site  # blocks of a map, not the map
        scope = find_scope(site.name, kept, grids, site.channel_axis, self.reductions)
        return replace(site, scope=scope)

    def _linears(self, site: str, kind: str) -> tuple[LinearSite, ...]:
        inside = [
            (f"{site}.{leaf}", module)
            for leaf, module in self.model.get_submodule(site).named_modules()
            if isinstance(module, nn.Linear)
            or (
                isinstance(module, nn.Conv2d)
                and module.kernel_size == (1, 1)
                and module.groups == 1
            )
        ]
        found = []
        for place, (name, module) in enumerate(inside):
            if kind == "mlp":
                role = "fc2" if place == len(inside) - 1 else "fc1"
            else:
                leaf = name.rpartition(".")[2]
                roles = [r for r, leaves in self.family.roles.items() if leaf in leaves]
                deep = name.count(".") > site.count(".") + 1
                # A position bias's perceptron has no role, nor has a projection within a query.
                if not roles or (deep and roles != ["qkv"]):
                    continue
                role = roles[0]
            outputs, inputs = module.weight.shape[:2]
            found.append(
                LinearSite(
                    name=name,
                    role=role,
                    in_features=inputs,
                    out_features=outputs,
                    called=bool(self.records[0].get(name)),
                )
            )
        return tuple(found)

    # ------------------------------------------------------------------ operations

    def stem(self) -> tuple[str, int] | None:
        """Name and output channels of the first convolution that ran."""
        ran = [
            (calls[0].order, name, module.out_channels)
            for name, calls in self.records[0].items()
            if isinstance(module := self.model.get_submodule(name), nn.Conv2d)
        ]
        return min(ran)[1:] if ran else None

    def norms(self) -> tuple[str, ...]:
        """Names of the used parameters that belong to normalisation layers."""
        return tuple(
            name
            for name in (name for name, _ in self.model.named_parameters())
            if name in self.used
            and isinstance(self.model.get_submodule(name.rpartition(".")[0]), _NORMS)
        )

    def operations(
        self, stem: tuple[str, int] | None, norms: Iterable[str], sites: Iterable[Site]
    ) -> tuple[Operation, ...]:
        """List the stem, the norms and the sites' linears that ran, with their channels' axes."""
        wanted: dict[str, tuple[str, int]] = {}
        if stem is not None:
            wanted[stem[0]] = ("stem", stem[1])
        for parameter in norms:
            name, _, leaf = parameter.rpartition(".")
            if leaf == "weight":
                channels = self.model.get_parameter(parameter).shape[0]
                wanted[name] = ("norm", channels)
        for site in sites:
            for linear in site.linears:
                if linear.called:
                    wanted[linear.name] = ("linear", linear.out_features)
        found = []
        for name, (kind, channels) in wanted.items():
            axis = self._axis(name, channels) if name in self.records[0] else None
            if axis is not None:
                found.append(Operation(name=name, kind=kind, channels=channels, channel_axis=axis))
        return tuple(found)

    def _axis(self, name: str, channels: int) -> int | None:
        return channel_axis(self.model.get_submodule(name), self._seen(name), channels)

    def _seen(self, name: str) -> list[Call]:
        """First call of a module at every size at which it ran."""
        return [record[name][0] for record in self.records if name in record]


def _grid(call: Call, channel_axis: int) -> Grid:
    assert call.outputs is not None, "a site gives tokens"
    return call.outputs[2:] if channel_axis == 1 else call.outputs[1:-1]
