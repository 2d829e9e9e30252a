"""The probe: two forwards of a shadow that find where a method can act on a backbone.

The probe runs a copy of the model on torch's ``meta`` device, where tensors have shapes and no
values, and watches: which modules are feed-forward parts (``mlp``) and token mixers (``attn``),
what goes in and out of them, on which axis the channels lie, and, by one backward, which parameters
the stage outputs depend on. What they don't depend on (classifier, final norm, last pooling) is no
part of the encoder.

The second forward, at another size, with two images and in train mode, tells what is fixed and what
follows the image, what an image's sides must be divisible by, and which buffers training writes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from timm.layers.norm import RmsNorm, RmsNorm2d, SimpleNorm, SimpleNorm2d
from torch import nn

from peft_dense.backbones import stages
from peft_dense.backbones.families import Family
from peft_dense.backbones.info import BackboneInfo
from peft_dense.backbones.reading import Reader
from peft_dense.backbones.shadow import shadow
from peft_dense.backbones.stem import channels_to_try, first_layer_checked
from peft_dense.backbones.taps import Form
from peft_dense.backbones.updating import Buffers
from peft_dense.backbones.watch import Calls, Watch
from peft_dense.errors import UnsupportedModelError

__all__ = ["probe"]

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

_SIZES = (224, 256, 384, 192, 448, 512, 128, 64)
"""Sizes that are tried, in this order, on a model that doesn't say for which it was built."""

Size = tuple[int, int]


def probe(model: nn.Module, family: Family) -> BackboneInfo:
    """Watch forwards of a copy of ``model`` on the meta device.

    Args:
        model: Any backbone; it isn't touched.
        family: What the probe can't see of it.

    Raises:
        UnsupportedModelError: The model doesn't run, or its stage outputs can't be reached.
    """
    # The caller's no_grad, inference_mode and random numbers are the caller's.
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        try:
            return _Probe(model, family, shadow(model)).info()
        except UnsupportedModelError as error:
            hooked = any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
            if not hooked:
                raise
            try:  # it may be that users' hooks are what makes the model run
                return _Probe(model, family, shadow(model, users_hooks=True)).info()
            except UnsupportedModelError:
                raise error from None


@dataclass(frozen=True)
class _Forward:
    """What one forward left: all outputs of the tap, and the calls of the modules."""

    outputs: list[Any]
    calls: Calls
    size: Size
    batch: int


class _Probe:
    """One probing of one shadow."""

    def __init__(self, model: nn.Module, family: Family, clone: nn.Module) -> None:
        self.name, self.family, self.model = type(model).__name__, family, clone
        self.sizes = _native_sizes(model)
        if family.flexible is not None:
            family.flexible(clone)
        self.kind = next((p.dtype for p in clone.parameters() if p.is_floating_point()), None)
        self.tap = stages.first_tap(clone, family)
        self.channels = 3

    def info(self) -> BackboneInfo:
        """Run the forwards and put together what they tell."""
        self.watch = Watch(self.model)
        try:
            return self._info()
        finally:
            self.watch.close()

    def _info(self) -> BackboneInfo:
        first = self._first()
        forms = self._forms([first])
        indices = self._chosen(first, forms)
        used = self._used(first, forms, indices)
        unused = _unused(self.model, first.calls, used)
        reductions = self._strides([first], forms, indices)
        buffers = Buffers(self.model)
        second, multiple, unused = self._second(first, indices, reductions, unused)
        forwards = [first] if second is None else [first, second]
        if second is not None:
            told = self._forms(forwards)
            if told != forms:
                forms = told
                indices = self._chosen(first, forms)
                used = self._used(first, forms, indices)
            reductions = self._strides(forwards, forms, indices)
        grids = [self._grids(forward, forms, indices) for forward in forwards]
        channels = tuple(
            int(first.outputs[index].shape[forms[index].channel_axis]) for index in indices
        )
        reader = Reader(
            model=self.model,
            family=self.family,
            records=[forward.calls for forward in forwards],
            batches=[forward.batch for forward in forwards],
            maps=grids,
            widths=channels,
            depths=list(indices.values()),
            used=used,
            reductions=reductions,
        )
        sites = reader.sites()
        norms = tuple(
            f"{prefix}.{leaf}" if prefix else leaf
            for prefix, module in self.model.named_modules()
            if isinstance(module, _NORMS)
            for leaf, _ in module.named_parameters(recurse=False)
            if (f"{prefix}.{leaf}" if prefix else leaf) in used
        )
        stem = reader.stem()
        return BackboneInfo(
            model=self.name,
            family=self.family,
            indices=tuple(indices),
            channels=channels,
            reductions=reductions,
            grids=tuple(grids[0]),
            sites=sites,
            parameters={
                name: tuple(p.shape) for name, p in self.model.named_parameters() if name in used
            },
            norms=norms,
            stem=stem,
            unused=unused,
            multiple=multiple,
            probed_size=first.size,
            tap=replace(
                self.tap, indices=tuple(indices), forms=tuple(forms[index] for index in indices)
            ),
            operations=reader.operations(stem, norms, sites),
            in_channels=self.channels,
            updating=buffers.written(),
            holds=_leaves(first.calls),
        )

    # ------------------------------------------------------------------ forwards

    def _first(self) -> _Forward:
        """Run at the native size, with the right number of channels."""
        failed: list[Exception] = []
        for size in self.sizes:
            for channels in channels_to_try(self.model):
                forward = self._attempt(size, channels, failed)
                if forward is not None:
                    return forward
        height, width = self.sizes[0]
        raise UnsupportedModelError(
            f"{self.name} failed on an image of {height}x{width} with {self.channels} channels: "
            f"{failed[0]}. Build it for the size you want, or describe it with "
            "family=Family(features=..., flexible=...)."
        ) from failed[0]

    def _attempt(self, size: Size, channels: int, failed: list[Exception]) -> _Forward | None:
        """Run with so many channels, or with as many as the first layer then asks for."""
        self.channels = channels
        needed: list[int] = []
        try:
            with first_layer_checked(self.model, channels) as needed:
                return self._run(size, 1)
        except UnsupportedModelError:
            raise
        except Exception as error:  # whatever the model's code raises
            if needed:
                return self._attempt(size, needed[0], failed)
            failed.append(error)
        return None

    def _run(self, size: Size, batch: int) -> _Forward:
        """Run the model; its first run also finds where in its output the stages are."""
        image = torch.empty(
            batch, self.channels, *size, device="meta", dtype=self.kind or torch.float32
        )
        with self.watch.record(image) as calls:
            if self.tap.source == "forward" and not self._tapped:
                output = self.model(image, **dict(self.tap.keywords))
                tap = stages.tap_of(output, self.tap)
                if tap is None:
                    raise UnsupportedModelError(
                        f"{self.name} has no forward_intermediates and its forward returns no list "
                        "of maps, so its stage outputs can't be reached. Pass "
                        "family=Family(features=lambda model, x: [finest, ..., coarsest])."
                    )
                self.tap, self._tapped = tap, True
                outputs = tap.entries(output)
            else:
                outputs = self.tap.reach(self.model, image, self.family.features)
        return _Forward(outputs, calls, size, batch)

    _tapped = False

    def _second(
        self,
        first: _Forward,
        indices: Collection[int],
        reductions: Sequence[int],
        unused: tuple[str, ...],
    ) -> tuple[_Forward | None, int | None, tuple[str, ...]]:
        """Run once more: without what is unused, in train mode, at the smallest larger size.

        Returns:
            That forward, the step by which images may grow, and what is unused; the first two are
            None where the model takes its native size only.
        """
        height, width = first.size
        stride = max(reductions)
        steps = list(dict.fromkeys((stride, height, width)))
        with _without(self.model, unused), torch.no_grad():
            for step in steps:  # it may grow
                forward = self._try((height // step * step + step, width // step * step + 2 * step))
                if forward is None:
                    continue
                if self._follows(first, forward, indices, reductions):
                    return forward, step, unused
                if step == stride:  # it ran, but on a map of another size
                    steps.insert(1, 2 * stride)
            runs = self._try(first.size) is not None
        # What nothing calls may still be read; then it stays.
        if runs or not unused:
            return None, None, unused
        return self._second(first, indices, reductions, ())

    def _follows(
        self,
        first: _Forward,
        second: _Forward,
        indices: Collection[int],
        reductions: Sequence[int],
    ) -> bool:
        """Whether the stages at the second size are those of the first, as much larger."""
        forms = self._forms([first, second])
        if not forms.keys() >= set(indices):
            return False
        off = [
            [part - side / stride for side, part in zip(forward.size, grid, strict=True)]
            for forward in (first, second)
            for grid, stride in zip(self._grids(forward, forms, indices), reductions, strict=True)
        ]
        before, after = off[: len(reductions)], off[len(reductions) :]
        return all(
            abs(new) < 1 or abs(new) < abs(old) + 0.5
            for olds, news in zip(before, after, strict=True)
            for old, new in zip(olds, news, strict=True)
        )

    def _try(self, size: Size) -> _Forward | None:
        """Run two images in train mode, or in eval mode where train mode fails."""
        for mode in (True, False):
            self.model.train(mode)
            try:
                return self._run(size, 2)
            except Exception:  # any failure means: not at this size
                continue
            finally:
                self.model.eval()
        return None

    # ------------------------------------------------------------------ stages

    def _forms(self, forwards: Sequence[_Forward]) -> dict[int, Form]:
        outputs = [forward.outputs for forward in forwards]
        if self.tap.source == "intermediates":  # it was asked for maps (B, C, H, W)
            return {index: Form(channel_axis=1) for index in range(len(outputs[0]))}
        return stages.forms_of(outputs, [forward.size for forward in forwards])

    def _chosen(self, first: _Forward, forms: dict[int, Form]) -> dict[int, float]:
        indices = stages.choose(first.outputs, forms, first.size, self.tap)
        if not indices:
            shapes = [tuple(getattr(output, "shape", ())) for output in first.outputs]
            raise UnsupportedModelError(
                f"{self.name} gives outputs of shapes {shapes}, none of them a map of stride 4 or "
                "more. Pass family=Family(features=lambda model, x: [finest, ..., coarsest])."
            )
        return indices

    def _grids(
        self, forward: _Forward, forms: dict[int, Form], indices: Iterable[int]
    ) -> list[Size]:
        return [
            stages.grid_of(forward.outputs[index], forms[index], forward.size) for index in indices
        ]

    def _strides(
        self, forwards: Sequence[_Forward], forms: dict[int, Form], indices: Iterable[int]
    ) -> tuple[int, ...]:
        grids = [self._grids(forward, forms, indices) for forward in forwards]
        return stages.strides(grids, [forward.size for forward in forwards])

    def _used(self, first: _Forward, forms: dict[int, Form], indices: Iterable[int]) -> set[str]:
        """Names of the parameters on which the stages depend, by one backward."""
        named = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        total = torch.stack([first.outputs[index].sum() for index in indices]).sum()
        grads = torch.autograd.grad(
            total, [p for _, p in named], allow_unused=True, retain_graph=True
        )
        return {name for (name, _), grad in zip(named, grads, strict=True) if grad is not None}


@contextmanager
def _without(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Take modules out for a while."""
    parts = {name: model.get_submodule(name) for name in names}
    for name in names:
        model.set_submodule(name, nn.Identity())
    try:
        yield
    finally:
        for name, part in parts.items():
            model.set_submodule(name, part)


def _unused(model: nn.Module, calls: Calls, used: set[str]) -> tuple[str, ...]:
    """Outermost modules that never ran and hold only unused parameters.

    Code may iterate over a container or index it, called or not, so its parts are named instead.
    """
    containers = (nn.ModuleList, nn.ModuleDict, nn.Sequential)
    names: list[str] = []
    for name, module in model.named_modules():
        if not name or name in calls or any(name.startswith(n + ".") for n in names):
            continue
        inner = [f"{name}.{leaf}" for leaf, _ in module.named_parameters()]
        ran = any(other.startswith(name + ".") for other in calls)
        if inner and not (ran or used.intersection(inner) or isinstance(module, containers)):
            names.append(name)
    return tuple(names)


def _leaves(calls: Calls) -> tuple[str, ...]:
    """Attribute names of what ran, for an error's help."""
    leaves = {name.rpartition(".")[2] for name in calls}
    return tuple(sorted(leaf for leaf in leaves if leaf and not leaf.isdigit())[:24])


def _native_sizes(model: nn.Module) -> list[Size]:
    """Image sizes to try: first the one the model says it was built for, then usual ones."""
    embed = getattr(model, "patch_embed", None)
    told = (
        getattr(embed, "img_size", None),
        getattr(model, "img_size", None),
        (getattr(model, "pretrained_cfg", None) or {}).get("input_size"),
        getattr(getattr(model, "config", None), "image_size", None),
    )
    found: list[Size] = []
    for size in told:
        if isinstance(size, int):
            found.append((size, size))
        elif isinstance(size, (tuple, list)) and len(size) >= 2:
            found.append((int(size[-2]), int(size[-1])))
    # A model may have been built for another size than its pretrained weights.
    return list(dict.fromkeys((*found, *((size, size) for size in _SIZES))))
