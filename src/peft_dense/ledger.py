"""Count of trainable parameters, by what they serve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Ledger"]


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """Trainable parameters of an adapted model; ``str()`` of it is a table.

    Args:
        method: Name of the method.
        shared: Added parameters that serve several tasks.
        per_task: Added parameters that serve one task only, summed over the tasks.
        unfrozen_backbone: Backbone parameters that train (copies count as often as they exist).
        backbone: Parameters of the frozen backbone, without classifier and final norm.
        tasks: What each task alone adds to ``per_task`` or unfreezes for itself.
        heads: Decoder heads and the output norms before them; 0 for an encoder.
        passes: Passes through the backbone per forward of all tasks.

    Example:
        >>> counts = {"shared": 800, "per_task": 200, "unfrozen_backbone": 0}
        >>> ledger = Ledger(method="vmt", **counts, backbone=10_000)
        >>> ledger.encoder, f"{ledger.percent:.1f}"
        (1000, '10.0')
    """

    method: str
    shared: int
    per_task: int
    unfrozen_backbone: int
    backbone: int
    tasks: Mapping[str, int] = field(default_factory=dict)
    heads: int = 0
    passes: int = 1

    @property
    def encoder(self) -> int:
        """Trainable parameters in the encoder: the papers' "encoder" column."""
        return self.shared + self.per_task + self.unfrozen_backbone

    @property
    def total(self) -> int:
        """Encoder and heads together: the papers' "all" column."""
        return self.encoder + self.heads

    @property
    def percent(self) -> float:
        """The encoder's trainable parameters in percent of the frozen backbone."""
        return 100 * self.encoder / self.backbone

    def __str__(self) -> str:
        """Lay the ledger out as a table."""
        rows = [
            ("shared by tasks", self.shared),
            ("for one task only", self.per_task),
            ("unfrozen backbone", self.unfrozen_backbone),
            ("encoder", self.encoder),
        ]
        if self.heads:
            rows += [("heads and output norms", self.heads), ("all", self.total)]
        lines = [
            f"{self.method}: trainable parameters",
            *(f"  {name:<24}{count:>14,}" for name, count in rows),
            f"  {'encoder / backbone':<24}{self.percent:>13.3f}%",
            f"  {'passes per forward':<24}{self.passes:>14}",
        ]
        return "\n".join(lines)
