"""PHM adapters and Compacter: projections as sums of Kronecker products with a shared rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

from torch import nn

from peft_dense.backbones import BackboneInfo
from peft_dense.methods.adapter import Adapter
from peft_dense.methods.base import register
from peft_dense.nn import KroneckerLinear, KroneckerRule, TaskDict

__all__ = ["PHM", "Compacter", "CompacterPP"]


RULE_STD = 0.01
"""Standard deviation of the slow matrices at the start, of Compacter's official code."""


@register
@dataclass(frozen=True, kw_only=True)
class PHM(Adapter):
    """Adds adapters with ``W = sum_i A_i (x) B_i``; all layers of a task share the slow A_i.

    Zhang et al. 2021, in Mahabadi et al. 2021b's adapters; "PHM layer" in Polyhistor (table 1).
    The text says it sits after attention and MLP; only one at the MLP meets the printed count, so
    this one sits after the MLP (``sites="both"`` puts it after both).

    Checked against Compacter's official code (rabeehk/compacter): equation, GELU, slow matrices
    normal with standard deviation 0.01 (its default; its configurations for Compacter set 0.0001),
    every fast matrix from Glorot's uniform distribution with gain sqrt(2), biases at zero, placed
    after a sublayer and before the residual sum. What differs: ``up`` starts at zero, so nothing
    changes at the start (there the small slow matrices make it nearly so); GELU is the exact one,
    not its tanh form; and there is the LayerNorm that the printed count implies, which those
    configurations leave out. Where the code's adapters have one, it stands at the output by default
    (``norm="out"``); at zero that would amplify the first update, so it stands at the input.

    Args:
        ratio: Down-projection ratio rho.
        n: Number and size of the slow matrices, s_phm.
        fast_rank: Rank to which every fast matrix B_i is factorised; None keeps it whole.

    Raises:
        HyperparameterError: ``n`` doesn't divide a width or a bottleneck; the allowed are listed.
    """

    name: ClassVar[str] = "phm"
    paper: ClassVar[str] = "Zhang et al. 2021; Polyhistor, section 5.2"

    ratio: int = 8
    n: int = 4
    fast_rank: int | None = None
    placement: Literal["parallel", "serial"] = "serial"
    activation: str = "gelu"

    def shared(self, info: BackboneInfo, tasks: Sequence[str]) -> nn.Module:
        """Make one rule per task; all its layers refer to it."""
        return TaskRules(tasks, self.n)

    def count(self, info: BackboneInfo, tasks: int) -> int:
        """``T (s^3 + sum (2 d n / s + n + d [+ 2 d]))``, ``2 k (d + n)`` at fast rank k."""
        return super().count(info, tasks) + self.n**3 * self.passes(tasks)

    def _linear(
        self, n: int, tasks: Sequence[str], shared: nn.Module | None
    ) -> Callable[[int, int], nn.Module]:
        assert isinstance(shared, TaskRules)
        rule = shared.tasks[tasks[0]]
        return partial(KroneckerLinear, n=self.n, rule=rule, rank=self.fast_rank, glorot=True)

    def _projections(self, d: int, n: int) -> int:
        if self.fast_rank is None:
            return 2 * d * n // self.n
        return 2 * self.fast_rank * (d + n)


class TaskRules(nn.Module):
    """Own the slow matrices of every task."""

    def __init__(self, tasks: Sequence[str], n: int) -> None:
        super().__init__()
        self.n, self.tasks = n, TaskDict()
        for task in tasks:
            self.add_task(task)

    def add_task(self, name: str) -> None:
        """Give a new task slow matrices."""
        self.tasks[name] = KroneckerRule(self.n, std=RULE_STD)


@register
@dataclass(frozen=True, kw_only=True)
class Compacter(PHM):
    """Adds PHM adapters whose fast matrices have rank one, after attention and after MLP.

    Mahabadi et al. 2021b; "Compacter" in Polyhistor (table 1). Start, GELU, places and what
    differs are those of ``phm``; both factors of a fast matrix are drawn as ``phm`` draws it.
    """

    name: ClassVar[str] = "compacter"
    paper: ClassVar[str] = "Mahabadi et al. 2021b; Polyhistor, section 5.2"

    ratio: int = 2
    fast_rank: int | None = 1
    sites: Literal["mlp", "attn", "both"] = "both"


@register
@dataclass(frozen=True, kw_only=True)
class CompacterPP(Compacter):
    """Adds Compacter's adapters after the MLP only: "Compacter++"."""

    name: ClassVar[str] = "compacter_pp"

    sites: Literal["mlp", "attn", "both"] = "mlp"
