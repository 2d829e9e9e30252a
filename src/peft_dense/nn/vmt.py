"""VMT-Adapter: one shared bottleneck, and a scale and shift for each task."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from peft_dense.errors import HyperparameterError
from peft_dense.layout import check_last_axis
from peft_dense.nn.checks import check_choice, check_divides, check_share
from peft_dense.nn.kronecker import KroneckerLinear, KroneckerRule
from peft_dense.nn.norm_then_linear import norm_then_linear
from peft_dense.nn.scale_shift import ScaleShift
from peft_dense.nn.task_dict import TaskDict

__all__ = ["VMTAdapter"]


class VMTAdapter(nn.Module):
    """Split one shared bottleneck feature into a generic part and a part for each task.

    VMT-Adapter, section 4.1. The shared latent is ``h = relu(x W_down) W_up`` (equation 3). A call
    gives its generic part, ``gate * h``, which joins the stream; the part for task t,
    ``scale_t * ((1 - gate) * h) + shift_t`` (equation 4), never does, so one pass serves all
    tasks. Nothing is kept: h is the output of the submodule ``up``, where a hook can read it, or
    take :meth:`latent`, :meth:`generic` and :meth:`specific` one by one.

    With ``m`` this is VMT-Adapter-Lite: both projections are sums of m Kronecker products with
    the same m slow m x m matrices (section 4.2, equation 6).

    ``W_up`` and its bias start at zero, scales at one and shifts at zero, so every part is zero at
    first. The biases, the LayerNorm, the gate's default and the start are assumptions; the first
    two are what the paper's parameter counts imply.

    Args:
        features: Width of the stream, C.
        tasks: Names of the tasks, T of them.
        ratio: C over the width of the bottleneck, n = C / ratio; ``2 C n`` parameters, ``C`` for
            the bias of ``W_up`` and ``2 T C`` for the tasks.
        gate: Share of h that is generic, a constant.
        m: Number of Kronecker products: ``2 C n / m + m^3`` parameters in place of ``2 C n``.
        norm: ``"in"`` normalises the input, ``2 C`` parameters more; ``None`` doesn't;
            ``"default"`` does so without ``m`` only, which is what the paper's counts imply.
        gain: A constant factor of h; the paper has none.

    Shape:
        ``(..., C) -> (..., C)``

    Raises:
        HyperparameterError: If the ratio or m doesn't divide the widths, the gate isn't from 0 to
            1, norm is none of the above, or a task is there already.
        UnknownNameError: If a task's name is empty, or no task has the name.
        ShapeError: If the last axis of the input isn't C wide.

    Example:
        >>> import torch
        >>> adapter = VMTAdapter(96, ["semseg", "normals"], ratio=4, m=3)
        >>> h = adapter.latent(torch.randn(2, 49, 96))
        >>> adapter.generic(h).shape, adapter.specific(h, "semseg").shape
        (torch.Size([2, 49, 96]), torch.Size([2, 49, 96]))
    """

    def __init__(
        self,
        features: int,
        tasks: Iterable[str],
        *,
        ratio: int = 4,
        gate: float = 0.5,
        m: int | None = None,
        norm: Literal["default", "in"] | None = "default",
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        check_divides("ratio", ratio, features=features)
        check_share("gate", gate)
        check_choice("norm", norm, ("default", "in", None))
        self.features, self.ratio, self.gate, self.m = features, ratio, gate, m
        self.gain = gain
        with_norm = m is None if norm == "default" else norm == "in"
        self.norm = nn.LayerNorm(features) if with_norm else None
        width = features // ratio
        self.down: nn.Module
        self.up: nn.Module
        if m is None:
            self.down = nn.Linear(features, width, bias=False)
            self.up = nn.Linear(width, features)
            nn.init.zeros_(self.up.weight)
            nn.init.zeros_(self.up.bias)
        else:
            check_divides("m", m, features=features, width=width)
            self.rule = KroneckerRule(m)
            self.down = KroneckerLinear(features, width, m, bias=False, rule=self.rule)
            up = KroneckerLinear(width, features, m, rule=self.rule)
            up.zero_()
            self.up = up
        self.tasks = TaskDict()
        for name in tasks:
            self.add_task(name)

    def add_task(self, name: str) -> None:
        """Give a new task its scale and shift, at the identity."""
        if name in self.tasks:
            raise HyperparameterError(f"task {name!r} is there already; name each task once.")
        reference = next(self.up.parameters())
        self.tasks[name] = ScaleShift(self.features).to(reference)

    def forward(self, x: Tensor) -> Tensor:
        """Give the generic part of the latent."""
        return self.generic(self.latent(x))

    def latent(self, x: Tensor) -> Tensor:
        """Give the latent that all tasks share, ``h = relu(x W_down) W_up`` (equation 3)."""
        check_last_axis(x, self.features, "VMTAdapter")
        if self.norm is not None and isinstance(self.down, nn.Linear):
            waist = norm_then_linear(x, self.norm, self.down)
        else:
            waist = self.down(x if self.norm is None else self.norm(x))
        h: Tensor = self.up(F.relu(waist))
        return h

    def generic(self, h: Tensor) -> Tensor:
        """Give the part of the latent that joins the stream, ``gain * gate * h``."""
        return self.gain * self.gate * h

    def specific(self, h: Tensor, task: str) -> Tensor:
        """Give one task's part, ``scale * (gain * (1 - gate) * h) + shift`` (equation 4)."""
        part: Tensor = self.tasks[task](self.gain * (1 - self.gate) * h)
        return part

    def scale(self, task: str) -> Tensor:
        """Give s of ``specific(h) = s * h + shift``, with gate and gain: ``(C,)``."""
        factor: Tensor = self.gain * (1 - self.gate) * self.tasks[task].scale
        return factor

    def shift(self, task: str) -> Tensor:
        """Give what one task adds to every token: ``(C,)``."""
        shift: Tensor = self.tasks[task].shift
        return shift

    def extra_repr(self) -> str:
        """Show what isn't a submodule."""
        return (
            f"{self.features}, ratio={self.ratio}, gate={self.gate}, m={self.m}, gain={self.gain}"
        )
