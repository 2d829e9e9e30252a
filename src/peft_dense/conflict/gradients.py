"""Cosines and angles between the tasks' gradients on the parameters that they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from peft_dense.conflict.layers import Shared, layers_of
from peft_dense.errors import HyperparameterError, ShapeError, UnknownNameError

__all__ = ["Conflict", "conflict", "cosine"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Conflict:
    """Hold the dot products of T tasks' gradients, a ``(T, T)`` matrix for each of L layers.

    The dot product of all layers together is the sum over them.

    Args:
        tasks: Names of the tasks.
        layers: Names of the layers.
        dots: Dot products ``g_i . g_j``, ``(L, T, T)``, float64.

    Shape:
        ``dots``: ``(L, T, T)``; :meth:`cosine`, :meth:`angle` and :meth:`effect`: ``(T, T)``

    Raises:
        UnknownNameError: A method is asked for an unknown layer.

    Example:
        >>> dots = torch.tensor([[[1.0, -1.0], [-1.0, 2.0]]])
        >>> print(Conflict(tasks=("semseg", "depth"), layers=("block",), dots=dots))
        semseg depth  135.0 degrees
    """

    tasks: tuple[str, ...]
    layers: tuple[str, ...]
    dots: Tensor

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every two tasks, each pair once."""
        return list(combinations(self.tasks, 2))

    def dot(self, layer: str | None = None) -> Tensor:
        """Give ``g_i . g_j`` of one layer, or of all together: ``(T, T)``.

        Raises:
            UnknownNameError: No such layer.
        """
        if layer is None:
            return self.dots.sum(0)
        if layer not in self.layers:
            raise UnknownNameError.of("layer", layer, self.layers)
        return self.dots[self.layers.index(layer)]

    def cosine(self, layer: str | None = None) -> Tensor:
        """Give ``g_i . g_j / (|g_i| |g_j|)`` (equation 8): ``(T, T)``; NaN beside a zero g."""
        return cosine(self.dot(layer))

    def angle(self, layer: str | None = None) -> Tensor:
        """Give the angle between g_i and g_j in degrees: ``(T, T)``; over 90 they conflict."""
        return self.cosine(layer).acos().rad2deg()

    def effect(self, size: float, layer: str | None = None) -> Tensor:
        """Give what a step along ``-g_i / |g_i|`` does to loss j, to first order (equation 7).

        Entry ``(i, j)`` is ``-size g_i . g_j / |g_i|``; below zero, task i's step helps task j.
        Row i is NaN where g_i is zero.
        """
        dot = self.dot(layer)
        return -size * dot / dot.diagonal().sqrt()[:, None]

    def __str__(self) -> str:
        """Show the angle of every pair, over all layers together."""
        angle, index = self.angle(), self.tasks.index
        left = max(len(f"{one} {other}") for one, other in self.pairs) + 1
        return "\n".join(
            f"{f'{one} {other}':<{left}}{angle[index(one), index(other)]:6.1f} degrees"
            for one, other in self.pairs
        )


def cosine(dots: Tensor) -> Tensor:
    """Turn dot products into cosines: ``(..., T, T) -> (..., T, T)``."""
    lengths = dots.diagonal(dim1=-2, dim2=-1).sqrt()
    return (dots / (lengths[..., :, None] * lengths[..., None, :])).clamp(-1, 1)


def conflict(
    losses: Mapping[str, Tensor], parameters: Shared, *, accumulate: bool = False
) -> Conflict:
    """Measure the angles between the tasks' gradients on what they share.

    VMT-Adapter, section 4.3: with ``g_i`` the gradient of loss i on the shared parameters, a step
    along ``-g_i / |g_i|`` changes loss j by about ``-size g_i . g_j / |g_i|`` (equation 7), so
    ``cos(phi) = g_i . g_j / (|g_i| |g_j|)`` tells whether the tasks help each other (equation 8).

    One forward, and one backward per task. A parameter that a loss doesn't reach has gradient zero.
    Positive weights of the losses, or a gradient scaler's factor, don't change an angle.

    Args:
        losses: One loss per task, each with its graph. The graph stays, for your own backward.
        parameters: The model, for all that its tasks share; or parameters by the name of a layer.
            Unwrap DDP and ``torch.compile`` first.
        accumulate: Also add the gradients of the summed losses to ``.grad`` of all that they
            reach, as ``sum(losses.values()).backward()`` would, and free the graph: no other
            backward is needed. Without it no ``.grad`` is touched.

    Shape:
        losses ``()``; parameters of any shape

    Raises:
        HyperparameterError: Fewer than two losses, or parameters that are empty, named twice, or
            don't train.
        ShapeError: A loss isn't a scalar with a graph.
        UnsupportedModelError: The tasks of the model share nothing that trains.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(2))
        >>> losses = {"right": w[0] ** 2, "up": w[1] ** 2, "left": -w[0]}
        >>> conflict(losses, {"w": [w]}).angle().round().tolist()
        [[0.0, 90.0, 180.0], [90.0, 0.0, 90.0], [180.0, 90.0, 0.0]]
    """
    layers = layers_of(parameters)
    if len(losses) < 2:
        raise HyperparameterError(
            f"an angle needs two tasks or more, and there are losses of {len(losses)}. Pass one "
            "loss per task."
        )
    for task, loss in losses.items():
        if loss.numel() != 1 or not loss.requires_grad:
            graph = "with" if loss.requires_grad else "without"
            raise ShapeError(
                f"the loss of {task!r} has shape {tuple(loss.shape)}, {graph} a graph; expected a "
                "scalar with one. Average it, and compute it where gradients are enabled."
            )
    flat = [parameter for members in layers.values() for parameter in members]
    measure = _accumulated if accumulate else _gradients
    by_task = measure(list(losses.values()), flat)
    dots, start = [], 0
    for members in layers.values():
        stop = start + len(members)
        rows = torch.stack([torch.cat(gradients[start:stop]) for gradients in by_task])
        # In float64: the squares of small gradients vanish in float32. MPS has none.
        rows = (rows.cpu() if rows.device.type == "mps" else rows).double()
        dots.append((rows @ rows.T).cpu())
        start = stop
    return Conflict(tasks=tuple(losses), layers=tuple(layers), dots=torch.stack(dots))


def _gradients(losses: Sequence[Tensor], parameters: Sequence[Tensor]) -> list[list[Tensor]]:
    """Give each loss's gradient per parameter, flat, and leave ``.grad`` alone."""
    made = []
    for loss in losses:
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        made.append([_flat(g, p) for g, p in zip(gradients, parameters, strict=True)])
    return made


def _accumulated(losses: Sequence[Tensor], parameters: Sequence[Tensor]) -> list[list[Tensor]]:
    """Give the same by plain backwards, which also serve everything that isn't shared."""
    totals = [parameter.grad for parameter in parameters]
    made = []
    for left, loss in zip(reversed(range(len(losses))), losses, strict=True):
        for parameter in parameters:
            parameter.grad = None
        torch.autograd.backward(loss, retain_graph=left > 0)
        made.append([_flat(p.grad, p) for p in parameters])
        totals = [
            total if p.grad is None else p.grad if total is None else total + p.grad
            for total, p in zip(totals, parameters, strict=True)
        ]
    for parameter, total in zip(parameters, totals, strict=True):
        parameter.grad = total
    return made


def _flat(gradient: Tensor | None, parameter: Tensor) -> Tensor:
    return (torch.zeros_like(parameter) if gradient is None else gradient).detach().flatten()
