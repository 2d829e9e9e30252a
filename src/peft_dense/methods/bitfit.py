"""BitFit: train the biases, one copy per task or one for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from peft_dense.backbones import BackboneInfo, own
from peft_dense.errors import NoSiteError
from peft_dense.methods.base import Method, register

__all__ = ["BitFit", "SharedBitFit"]


@register
@dataclass(frozen=True, kw_only=True)
class BitFit(Method):
    """Trains every bias of the backbone, one copy per task.

    Zaken et al. 2022; Polyhistor, section 5.2. As there, that means every parameter that is called
    a bias: of linears, norms, patch embedding and mergings, and relative-position bias tables.

    Raises:
        NoSiteError: The backbone has no bias.
    """

    name: ClassVar[str] = "bitfit"
    paper: ClassVar[str] = "Zaken et al. 2022; Polyhistor, section 5.2"
    one_path: ClassVar[bool] = False

    def adapt(
        self, path: nn.Module, info: BackboneInfo, tasks: Sequence[str], shared: nn.Module | None
    ) -> None:
        """Give the path biases of its own."""
        own(path, self._names(info))

    def merge(self, path: nn.Module, info: BackboneInfo) -> None:
        """Fold nothing: the path is a plain backbone already."""

    def count(self, info: BackboneInfo, tasks: int) -> int:
        """The parameters that train, a copy per path."""
        return info.numel(self._names(info)) * self.passes(tasks)

    def resolve(self, info: BackboneInfo) -> BitFit:
        """Check that there is something to train."""
        self._names(info)
        return self

    def _names(self, info: BackboneInfo) -> list[str]:
        names = [name for name in info.parameters if self._trains(name, info)]
        if not names:
            raise NoSiteError(
                f"{info.model} has no {self._what}; {self.name} would train nothing. Methods that "
                "need none of these: adapter, lora, vmt_lite."
            )
        return names

    _what: ClassVar[str] = "biases"

    def _trains(self, name: str, info: BackboneInfo) -> bool:
        # BitFit is defined by what a parameter is called: no structure tells a bias.
        return "bias" in name.rpartition(".")[2]


@register
@dataclass(frozen=True, kw_only=True)
class SharedBitFit(BitFit):
    """Trains one copy of the biases for all tasks, in one pass (VMT-Adapter, table 2)."""

    name: ClassVar[str] = "shared_bitfit"
    paper: ClassVar[str] = "Zaken et al. 2022; VMT-Adapter, section 5.2"
    one_path: ClassVar[bool] = True
