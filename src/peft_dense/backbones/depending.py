"""Which parameters outputs depend on, read off the graph that a forward leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction

__all__ = ["depended_on"]


def depended_on(outputs: Sequence[Tensor], parameters: Mapping[str, nn.Parameter]) -> set[str]:
    """Name the parameters that a backward from ``outputs`` would give a gradient.

    The graph says so without one. Only an ``autograd.Function`` may keep a gradient from what went
    into it, or have a graph of its own (reentrant checkpointing); where one took part, or may have
    behind a write into a view, the backward is run.

    Args:
        outputs: What a forward gave.
        parameters: Those that may be named, by their names.

    Shape:
        Any.

    Example:
        >>> net = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
        >>> sorted(depended_on([net[1](torch.ones(1, 2))], dict(net.named_parameters())))
        ['1.bias', '1.weight']
    """
    trained = {name: p for name, p in parameters.items() if p.requires_grad}
    leaves = _leaves(outputs)
    if leaves is not None:
        return {name for name, p in trained.items() if id(p) in leaves}
    total = torch.stack([output.sum() for output in outputs]).sum()
    grads = torch.autograd.grad(total, [*trained.values()], allow_unused=True, retain_graph=True)
    return {name for name, grad in zip(trained, grads, strict=True) if grad is not None}


def _leaves(outputs: Sequence[Tensor]) -> set[int] | None:
    """Ids of the leaves of the graph, or None where its nodes don't tell."""
    leaves = {id(output) for output in outputs if output.is_leaf}
    waiting: list[Any] = [output.grad_fn for output in outputs if output.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if _keeps_to_itself(node):
            return None
        if hasattr(node, "variable"):
            leaves.add(id(node.variable))
        for after, _ in node.next_functions:
            if after is not None and after not in seen:
                seen.add(after)
                waiting.append(after)
    return leaves


def _keeps_to_itself(node: Any) -> bool:
    """Whether a node isn't torch's own: a Function in Python, in C++, or in a write into a view."""
    return isinstance(node, BackwardCFunction) or type(node).__name__ in (
        "CppFunction",
        "CopySlices",
    )
