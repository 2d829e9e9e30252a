"""Copies of a model's modules around tensors that other copies hold too.

A deep copy asks its memo before it copies an object. A memo that already maps every parameter and
buffer makes a copy whose modules are new and whose tensors are not: as cheap as the module tree
alone, and free to be edited without the original noticing.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from peft_dense.backbones.origin import Origin, mark_origins, origins_of, still
from peft_dense.errors import UnsupportedModelError

__all__ = [
    "clone",
    "deepcopy_parts",
    "empty_containers",
    "freeze",
    "meta",
    "own",
    "share",
    "template",
]

T = TypeVar("T")


def freeze(model: nn.Module) -> nn.Module:
    """Copy the modules of ``model``, put frozen Parameters on its storage, and copy its buffers.

    The original's own Parameters, and so its ``requires_grad`` flags, stay as they are; whatever
    a forward writes into a buffer doesn't reach it.

    Args:
        model: Any module.

    Raises:
        UnsupportedModelError: It holds what can't be copied.

    Example:
        >>> net = nn.Linear(2, 3)
        >>> frozen = freeze(net)
        >>> frozen.weight.data_ptr() == net.weight.data_ptr()
        True
        >>> frozen.weight.requires_grad, net.weight.requires_grad
        (False, True)
    """

    def parameter(tensor: nn.Parameter) -> nn.Parameter:
        data = tensor.detach()
        # What was made in inference mode can't take part in autograd; its copy can.
        return nn.Parameter(data.clone() if data.is_inference() else data, requires_grad=False)

    return _copy(model, parameter, lambda buffer: buffer.detach().clone())


def meta(model: nn.Module) -> nn.Module:
    """Copy ``model`` to torch's ``meta`` device: shapes, no values, every parameter trainable."""

    def parameter(tensor: Tensor) -> nn.Parameter:
        # Integer parameters (packed weights) can't ask for gradients.
        return nn.Parameter(
            torch.empty_like(tensor, device="meta"), requires_grad=tensor.is_floating_point()
        )

    return _copy(model, parameter, lambda buffer: buffer.detach().to("meta"))


def template(model: nn.Module, updating: Iterable[str] = ()) -> nn.Module:
    """Copy ``model`` to the ``meta`` device as the pattern of its paths, origins marked.

    Args:
        model: A frozen clone.
        updating: Names of the modules whose buffers a forward in train mode would write.

    Raises:
        UnsupportedModelError: It holds what can't be copied.

    Example:
        >>> template(freeze(nn.Linear(2, 3))).weight.device.type
        'meta'
    """
    pattern = meta(model)
    mark_origins(pattern, updating)
    return pattern


def share(pattern: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Copy the modules of ``pattern`` and put the very ``tensors`` where its own stand.

    Two paths hold *one* Parameter, so it is counted, moved and saved once, and deepcopy and
    pickle keep it one.

    Args:
        pattern: What :func:`template` made.
        tensors: The frozen tensors by their name in the pattern.

    Shape:
        Each tensor has the shape of the one it replaces.

    Example:
        >>> net = freeze(nn.Linear(2, 3))
        >>> path = share(template(net), dict(net.named_parameters()))
        >>> path.weight is net.weight
        True
    """
    named = {**dict(pattern.named_parameters()), **dict(pattern.named_buffers())}
    memo: dict[int, Any] = {id(old): tensors[name] for name, old in named.items()}
    path: nn.Module = copy.deepcopy(pattern, empty_containers(pattern) | memo)
    return path


def own(path: nn.Module, names: Iterable[str]) -> list[nn.Parameter]:
    """Give ``path`` trainable copies of the named parameters it shared until now.

    A name keeps its place in the module tree. A tied parameter stays tied within the path. A
    normalisation layer that owns its weight owns its running statistics too: only then are they
    updated.

    Args:
        path: A clone made by :func:`share`.
        names: Names as the backbone gives them, each tied parameter by its first.

    Returns:
        The new parameters, each once.

    Example:
        >>> net = freeze(nn.Linear(2, 3))
        >>> path = share(template(net), dict(net.named_parameters()))
        >>> [copy.requires_grad for copy in own(path, ["bias"])], path.weight is net.weight
        ([True], True)
    """
    wanted, copies = set(names), {}
    for module in path.modules():
        origins = origins_of(module)
        taken = [leaf for leaf in module._parameters if leaf in origins]
        taken = [leaf for leaf in taken if origins[leaf].key in wanted]
        for leaf in taken:
            old, key = module._parameters[leaf], origins[leaf].key
            assert old is not None, "only what is there has an origin"
            if key not in copies:
                copies[key] = nn.Parameter(old.detach().clone())
            module._parameters[leaf] = copies[key]
            origins[leaf] = Origin(key, frozen=False)
        if taken and still(module):
            for leaf, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[leaf] = buffer.clone()
                    origins[leaf] = Origin(origins[leaf].key, frozen=False)
    return list(copies.values())


def clone(module: T, keep: Iterable[Tensor]) -> T:
    """Deep-copy ``module``, whose tensors in ``keep`` stay the same objects.

    Raises:
        UnsupportedModelError: It holds what can't be copied.
    """
    memo: dict[int, Any] = {id(tensor): tensor for tensor in keep}
    return _deepcopy(module, memo)


def deepcopy_parts(module: T, memo: dict[int, Any]) -> T:
    """Deep-copy ``module`` as ``copy.deepcopy`` would, for its ``__deepcopy__``.

    A tensor that a forward left behind (a cached bias) can't be deep-copied with its graph, so it
    is taken out of it.
    """
    copied = type(module).__new__(type(module))
    memo[id(module)] = copied
    memo.update({id(t): t.detach() for t in _leftovers(module) if id(t) not in memo})  # type: ignore[arg-type]
    copied.__dict__.update({k: copy.deepcopy(value, memo) for k, value in vars(module).items()})
    return copied


def _copy(
    model: nn.Module,
    parameter: Callable[[nn.Parameter], nn.Parameter],
    buffer: Callable[[Tensor], Tensor],
) -> nn.Module:
    memo: dict[int, Any] = {id(p): parameter(p) for p in model.parameters()}
    memo.update({id(b): buffer(b) for b in model.buffers()})
    return _deepcopy(model, memo)


def _deepcopy(module: T, memo: dict[int, Any]) -> T:
    if isinstance(module, nn.Module):
        # A tensor that a forward left behind (a cached bias) can't be deep-copied with its graph.
        memo.update({id(t): t.detach() for t in _leftovers(module) if id(t) not in memo})
        memo.update(empty_containers(module))
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:
        raise UnsupportedModelError(
            f"{type(module).__name__} can't be deep-copied ({error}), and inject works on copies. "
            "Take out what can't be copied (open files, locks, lambdas that hold tensors), "
            "or build the model anew."
        ) from error


def empty_containers(model: nn.Module) -> dict[int, Any]:
    """Give new containers for the empty ones of a model's modules, as a deep copy's memo has them.

    Every module has a dozen, most of them for hooks that nobody registered, and to copy them takes
    ``copy.deepcopy`` longer than all the rest.

    Args:
        model: What will be copied.

    Example:
        >>> len(empty_containers(nn.Identity())) > 5
        True
    """
    return {
        id(value): type(value)()
        for module in model.modules()
        for value in vars(module).values()
        if type(value) in (dict, OrderedDict) and not value
    }


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
