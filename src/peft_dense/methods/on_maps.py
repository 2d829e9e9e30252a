"""Base of the methods whose adapters convolve over a map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn
from typing_extensions import Self

from peft_dense.backbones import BackboneInfo, Site
from peft_dense.methods.base import Method, attach, check_adapter, check_maps, map_sites

__all__ = ["MapAdapter"]


@dataclass(frozen=True, kw_only=True)
class MapAdapter(Method):
    """Base of methods that put a branch on the map of every site that has one.

    Args:
        width: Width of the bottleneck.
        sites: ``"mlp"``, ``"attn"`` or ``"both"``. Sites whose tokens are no map (windows, mask
            units) get nothing; a warning names them.
        placement: ``"parallel"`` reads the site's input, ``"serial"`` its output.
    """

    one_path: ClassVar[bool] = True

    width: int
    sites: Literal["mlp", "attn", "both"] = "mlp"
    placement: Literal["parallel", "serial"] = "parallel"

    def __post_init__(self) -> None:
        """Check what needs no backbone to be checked."""
        super().__post_init__()
        check_adapter(None, self.sites, self.placement)

    def resolve(self, info: BackboneInfo) -> Self:
        """Check that there are maps to work on."""
        check_maps(self.name, info, self.sites)
        return self

    def adapt(
        self, path: nn.Module, info: BackboneInfo, tasks: Sequence[str], shared: nn.Module | None
    ) -> None:
        """Put a branch at every site."""
        for site in map_sites(info, self.sites):
            attach(path, site, self._branch(site), self.placement, grid=True)

    def count(self, info: BackboneInfo, tasks: int) -> int:
        """Sum the branches' sizes over the sites."""
        return sum(self._size(site.width) for site in map_sites(info, self.sites))

    def _branch(self, site: Site) -> nn.Module:
        """Make the branch of one site; it is called as ``branch(x, (height, width))``."""
        raise NotImplementedError

    def _size(self, d: int) -> int:
        """Count the parameters of a branch on a stream of width d."""
        raise NotImplementedError
