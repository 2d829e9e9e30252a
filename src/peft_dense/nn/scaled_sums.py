"""Sums of the same maps, scaled and shifted per task, with few passes over memory.

Memory traffic limits these sums. Term by term, autograd lays out every partial sum anew, and on the
way back every partial gradient. Here each sum is added up in its own memory, forward and backward.
What is saved are inputs only, and the backward is made of differentiable steps, so autograd can go
through it too.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from peft_dense.nn.eager import runs_eagerly

__all__ = ["scaled_sums", "scaled_sums_plain"]

Row = Sequence[Tensor]


def scaled_sums(base: Tensor, maps: Row, scales: Sequence[Row], shifts: Row) -> list[Tensor]:
    """Give ``base + shifts[t] + sum_l scales[t][l] * maps[l]`` for each t.

    Args:
        base: What all sums start from.
        maps: L maps.
        scales: For each sum one scale per map.
        shifts: For each sum its shift.

    Shape:
        ``base (..., C)``, each map ``(..., C)``, each scale and shift ``(C,)``; every sum is
        ``(..., C)``.

    Example:
        >>> base, maps = torch.zeros(2, 3), [torch.ones(2, 3)]
        >>> scales, shifts = [[torch.full((3,), 2.0)]], [torch.ones(3)]
        >>> scaled_sums(base, maps, scales, shifts)
        [tensor([[3., 3., 3.],
                [3., 3., 3.]])]
    """
    flat = [scale for row in scales for scale in row]
    if not _can_fuse(base, maps, [*shifts, *flat]):
        return scaled_sums_plain(base, maps, scales, shifts)
    # Under autocast maps are of half precision and vectors aren't, so neither are the sums.
    kind = _widest([base, *maps, *shifts, *flat])
    return list(_ScaledSums.apply(base.to(kind), len(maps), *maps, *shifts, *flat))


def scaled_sums_plain(base: Tensor, maps: Row, scales: Sequence[Row], shifts: Row) -> list[Tensor]:
    """Do the same term by term: for compilers, and what :func:`scaled_sums` is compared with."""
    sums = []
    for row, shift in zip(scales, shifts, strict=True):
        total = base + shift
        for each, scale in zip(maps, row, strict=True):
            total = torch.addcmul(total, each, scale)
        sums.append(total)
    return sums


def _can_fuse(base: Tensor, maps: Row, vectors: Row) -> bool:
    return (
        runs_eagerly()
        and bool(maps)
        and base.ndim > 1
        and all(each.shape == base.shape for each in maps)
        and all(vector.shape == base.shape[-1:] for vector in vectors)
        and all(each.is_floating_point() for each in (base, *maps, *vectors))
    )


def _widest(tensors: Iterable[Tensor]) -> torch.dtype:
    """Give the type that operations on all of these have as their result."""
    return functools.reduce(torch.promote_types, (each.dtype for each in tensors))


class _ScaledSums(torch.autograd.Function):
    """Take ``base``, L, L maps, T shifts and T rows of L scales, and give T sums.

    The base has the precision of the sums; the rest may have a lower one.
    """

    @staticmethod
    def forward(ctx: Any, base: Tensor, count: int, *rest: Tensor) -> tuple[Tensor, ...]:
        """Add up each sum in its own memory."""
        maps, shifts, rows = _split(rest, count)
        ctx.count, ctx.sums, ctx.axes = count, len(shifts), tuple(range(base.ndim - 1))
        # A task that the loss doesn't use costs nothing and gets no gradients.
        ctx.set_materialize_grads(False)
        for_maps, _, for_rows = _split(ctx.needs_input_grad[2:], count)
        ctx.save_for_backward(
            *(maps if any(map(any, for_rows)) else [None] * len(maps)),
            *(scale if any(for_maps) else None for row in rows for scale in row),
        )
        sums = [base + shift for shift in shifts]
        for i, each in enumerate(maps):
            wide = each.to(base.dtype)  # once for all sums
            for total, row in zip(sums, rows, strict=True):
                total.addcmul_(wide, row[i])
        return tuple(sums)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Read each sum's gradient once for all it serves."""
        count, sums, axes = ctx.count, ctx.sums, ctx.axes
        for_maps, for_shifts, for_rows = _split(ctx.needs_input_grad[2:], count)
        saved = ctx.saved_tensors
        maps, scales = saved[:count], saved[count:]
        of_maps: list[Tensor | None] = [None] * count
        of_shifts: list[Tensor | None] = [None] * sums
        of_scales: list[Tensor | None] = [None] * (sums * count)
        present = [(t, grad) for t, grad in enumerate(grads) if grad is not None]
        for t, grad in present:
            if for_shifts[t]:
                of_shifts[t] = grad.sum(axes)
        for i in range(count):
            wide: Tensor | None = None
            for t, grad in present:
                at = t * count + i
                if for_rows[t][i]:
                    wide = maps[i].to(grad.dtype) if wide is None else wide
                    of_scales[at] = (grad * wide).sum(axes)
                if for_maps[i]:
                    former, scale = of_maps[i], scales[at]
                    of_maps[i] = grad * scale if former is None else former.addcmul_(grad, scale)
        of_base = _total(grads) if ctx.needs_input_grad[0] else None
        # Autograd casts each gradient to the precision of its input.
        return of_base, None, *of_maps, *of_shifts, *of_scales


def _split(rest: Sequence[Any], count: int) -> tuple[Any, Any, Any]:
    """Part what follows the base into maps, shifts and rows of scales, or flags of each."""
    sums = (len(rest) - count) // (1 + count)
    maps, shifts, scales = rest[:count], rest[count : count + sums], rest[count + sums :]
    return maps, shifts, [scales[i * count : (i + 1) * count] for i in range(sums)]


def _total(grads: Iterable[Tensor | None]) -> Tensor | None:
    """Add up what there is, in memory of its own from the second on."""
    total: Tensor | None = None
    for number, grad in enumerate(grad for grad in grads if grad is not None):
        if total is None or number == 1:
            total = grad if total is None else total + grad
        else:
            total.add_(grad)
    return total
