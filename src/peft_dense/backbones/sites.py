"""One probing forward that finds where a method can act on a backbone.

The probe runs a copy of the model on torch's ``meta`` device, where tensors have shapes and no
values, and watches: which modules are feed-forward parts (``mlp``) and token mixers (``attn``),
what goes in and out of them, on which axis the channels lie, and, by one backward, which parameters
the stage outputs depend on. What they don't depend on (classifier, final norm, last pooling) is no
part of the encoder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from timm.layers.norm import RmsNorm, RmsNorm2d, SimpleNorm, SimpleNorm2d
from torch import Tensor, nn

from peft_dense.backbones.clone import meta
from peft_dense.backbones.families import Family
from peft_dense.backbones.taps import stage_outputs
from peft_dense.errors import NoSiteError, UnsupportedModelError

__all__ = ["BackboneInfo", "LinearSite", "Site", "probe"]

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
class Site:
    """One module beside or after which a branch can go.

    ``kind`` is ``mlp`` or ``attn``; ``layer`` the module's class; ``width`` its output channels;
    ``channel_axis`` -1 for tokens (B, N, C) and maps (B, H, W, C), 1 for maps (B, C, H, W);
    ``tokens`` how many an image of the probed size has there, and ``grid`` their (N,) or (H, W);
    ``stage`` counts from the finest; ``keeps_shape`` tells whether input and output have one shape.
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


@dataclass(frozen=True, kw_only=True)
class BackboneInfo:
    """What the probe found: stages, sites and the parameters the stage outputs depend on.

    ``channels`` and ``reductions`` are the stages' widths and strides, finest first, and ``grids``
    their sizes at the probed image size; ``multiple``
    is what an image's sides must be divisible by, or None where only ``probed_size`` works;
    ``parameters`` maps the names of the used parameters to their shapes; ``norms`` names those of
    normalisation layers among them; ``stem`` is the first convolution and its width; ``unused``
    names the modules that never ran.
    """

    model: str
    family: Family = field(repr=False)
    indices: tuple[int, ...]
    channels: tuple[int, ...]
    reductions: tuple[int, ...]
    grids: tuple[tuple[int, int], ...]
    sites: tuple[Site, ...]
    parameters: Mapping[str, tuple[int, ...]] = field(repr=False)
    norms: tuple[str, ...] = field(repr=False)
    stem: tuple[str, int] | None
    unused: tuple[str, ...]
    multiple: int | None
    probed_size: tuple[int, int]

    @property
    def flat(self) -> bool:
        """Whether all stages have one scale, as in a plain ViT."""
        return len(set(self.reductions)) == 1

    @property
    def size(self) -> int:
        """Number of parameters the stage outputs depend on."""
        return sum(math.prod(shape) for shape in self.parameters.values())

    def numel(self, names: Sequence[str]) -> int:
        """Number of values in the named parameters."""
        return sum(math.prod(self.parameters[name]) for name in names)

    def find(self, kinds: str) -> tuple[Site, ...]:
        """Sites of a kind: ``"mlp"``, ``"attn"`` or ``"both"``.

        Raises:
            NoSiteError: The backbone has none; the message lists those it has.
        """
        wanted = ("mlp", "attn") if kinds == "both" else (kinds,)
        found = tuple(site for site in self.sites if site.kind in wanted)
        for kind in wanted:
            if not any(site.kind == kind for site in found):
                raise NoSiteError(
                    f"no {kind!r} site in {self.model}; it has {self._summary()}. Choose other "
                    f"sites=..., or name the attribute with family=Family({kind}=('...',))."
                )
        return found

    def linears(self, roles: Sequence[str]) -> tuple[LinearSite, ...]:
        """Linears that play one of ``roles``.

        Raises:
            NoSiteError: The backbone has none for one of the roles; the message lists those it has.
        """
        every = [linear for site in self.sites for linear in site.linears]
        for role in roles:
            if not any(linear.role == role for linear in every):
                have = ", ".join(sorted({linear.role for linear in every})) or "none"
                raise NoSiteError(
                    f"no {role!r} linear in {self.model}; it has {have}. Choose other targets=..., "
                    f"or name the attributes with family=Family(roles={{{role!r}: ('...',)}})."
                )
        return tuple(linear for linear in every if linear.role in roles)

    def _summary(self) -> str:
        kinds = [site.kind for site in self.sites]
        return ", ".join(f"{kinds.count(kind)} {kind!r}" for kind in sorted(set(kinds))) or "none"


def probe(model: nn.Module, family: Family) -> BackboneInfo:
    """Watch one forward of a copy of ``model`` on the meta device.

    Args:
        model: Any backbone; it isn't touched.
        family: What the probe can't see of it.

    Raises:
        UnsupportedModelError: The model doesn't run, or its stage outputs can't be reached.
        NoSiteError: No feed-forward part and no token mixer were found.
    """
    name = type(model).__name__
    size = _native_size(model)
    clone = meta(model).eval()
    if family.flexible is not None:
        family.flexible(clone)
    watch = _Watch(clone, family)
    try:
        with watch:
            outputs = _run(clone, family, size)
    except UnsupportedModelError:
        raise
    except Exception as error:
        raise UnsupportedModelError(
            f"{name} failed on an image of {size[0]}x{size[1]}: {error}. Build it for the size you "
            "want, or describe it with family=Family(features=..., flexible=...)."
        ) from error
    if outputs is None:
        raise UnsupportedModelError(
            f"{name} has no forward_intermediates and its forward returns no list of maps, so its "
            "stage outputs can't be reached. Pass "
            "family=Family(features=lambda model, x: [finest, ..., coarsest])."
        )
    used = _used(clone, outputs)
    indices = _choose(outputs, size)
    maps = [outputs[index] for index in indices]
    grids = tuple((int(output.shape[-2]), int(output.shape[-1])) for output in maps)
    sites = watch.sites(maps, indices)
    if not sites:
        raise NoSiteError(
            f"{name} has no module named {' or '.join(map(repr, family.mlp + family.attn))} that "
            f"ran on tokens. Its blocks have {watch.names()}. Name the right ones with "
            "family=Family(mlp=('...',), attn=('...',))."
        )
    reductions = tuple(size[0] // grid[0] for grid in grids)
    norms = tuple(
        f"{prefix}.{leaf}" if prefix else leaf
        for prefix, module in clone.named_modules()
        if isinstance(module, _NORMS)
        for leaf, _ in module.named_parameters(recurse=False)
        if (f"{prefix}.{leaf}" if prefix else leaf) in used
    )
    return BackboneInfo(
        model=name,
        family=family,
        indices=tuple(indices),
        channels=tuple(output.shape[1] for output in maps),
        reductions=reductions,
        grids=grids,
        sites=sites,
        parameters={name: tuple(p.shape) for name, p in clone.named_parameters() if name in used},
        norms=norms,
        stem=watch.stem(),
        unused=watch.unused(used),
        multiple=_multiple(clone, family, size, max(reductions)),
        probed_size=size,
    )


def _run(model: nn.Module, family: Family, size: tuple[int, int]) -> list[Tensor] | None:
    kind = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    image = torch.empty(1, 3, *size, device="meta", dtype=kind)
    if family.features is not None:
        return list(family.features(model, image))
    return stage_outputs(model, image)


def _native_size(model: nn.Module) -> tuple[int, int]:
    """Image size the model was built for, 224 x 224 where it doesn't say."""
    embed = getattr(model, "patch_embed", None)
    config = getattr(model, "pretrained_cfg", None) or {}
    for size in (getattr(embed, "img_size", None), config.get("input_size")):
        if isinstance(size, int):
            return size, size
        if isinstance(size, (tuple, list)) and len(size) >= 2:
            return int(size[-2]), int(size[-1])
    return 224, 224


def _choose(outputs: Sequence[Tensor], size: tuple[int, int]) -> list[int]:
    """Pick the stages: all but a stem finer than 1/4; a flat model's depth in four parts."""
    if len({tuple(output.shape) for output in outputs}) == 1 and len(outputs) > 4:
        return [len(outputs) * part // 4 - 1 for part in (1, 2, 3, 4)]
    return [i for i, output in enumerate(outputs) if output.shape[-2] * 4 <= size[0]]


def _used(model: nn.Module, outputs: Sequence[Tensor]) -> set[str]:
    """Names of the parameters on which the outputs depend, by one backward."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    total = torch.stack([output.sum() for output in outputs]).sum()
    grads = torch.autograd.grad(total, [p for _, p in named], allow_unused=True)
    return {name for (name, _), grad in zip(named, grads, strict=True) if grad is not None}


def _multiple(
    model: nn.Module, family: Family, size: tuple[int, int], reduction: int
) -> int | None:
    """Smallest step by which an image may grow: the coarsest stride, the native size, or none."""
    for step in dict.fromkeys((reduction, *(s for s in size if s % reduction == 0))):
        base = [side // step * step for side in size]
        try:
            with torch.no_grad():
                _run(model, family, (base[0] + step, base[1] + 2 * step))
        except Exception:  # any failure means: not at this size
            continue
        return step
    return None


@dataclass
class _Call:
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    order: int


class _Watch:
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
