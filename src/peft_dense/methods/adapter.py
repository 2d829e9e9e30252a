"""Bottleneck adapters, one set per task or one set for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from peft_dense.backbones import BackboneInfo, Site, own
from peft_dense.methods.base import Method, attach, check_adapter, register, width_of
from peft_dense.nn import Bottleneck

__all__ = ["Adapter", "SharedAdapter"]


@register
@dataclass(frozen=True, kw_only=True)
class Adapter(Method):
    """Adds ``scale * up(relu(down(norm(x))))`` to the stream at every site, one set per task.

    Houlsby et al. 2019 and He et al. 2022; "Adapter" in Polyhistor (table 1) and "Multiple Adapter"
    in VMT-Adapter (table 2).

    Args:
        ratio: Down-projection ratio rho; the bottleneck is ``n = d / rho`` wide.
        norm: LayerNorm on the adapter's input (``"in"``), its output (``"out"``), or none.
            The originals normalise the output, which amplifies the first update.
        sites: ``"mlp"``, ``"attn"`` or ``"both"``.
        placement: ``"parallel"`` reads the site's input, ``"serial"`` its output.
        activation: Name of the non-linearity.
        scale: Constant factor of the branch.

    Raises:
        HyperparameterError: ``ratio`` doesn't divide a width, or a parallel branch has no place.
        NoSiteError: The backbone has no such sites.
    """

    name: ClassVar[str] = "adapter"
    paper: ClassVar[str] = "Houlsby et al. 2019; Polyhistor, section 5.2"
    one_path: ClassVar[bool] = False

    ratio: int = 2
    norm: Literal["in", "out"] | None = "in"
    sites: Literal["mlp", "attn", "both"] = "mlp"
    placement: Literal["parallel", "serial"] = "parallel"
    activation: str = "relu"
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Check what needs no backbone to be checked."""
        super().__post_init__()
        check_adapter(self.norm, self.sites, self.placement)

    def adapt(
        self, path: nn.Module, info: BackboneInfo, tasks: Sequence[str], shared: nn.Module | None
    ) -> None:
        """Put a bottleneck at every site."""
        for site in info.find(self.sites):
            linear = self._linear(self._width(site), tasks, shared)
            attach(path, site, self._branch(site, linear), self.placement)

    def count(self, info: BackboneInfo, tasks: int) -> int:
        """``T sum (2 d n + n + d [+ 2 d])``, once where the tasks share the set."""
        total = 0
        for site in info.find(self.sites):
            d, n = site.width, self._width(site)
            total += self._projections(d, n) + n + d + (2 * d if self.norm else 0)
        return total * self.passes(tasks)

    def _branch(self, site: Site, linear: Callable[[int, int], nn.Module]) -> Bottleneck:
        """Make the bottleneck of a site."""
        return Bottleneck(
            site.width,
            self._width(site),
            norm=self.norm,
            activation=self.activation,
            scale=self.scale,
            linear=linear,
        )

    def _width(self, site: Site) -> int:
        """Width of the bottleneck at a site."""
        return width_of(site, self.ratio)

    def _linear(
        self, n: int, tasks: Sequence[str], shared: nn.Module | None
    ) -> Callable[[int, int], nn.Module]:
        """Give what builds both projections of a bottleneck of width n."""
        return nn.Linear

    def _projections(self, d: int, n: int) -> int:
        """Count the weights of both projections."""
        return 2 * d * n


@register
@dataclass(frozen=True, kw_only=True)
class SharedAdapter(Adapter):
    """Adds one set of bottleneck adapters that all tasks share, in one pass.

    Sung et al. 2022; "Shared Adapter" in Polyhistor (table 1, with the backbone's norms unfrozen)
    and VMT-Adapter (table 2, without).

    Args:
        unfreeze_norms: Train the backbone's normalisation layers too.
    """

    name: ClassVar[str] = "shared_adapter"
    paper: ClassVar[str] = "Sung et al. 2022; Polyhistor, section 5.2"
    one_path: ClassVar[bool] = True

    unfreeze_norms: bool = False

    def adapt(
        self, path: nn.Module, info: BackboneInfo, tasks: Sequence[str], shared: nn.Module | None
    ) -> None:
        """Put a bottleneck at every site; unfreeze the norms if asked to."""
        super().adapt(path, info, tasks, shared)
        if self.unfreeze_norms:
            own(path, info.norms)

    def count(self, info: BackboneInfo, tasks: int) -> int:
        """``sum (2 d n + n + d [+ 2 d])``, plus the backbone's norms where unfrozen."""
        return super().count(info, tasks) + (info.numel(info.norms) if self.unfreeze_norms else 0)
