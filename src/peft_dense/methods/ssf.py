"""SSF: a scale and a shift after every operation, shared by all tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from peft_dense.backbones import (
    BackboneInfo,
    branch_at,
    comes_first,
    fold,
    take_off,
    transform_output,
)
from peft_dense.errors import UnsupportedModelError
from peft_dense.methods.base import Method, register
from peft_dense.nn import ScaleShift

__all__ = ["SSF"]


@register
@dataclass(frozen=True, kw_only=True)
class SSF(Method):
    """Scales and shifts the output of the stem, of every norm and of every linear, in one pass.

    Lian et al. 2022. A single-task method; here all tasks share it. Scales start at one and shifts
    at zero exactly (the original draws them near there). Left out are linears that the backbone
    reads instead of calling (SwinV2's qkv), and the linears of patch merging, as in the original.
    """

    name: ClassVar[str] = "ssf"
    paper: ClassVar[str] = "Lian et al. 2022 (SSF), section 3.2"
    one_path: ClassVar[bool] = True

    def adapt(
        self, path: nn.Module, info: BackboneInfo, tasks: Sequence[str], shared: nn.Module | None
    ) -> None:
        """Put a scale and a shift behind every operation."""
        for operation in info.operations:
            layer = ScaleShift(operation.channels)
            transform_output(path, operation.name, layer, operation.channel_axis)

    def merge(self, path: nn.Module, info: BackboneInfo) -> None:
        """Fold every scale and shift into the weight and bias before it.

        Raises:
            UnsupportedModelError: An operation has an activation after its weight, or a forward
                hook of the model's own.
        """
        for operation in info.operations:
            module: Any = path.get_submodule(operation.name)
            if not all(isinstance(inner, nn.Identity) for inner in module.children()):
                raise UnsupportedModelError(
                    f"ssf can't be merged into {operation.name!r} of {info.model}: "
                    f"{type(module).__name__} has an activation after its weight, so a scale and "
                    "a shift behind it can't be folded in. Use the model as it is."
                )
            if not comes_first(path, operation.name):
                raise UnsupportedModelError(
                    f"ssf can't be merged into {operation.name!r} of {info.model}: a forward hook "
                    "of the model's own changes what it gives before the scale and shift do. Take "
                    "the hook off before inject, or use the model as it is."
                )
            layer: Any = branch_at(path, operation.name)
            scale, shift = layer.scale.detach(), layer.shift.detach()
            take_off(path, operation.name)
            rows = scale.view(-1, *[1] * (module.weight.ndim - 1))
            bias = torch.zeros_like(shift) if module.bias is None else module.bias
            fold(module, "weight", module.weight * rows)
            fold(module, "bias", bias * scale + shift)

    def count(self, info: BackboneInfo, tasks: int) -> int:
        """``2 C`` for every operation with C output channels."""
        return sum(2 * operation.channels for operation in info.operations)
