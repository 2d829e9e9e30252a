"""SSF: a scale and a shift after every operation, shared by all tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from peft_dense.backbones import BackboneInfo
from peft_dense.layout import from_channels_last, to_channels_last
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
        """Hook a scale and a shift on every operation."""
        for name, channels in self._operations(info).items():
            module = path.get_submodule(name)
            module.scale_shift = ScaleShift(channels)
            module.register_forward_hook(_first if _is_map(module) else _last)

    def merge(self, path: nn.Module, info: BackboneInfo) -> None:
        """Fold every scale and shift into the weight and bias before it."""
        for name in self._operations(info):
            module: Any = path.get_submodule(name)
            scale, shift = module.scale_shift.scale.detach(), module.scale_shift.shift.detach()
            rows = scale.view(-1, *[1] * (module.weight.ndim - 1))
            bias = torch.zeros_like(shift) if module.bias is None else module.bias
            module.weight = nn.Parameter(module.weight * rows, requires_grad=False)
            module.bias = nn.Parameter(bias * scale + shift, requires_grad=False)
            del module.scale_shift
            module._forward_hooks.clear()

    def count(self, info: BackboneInfo, tasks: int) -> int:
        """``2 C`` for every operation with C output channels."""
        return sum(2 * channels for channels in self._operations(info).values())

    @staticmethod
    def _operations(info: BackboneInfo) -> dict[str, int]:
        """Names and output channels of what gets a scale and a shift."""
        found = dict([info.stem]) if info.stem else {}
        for parameter in info.norms:
            name, _, leaf = parameter.rpartition(".")
            if leaf == "weight":
                found[name] = info.parameters[parameter][0]
        for site in info.sites:
            found |= {li.name: li.out_features for li in site.linears if li.called}
        return found


def _is_map(module: nn.Module) -> bool:
    """Whether a module gives out maps (B, C, H, W); timm marks such LayerNorms with a 2d."""
    return not isinstance(module, (nn.Linear, nn.LayerNorm)) or "2d" in type(module).__name__


def _last(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
    changed: Tensor = module.scale_shift(output)  # type: ignore[operator]
    return changed


def _first(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
    return from_channels_last(_last(module, args, to_channels_last(output, 1)), 1)
