"""Clones of a model that share every tensor with it.

A deep copy asks its memo before it copies an object. A memo that already maps every parameter and
buffer makes a copy whose modules are new and whose tensors are not: as cheap as the module tree
alone, and free to be edited without the original noticing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from peft_dense.errors import UnsupportedModelError

__all__ = ["PATH_MARK", "freeze", "meta", "own", "share"]

PATH_MARK = "_peft_dense_path"
"""Attribute by which a clone is known as a path, not to be adapted a second time."""


def share(model: nn.Module) -> nn.Module:
    """Copy the modules of ``model`` and refer to its very Parameter objects.

    Two clones hold *one* Parameter, so it is counted, moved and saved once, and deepcopy and
    pickle keep it one.
    """
    clone = _copy(model, lambda parameter: parameter, lambda buffer: buffer)
    setattr(clone, PATH_MARK, True)
    return clone


def freeze(model: nn.Module) -> nn.Module:
    """Copy the modules of ``model`` and put frozen Parameters on its storage.

    The original's own Parameters, and so its ``requires_grad`` flags, stay as they are.

    Example:
        >>> net = nn.Linear(2, 3)
        >>> clone = freeze(net)
        >>> clone.weight.data_ptr() == net.weight.data_ptr()
        True
        >>> clone.weight.requires_grad, net.weight.requires_grad
        (False, True)
    """
    return _copy(
        model,
        lambda parameter: nn.Parameter(parameter.detach(), requires_grad=False),
        lambda buffer: buffer,
    )


def meta(model: nn.Module) -> nn.Module:
    """Copy ``model`` to torch's ``meta`` device: shapes, no values, every parameter trainable."""

    def parameter(tensor: Tensor) -> nn.Parameter:
        # Integer parameters (packed weights) can't ask for gradients.
        return nn.Parameter(
            torch.empty_like(tensor, device="meta"), requires_grad=tensor.is_floating_point()
        )

    return _copy(model, parameter, lambda buffer: buffer.to("meta"))


def own(path: nn.Module, names: Iterable[str]) -> list[nn.Parameter]:
    """Give ``path`` trainable copies of the named parameters it shared until now.

    A name keeps its place in the module tree. A tied parameter stays tied within the path. Batch
    normalisation that owns its weight owns its running statistics too: only then are they updated.

    Args:
        path: A clone made by :func:`share`.
        names: Names as in ``path.named_parameters(remove_duplicate=False)``.

    Returns:
        The new parameters, each once.
    """
    shared = dict(path.named_parameters(remove_duplicate=False))
    olds = {id(shared[name]): shared[name] for name in names}
    copies = {key: nn.Parameter(old.detach().clone()) for key, old in olds.items()}
    for module in path.modules():
        for leaf, parameter in module._parameters.items():
            if id(parameter) in copies:
                module._parameters[leaf] = copies[id(parameter)]
                if isinstance(module, nn.modules.batchnorm._NormBase):
                    own_statistics = {
                        k: b.clone() for k, b in module._buffers.items() if b is not None
                    }
                    module._buffers.update(own_statistics)
    return list(copies.values())


def _copy(
    model: nn.Module,
    parameter: Callable[[nn.Parameter], nn.Parameter],
    buffer: Callable[[Tensor], Tensor],
) -> nn.Module:
    memo: dict[int, Any] = {id(p): parameter(p) for p in model.parameters()}
    memo.update({id(b): buffer(b) for b in model.buffers()})
    # A tensor that a forward left behind (a cached bias) can't be deep-copied with its graph.
    memo.update({id(t): t.detach() for t in _leftovers(model)})
    try:
        clone: nn.Module = copy.deepcopy(model, memo)
    except Exception as error:
        raise UnsupportedModelError(
            f"{type(model).__name__} can't be deep-copied ({error}), and inject works on copies. "
            "Take out what can't be copied (open files, locks, lambdas that hold tensors), "
            "or build the model anew."
        ) from error
    return clone


def _leftovers(model: nn.Module) -> Iterator[Tensor]:
    """Yield the non-leaf tensors that modules keep as plain attributes or in plain containers."""
    for module in model.modules():
        for value in vars(module).values():
            inner = (
                value.values()
                if isinstance(value, dict)
                else (value if isinstance(value, (list, tuple)) else (value,))
            )
            for item in inner:
                if isinstance(item, Tensor) and not item.is_leaf:
                    yield item
