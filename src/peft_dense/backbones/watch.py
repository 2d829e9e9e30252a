"""Hooks that watch one forward and read the sites off it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from peft_dense.backbones.families import Family
from peft_dense.backbones.info import LinearSite, Site

__all__ = ["Watch"]


@dataclass
class _Call:
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    order: int


class Watch:
    """Hooks that note the shapes that went in and out of every module that ran."""

    def __init__(self, model: nn.Module, family: Family) -> None:
        self.model, self.family = model, family
        self.calls: dict[str, list[_Call]] = {}
        self.count = 0
        self.handles: list[Any] = []

    def __enter__(self) -> None:
        for name, module in self.model.named_modules():
            if name:
                self.handles.append(module.register_forward_hook(self._note(name)))

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _note(self, name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            stream = output[0] if isinstance(output, tuple) and output else output
            first = args[0] if args else None
            self.count += 1
            if isinstance(first, Tensor) and isinstance(stream, Tensor):
                call = _Call(tuple(first.shape), tuple(stream.shape), self.count)
                self.calls.setdefault(name, []).append(call)
            else:
                self.calls.setdefault(name, [])

        return hook

    def sites(self, maps: Sequence[Tensor], indices: Sequence[int]) -> tuple[Site, ...]:
        """Read the sites off the calls, in the order in which they ran."""
        channels = {output.shape[1] for output in maps}
        grids = [tuple(output.shape[-2:]) for output in maps]
        found: list[tuple[int, Site]] = []
        for name, calls in self.calls.items():
            kind = self._kind(name)
            inner = any(name.startswith(site.name + ".") for _, site in found)
            if kind is None or inner or len(calls) != 1:
                continue
            call = calls[0]
            if len(call.outputs) not in (3, 4) or len(call.inputs) != len(call.outputs):
                continue
            if isinstance(self.model.get_submodule(name), nn.Identity):
                continue
            axis = self._channel_axis(name, call, channels)
            width = call.outputs[axis]
            if kind == "mlp" and call.inputs != call.outputs:
                continue
            grid = call.outputs[2:] if axis == 1 else call.outputs[1:-1]
            site = Site(
                name=name,
                kind=kind,
                layer=type(self.model.get_submodule(name)),
                stage=0,
                width=width,
                channel_axis=axis,
                tokens=math.prod(call.outputs) // width,
                grid=grid,
                keeps_shape=call.inputs == call.outputs,
                linears=self._linears(name, kind),
            )
            found.append((call.order, site))
        ordered = [site for _, site in sorted(found, key=lambda pair: pair[0])]
        return self._staged(ordered, grids, indices)

    @staticmethod
    def _staged(
        sites: list[Site], grids: Sequence[tuple[int, ...]], indices: Sequence[int]
    ) -> tuple[Site, ...]:
        """Give each site the first stage whose map isn't larger; in a flat model, by its depth."""
        flat = len(set(grids)) == 1
        seen = {"mlp": 0, "attn": 0}
        staged = []
        for site in sites:
            if flat:
                fits = [i for i, index in enumerate(indices) if seen[site.kind] <= index]
                seen[site.kind] += 1
            else:
                # A windowed mixer has its windows in the batch; the probe's batch is one.
                fits = [i for i, grid in enumerate(grids) if math.prod(grid) <= site.tokens]
            if fits:
                staged.append(replace(site, stage=fits[0]))
        return tuple(staged)

    def names(self) -> str:
        """Attribute names of the modules that ran and hold others, for an error's help."""
        leaves = {name.rpartition(".")[2] for name in self.calls}
        return ", ".join(sorted(leaf for leaf in leaves if not leaf.isdigit())[:24])

    def stem(self) -> tuple[str, int] | None:
        """Name and output channels of the first convolution that ran."""
        ran = [
            (calls[0].order, name, module)
            for name, calls in self.calls.items()
            if calls and isinstance(module := self.model.get_submodule(name), nn.Conv2d)
        ]
        return (
            min((order, name, module.out_channels) for order, name, module in ran)[1:]
            if ran
            else None
        )

    def unused(self, used: set[str]) -> tuple[str, ...]:
        """Outermost modules that never ran and hold only unused parameters."""
        names: list[str] = []
        for name, module in self.model.named_modules():
            if not name or name in self.calls or any(name.startswith(n + ".") for n in names):
                continue
            inner = [f"{name}.{leaf}" for leaf, _ in module.named_parameters()]
            ran = any(other.startswith(name + ".") for other in self.calls)
            if inner and not ran and not used.intersection(inner):
                names.append(name)
        return tuple(names)

    def _kind(self, name: str) -> str | None:
        leaf = name.rpartition(".")[2]
        return "mlp" if leaf in self.family.mlp else "attn" if leaf in self.family.attn else None

    def _channel_axis(self, name: str, call: _Call, channels: set[int]) -> int:
        """Tokens end in channels; of a map, the first layer inside tells, or else the widths."""
        if len(call.outputs) == 3:
            return -1
        inside = [
            (calls[0].order, self.model.get_submodule(other))
            for other, calls in self.calls.items()
            if other.startswith(name + ".") and calls
        ]
        layers = [
            module
            for _, module in sorted(inside, key=lambda pair: pair[0])
            if isinstance(module, (nn.Linear, nn.Conv2d))
        ]
        if layers:
            return 1 if isinstance(layers[0], nn.Conv2d) else -1
        return 1 if call.outputs[1] in channels and call.outputs[-1] not in channels else -1

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
                # Position-bias perceptrons inside an attention are no projections of its stream.
                if not roles or name.count(".") != site.count(".") + 1:
                    continue
                role = roles[0]
            outputs, inputs = module.weight.shape[:2]
            found.append(
                LinearSite(
                    name=name,
                    role=role,
                    in_features=inputs,
                    out_features=outputs,
                    called=bool(self.calls.get(name)),
                )
            )
        return tuple(found)
