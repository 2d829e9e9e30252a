"""Forwards on torch's ``meta`` device that work out the shapes of each kind of operation once.

On that device torch runs many operations in Python (a layer norm takes a millisecond), and a
backbone's blocks repeat a few of them many times. What these give there follows from the shapes,
strides and types that go in, so the same again needs no second run.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Recall"]

_Empty: TypeAlias = "tuple[torch.Size, tuple[int, ...], torch.dtype]"

_aten = torch.ops.aten
_RECALLED = frozenset(
    {
        _aten._safe_softmax.default,
        _aten.add.Tensor,
        _aten.addmm.default,
        _aten.clamp_min.default,
        _aten.convolution.default,
        _aten.div.Tensor,
        _aten.ge.Scalar,
        _aten.gelu.default,
        _aten.linalg_vector_norm.default,
        _aten.masked_fill.Scalar,
        _aten.mean.dim,
        _aten.mul.Scalar,
        _aten.mul.Tensor,
        # Writes running statistics, which its schema doesn't say. Here there are none to write.
        _aten.native_batch_norm.default,
        _aten.native_layer_norm.default,
        _aten.roll.default,
    }
)
"""The slow ones that look at nothing but shapes, strides, types and numbers, and give tensors of
their own. Schemas don't tell: in inference mode ``dropout`` gives its input, and its schema doesn't
say so."""


class Recall(TorchDispatchMode):
    """Give the outputs of slow operations anew where they ran on the same kind of inputs before.

    All other operations run always, as does whatever meets a tensor with values or a tensor of
    another class. Autograd stands above this and records as ever.

    Example:
        >>> x, norm = torch.empty(2, 3, device="meta"), nn.LayerNorm(3, device="meta")
        >>> with Recall():
        ...     y = norm(norm(x))
        >>> y.shape, y.requires_grad
        (torch.Size([2, 3]), True)
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._gave: dict[Any, tuple[bool, tuple[_Empty, ...]]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run ``func``, or make what it gave before."""
        kwargs = kwargs or {}
        if func not in _RECALLED:
            return func(*args, **kwargs)
        try:
            # The default type decides what integers become.
            key = (func, torch.get_default_dtype(), _key(args), _key(tuple(kwargs.items())))
        except _NotPlainError:
            return func(*args, **kwargs)
        gave = self._gave.get(key)
        if gave is not None:
            several, empties = gave
            made = tuple(_make(*empty) for empty in empties)
            return made if several else made[0]
        output = func(*args, **kwargs)
        entries = output if isinstance(output, tuple) else (output,)
        if all(isinstance(entry, Tensor) and _is_plain(entry) for entry in entries):
            empties = tuple((e.shape, e.stride(), e.dtype) for e in entries)
            self._gave[key] = (isinstance(output, tuple), empties)
        return output


class _NotPlainError(Exception):
    """What an operation was given says more than its shape, strides and type."""


def _is_plain(tensor: Tensor) -> bool:
    # A number that joins an operation as a tensor has no axes, and counts less for its type. A
    # complex tensor may be one's conjugate, a quantized one has scales.
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.is_meta
        and tensor.layout is torch.strided
        and tensor.ndim > 0
        and not tensor.is_complex()
        and not tensor.is_quantized
    )


def _key(value: Any) -> Any:
    if isinstance(value, Tensor):
        if not _is_plain(value):
            raise _NotPlainError
        return value.shape, value.stride(), value.dtype
    if isinstance(value, (tuple, list)):
        return tuple(map(_key, value))
    if type(value) not in _NUMBERS:
        raise _NotPlainError
    return type(value), value  # 1, 1.0 and True are equal, and not the same


_NUMBERS = (int, float, bool, str, type(None), torch.dtype)


def _make(shape: torch.Size, strides: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.empty_strided(shape, strides, dtype=dtype, device="meta")
