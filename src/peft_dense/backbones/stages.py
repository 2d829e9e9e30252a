"""Which of a model's outputs are its stages, how they are laid out, and their strides."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from peft_dense.backbones.axes import steady_axes
from peft_dense.backbones.families import Family
from peft_dense.backbones.scopes import MOST_PREFIX, common_stride
from peft_dense.backbones.taps import Form, StageTap, listed
from peft_dense.backbones.watch import Shape

__all__ = ["choose", "first_tap", "forms_of", "grid_of", "strides", "tap_of"]

_FIELDS = ("feature_maps", "reshaped_hidden_states", "hidden_states")
"""Where transformers' models put their stages, the best first."""


def first_tap(model: nn.Module, family: Family) -> StageTap:
    """Return how to run a model so that it returns its stages."""
    if family.features is not None:
        return StageTap(source="features")
    if hasattr(model, "forward_intermediates"):
        return StageTap(source="intermediates")
    config = getattr(model, "config", None)
    if hasattr(config, "output_hidden_states") and not hasattr(model, "out_features"):
        return StageTap(source="forward", keywords=(("output_hidden_states", True),))
    return StageTap(source="forward")


def tap_of(output: Any, tap: StageTap) -> StageTap | None:
    """Find where in a forward's output the stages are, or None where there are none."""
    for field in _FIELDS:
        inner = output.get(field) if isinstance(output, Mapping) else getattr(output, field, None)
        if inner is not None and any(map(_is_stage, listed(inner))):
            return dataclasses.replace(tap, field=field)
    entries = listed(output)
    if any(map(_is_stage, entries)) and not isinstance(output, Tensor):
        return tap
    for index, entry in enumerate(entries):
        if not isinstance(entry, Tensor) and any(map(_is_stage, listed(entry))):
            return dataclasses.replace(tap, field=index)
    return None


def _is_stage(output: object) -> bool:
    return isinstance(output, Tensor) and output.ndim in (3, 4) and output.numel() > 0


def forms_of(outputs: Sequence[Sequence[Any]], sizes: Sequence[Shape]) -> dict[int, Form]:
    """Find how each output that may be a stage is laid out.

    Args:
        outputs: All outputs of a model, at one image size or two.
        sizes: Height and width of those images.

    Returns:
        Forms by the index of the output; what is neither a map nor tokens of one has none.
    """
    forms: dict[int, Form] = {}
    open_: list[int] = []
    for index, first in enumerate(outputs[0]):
        if not _is_stage(first):
            continue
        shapes = [tuple(output[index].shape) for output in outputs]
        fitting = []
        for axis in (1, -1):
            if axis % len(shapes[0]) not in steady_axes(shapes):
                continue
            rest = [
                tuple(s for a, s in enumerate(shape) if a and a != axis % len(shape))
                for shape in shapes
            ]
            stride = _stride(sizes, rest)
            if stride is not None:
                fitting.append(Form(channel_axis=axis, stride=stride if first.ndim == 3 else None))
        if len(fitting) == 1 or (fitting and first.ndim == 3):
            forms[index] = fitting[-1]
        elif fitting:
            open_.append(index)
    usual = [form.channel_axis for i, form in forms.items() if outputs[0][i].ndim == 4] or [1]
    for index in open_:  # as many channels as rows: it lies as the others do
        forms[index] = Form(channel_axis=max(set(usual), key=usual.count))
    return dict(sorted(forms.items()))


def _stride(sizes: Sequence[Shape], grids: Sequence[Shape]) -> int | None:
    """Stride of a map, or of tokens with a few before them; None where it is neither."""
    if len(grids[0]) == 2:
        near = [
            size[0] / grid[0] * grid[1] / size[1] for size, grid in zip(sizes, grids, strict=True)
        ]
        # Rounding can make one side of a small map larger by one.
        return common_stride(sizes, grids) or (
            round(sizes[0][0] / grids[0][0]) if all(0.74 < ratio < 1.35 for ratio in near) else None
        )
    for prefix in range(MOST_PREFIX + 1):
        tokens = [(grid[0] - prefix,) for grid in grids]
        if tokens[0][0] > 0:
            stride = common_stride(sizes, tokens)
            if stride is not None:
                return stride
    return None


def grid_of(output: Tensor, form: Form, size: Shape) -> tuple[int, int]:
    """Height and width of an output's map."""
    if form.stride is not None:
        return -(-size[0] // form.stride), -(-size[1] // form.stride)
    height, width = output.shape[2:] if form.channel_axis == 1 else output.shape[1:3]
    return int(height), int(width)


def choose(
    outputs: Sequence[Any], forms: Mapping[int, Form], size: Shape, tap: StageTap
) -> dict[int, float]:
    """Pick the stages: maps of stride 4 and more; in a flat model, the ends of four equal parts.

    Of hidden states that follow one another on one grid, with one width, the last is the stage's.

    Returns:
        The outputs' indices, finest first, each with its place in the depth of the model, up to 1.
    """
    grids = {index: grid_of(outputs[index], form, size) for index, form in forms.items()}
    shapes = {
        index: (grids[index], outputs[index].shape[form.channel_axis])
        for index, form in forms.items()
    }
    found = list(forms)
    flat = len(set(shapes.values())) == 1
    if flat and tap.field in _FIELDS[1:] and len(found) > 1:
        found = found[1:]  # hidden states begin with the embedding, before any block
    depths = {index: (place + 1) / len(found) for place, index in enumerate(found)}
    if flat and len(found) > 4:
        return {i: depths[i] for i in (found[len(found) * part // 4 - 1] for part in (1, 2, 3, 4))}
    if tap.source == "forward" and not flat:
        found = [
            index
            for index, after in zip(found, [*found[1:], None], strict=True)
            if after is None or shapes[index] != shapes[after]
        ]
    stages = [index for index in found if grids[index][0] * 4 <= size[0] + 3]
    if tap.source != "intermediates":  # that gives them in the order of the model
        stages.sort(key=lambda index: -grids[index][0])
    return {index: depths[index] for index in stages}


def strides(grids: Sequence[Sequence[Shape]], sizes: Sequence[Shape]) -> tuple[int, ...]:
    """Strides of the stages, from their maps at one image size or two.

    A map is rounded up (or down) where the stride doesn't divide the image, so that several strides
    may explain it; a stride is then a multiple of the one before.

    Example:
        >>> strides([[(14, 14), (7, 7), (4, 4)]], [(224, 224)])
        (16, 32, 64)
    """
    found: list[int] = []
    for stage in range(len(grids[0])):
        pairs = [
            (side, part)
            for size, maps in zip(sizes, grids, strict=True)
            for side, part in zip(size, maps[stage], strict=True)
        ]
        ideal = pairs[0][0] / pairs[0][1]
        able = [
            stride
            for stride in range(max(1, int(ideal / 2)), int(ideal * 2) + 2)
            if all(side // stride <= part <= -(-side // stride) for side, part in pairs)
        ] or [round(ideal)]
        multiples = [stride for stride in able if found and stride % found[-1] == 0]
        found.append(min(multiples or able, key=lambda stride: abs(stride - ideal)))
    return tuple(found)
