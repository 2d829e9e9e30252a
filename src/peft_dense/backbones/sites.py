"""The probe: two forwards of a shadow that find where a method can act on a backbone.

The probe runs a copy of the model on torch's ``meta`` device, where tensors have shapes and no
values, and watches: which modules are feed-forward parts (``mlp``) and token mixers (``attn``),
what goes in and out of them, on which axis the channels lie, and, by the graph that is left, which
parameters the stage outputs depend on. What they don't depend on (classifier, final norm, last
pooling) is no part of the encoder.

The second forward, at another size, with two images and in train mode, tells what is fixed and what
follows the image, what an image's sides must be divisible by, and which buffers training writes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import nn

from peft_dense.backbones import stages
from peft_dense.backbones.depending import depended_on
from peft_dense.backbones.families import Family
from peft_dense.backbones.forwards import Forward, Runner, Size
from peft_dense.backbones.info import BackboneInfo
from peft_dense.backbones.reading import Reader
from peft_dense.backbones.shadow import shadow
from peft_dense.backbones.taps import Form
from peft_dense.backbones.unused import find_unused, without
from peft_dense.backbones.updating import Buffers
from peft_dense.backbones.watch import Calls
from peft_dense.errors import UnsupportedModelError

__all__ = ["probe"]


def probe(model: nn.Module, family: Family) -> BackboneInfo:
    """Watch forwards of a copy of ``model`` on the meta device.

    Args:
        model: Any backbone; it isn't touched.
        family: What the probe can't see of it.

    Raises:
        UnsupportedModelError: The model doesn't run, or its stage outputs can't be reached.

    Example:
        >>> import timm
        >>> probe(timm.create_model("pvt_v2_b0"), Family()).reductions
        (4, 8, 16, 32)
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


class _Probe:
    """One probing of one shadow."""

    def __init__(self, model: nn.Module, family: Family, clone: nn.Module) -> None:
        self.name, self.family, self.model = type(model).__name__, family, clone
        if family.flexible is not None:
            family.flexible(clone)
        self.runner = Runner(model, family, clone)

    def info(self) -> BackboneInfo:
        """Run the forwards and put together what they tell."""
        try:
            return self._info()
        finally:
            self.runner.close()

    def _info(self) -> BackboneInfo:
        first = self.runner.first()
        forms = self._forms([first])
        indices = self._chosen(first, forms)
        used = self._used(first, indices)
        unused = find_unused(self.model, first.calls, used)
        reductions = self._strides([first], forms, indices)
        buffers = Buffers(self.model)
        second, multiple, unused = self._second(first, indices, reductions, unused)
        forwards = [first] if second is None else [first, second]
        if second is not None:
            told = self._forms(forwards)
            if told != forms:
                forms = told
                indices = self._chosen(first, forms)
                used = self._used(first, indices)
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
        norms = reader.norms()
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
                self.runner.tap,
                indices=tuple(indices),
                forms=tuple(forms[index] for index in indices),
            ),
            operations=reader.operations(stem, norms, sites),
            in_channels=self.runner.channels,
            updating=buffers.written(),
            holds=_leaves(first.calls),
        )

    # ------------------------------------------------------------------ forwards

    def _second(
        self,
        first: Forward,
        indices: Collection[int],
        reductions: Sequence[int],
        unused: tuple[str, ...],
    ) -> tuple[Forward | None, int | None, tuple[str, ...]]:
        """Run once more: without what is unused, in train mode, at the smallest larger size.

        Returns:
            That forward, the step by which images may grow, and what is unused; the first two are
            None where the model takes its native size only.
        """
        height, width = first.size
        stride = max(reductions)
        steps = list(dict.fromkeys((stride, height, width)))
        ran = False
        with without(self.model, unused), torch.no_grad():
            for step in steps:  # it may grow
                forward = self.runner.two(
                    (height // step * step + step, width // step * step + 2 * step)
                )
                if forward is None:
                    continue
                ran = True
                growth = self._growth(first, forward, indices, reductions)
                if growth == "even":
                    return forward, step, unused
                if growth == "none":
                    break  # every image is brought to one size
                if step == stride:
                    steps.insert(1, 2 * stride)
            runs = ran or self.runner.two(first.size) is not None
        # What nothing calls may still be read; then it stays.
        if runs or not unused:
            return None, None, unused
        return self._second(first, indices, reductions, ())

    def _growth(
        self,
        first: Forward,
        second: Forward,
        indices: Collection[int],
        reductions: Sequence[int],
    ) -> Literal["even", "none", "uneven"]:
        """Whether the stages at the second size are those of the first, as much larger."""
        forms = self._forms([first, second])
        if not forms.keys() >= set(indices):
            return "uneven"
        before, after = (self._grids(forward, forms, indices) for forward in (first, second))
        if before == after:
            return "none"

        def off(forward: Forward, grids: list[Size]) -> list[float]:
            return [
                abs(part - side / stride)
                for grid, stride in zip(grids, reductions, strict=True)
                for side, part in zip(forward.size, grid, strict=True)
            ]

        pairs = zip(off(first, before), off(second, after), strict=True)
        return "even" if all(new < 1 or new < old + 0.5 for old, new in pairs) else "uneven"

    # ------------------------------------------------------------------ stages

    def _forms(self, forwards: Sequence[Forward]) -> dict[int, Form]:
        outputs = [forward.outputs for forward in forwards]
        if self.runner.tap.source == "intermediates":  # it was asked for maps (B, C, H, W)
            return {index: Form(channel_axis=1) for index in range(len(outputs[0]))}
        return stages.forms_of(outputs, [forward.size for forward in forwards])

    def _chosen(self, first: Forward, forms: dict[int, Form]) -> dict[int, float]:
        indices = stages.choose(first.outputs, forms, first.size, self.runner.tap)
        if not indices:
            shapes = [tuple(getattr(output, "shape", ())) for output in first.outputs]
            raise UnsupportedModelError(
                f"{self.name} gives outputs of shapes {shapes}, none of them a map of stride 4 or "
                "more. Pass family=Family(features=lambda model, x: [finest, ..., coarsest])."
            )
        return indices

    def _grids(
        self, forward: Forward, forms: dict[int, Form], indices: Iterable[int]
    ) -> list[Size]:
        return [
            stages.grid_of(forward.outputs[index], forms[index], forward.size) for index in indices
        ]

    def _strides(
        self, forwards: Sequence[Forward], forms: dict[int, Form], indices: Iterable[int]
    ) -> tuple[int, ...]:
        grids = [self._grids(forward, forms, indices) for forward in forwards]
        return stages.strides(grids, [forward.size for forward in forwards])

    def _used(self, first: Forward, indices: Iterable[int]) -> set[str]:
        """Names of the parameters on which the stages depend."""
        used = depended_on(
            [first.outputs[index] for index in indices], dict(self.model.named_parameters())
        )
        if not used:
            raise UnsupportedModelError(
                f"the stage outputs of {self.name} depend on none of its parameters. Take no_grad "
                "and detach out of its forward."
            )
        return used


def _leaves(calls: Calls) -> tuple[str, ...]:
    """Attribute names of what ran, for an error's help."""
    leaves = {name.rpartition(".")[2] for name in calls}
    return tuple(sorted(leaf for leaf in leaves if leaf and not leaf.isdigit())[:24])
