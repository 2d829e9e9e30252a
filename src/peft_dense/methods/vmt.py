"""VMT-Adapter and VMT-Adapter-Lite: one shared adapter, a scale and a shift per task, one pass."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from torch import Tensor, nn

from peft_dense.backbones import BackboneInfo, Site, Tap, add_beside, branch_at, branch_name
from peft_dense.errors import HyperparameterError, NoSiteError, warn
from peft_dense.layout import from_channels_last, to_channels_last, tokens_to_map
from peft_dense.methods.base import Method, register, width_of
from peft_dense.nn import VMTAdapter
from peft_dense.nn.checks import check_choice, check_share
from peft_dense.nn.scaled_sums import scaled_sums

__all__ = ["VMT", "VMTLite"]


@register
@dataclass(frozen=True, kw_only=True)
class VMT(Method):
    """Adds a shared adapter beside every MLP and gives each task a scaled and shifted share of it.

    VMT-Adapter, section 4.1. With ``h = c relu(x W_down) W_up`` (equation 3; the constant c = 4 is
    ours, by measurement, and VMT-Adapter-Lite's is 1) and gating ratio lambda, the stream receives
    ``lambda h``; task t receives, at every stage, the stage output plus
    ``sum_l alpha_tl * (1 - lambda) h_l + beta_tl`` over the stage's layers (equations 4 and 5). The
    task-specific parts never enter the stream, so one pass serves any number of tasks.

    In training, a backbone's drop path drops ``lambda h`` together with the MLP beside which it is
    added. A task's part is never dropped: it goes to the stage output, past every residual branch,
    and the paper names no drop path for it.

    Args:
        ratio: Down-projection ratio rho; ``n = d / rho``.
        gate: Gating ratio lambda in [0, 1], a constant. The paper doesn't give its value.
        norm: LayerNorm on the adapter's input (``"in"``) or none. Implied by the paper's counts.
        collect: ``"sum"`` over a stage's layers, or ``"last"`` for the last layer's part alone.

    Raises:
        HyperparameterError: ``ratio`` doesn't divide a width.
        NoSiteError: No feed-forward part works on its stage's output map. Where only some don't, a
            warning names them: their adapters serve the stream alone.
    """

    name: ClassVar[str] = "vmt"
    paper: ClassVar[str] = "VMT-Adapter, section 4.1"
    one_path: ClassVar[bool] = True
    gain: ClassVar[float] = 4.0
    """Factor of the latent, by measurement: docs/results.md, "VMT-Adapter: what was tried"."""

    ratio: int = 4
    gate: float = 0.5
    norm: Literal["in"] | None = "in"
    collect: Literal["sum", "last"] = "sum"

    def __post_init__(self) -> None:
        """Check what needs no backbone to be checked."""
        super().__post_init__()
        check_choice("norm", self.norm, ("in", None))
        check_choice("collect", self.collect, ("sum", "last"))
        check_share("gate", self.gate)

    def resolve(self, info: BackboneInfo) -> VMT:
        """Check the widths, and that the tasks' parts fit on the stage outputs."""
        sites = info.find("mlp")
        for site in sites:
            width_of(site, self.ratio)
        lost = [site for site in sites if not info.fits(site)]
        if len(lost) == len(sites):
            site = lost[0]
            output = (info.channels[site.stage], *info.grids[site.stage])
            raise NoSiteError(
                f"{self.name} adds each layer's part to its stage output, but none of the "
                f"{len(sites)} feed-forward parts of {info.model} works on its stage's map: "
                f"{site.name!r} has {site.width} channels on {site.grid} tokens and stage "
                f"{site.stage} is {output}. Use shared_adapter, which adds to the stream only, or "
                "say where the tokens lie with family=Family(to_map=...)."
            )
        if self.gate == 1:
            warn(
                f"{self.name}: gate={self.gate} leaves nothing of the latent for the tasks, so "
                "their scales can't train and only shifts tell the tasks apart. Take a gate below "
                "1, such as 0.5, or shared_adapter, which has no task-specific parts."
            )
        if lost:
            warn(
                f"{self.name} on {info.model}: {len(lost)} of {len(sites)} layers don't work on "
                f"their stage's output map, so their adapters serve all tasks alike, through the "
                f"stream only: {', '.join(site.name for site in lost)}."
            )
        return self

    def adapt(
        self, path: nn.Module, info: BackboneInfo, tasks: Sequence[str], shared: nn.Module | None
    ) -> None:
        """Put a VMTAdapter beside every MLP."""
        collected = self._collected(info)
        for site in info.find("mlp"):
            add_beside(path, site, self._layer(site, tasks if site in collected else ()))

    def taps(self, info: BackboneInfo) -> list[Tap]:
        """Read the output of ``up`` in every layer of which the tasks get a part."""
        return [_latent(site) for site in self._collected(info)]

    def _collected(self, info: BackboneInfo) -> list[Site]:
        """Give the sites of whose latents the tasks get a part."""
        fitting = [site for site in info.find("mlp") if info.fits(site)]
        if self.collect == "sum":
            return fitting
        return list({site.stage: site for site in fitting}.values())

    def _layer(self, site: Site, tasks: Sequence[str]) -> VMTAdapter:
        return VMTAdapter(
            site.width,
            tasks,
            ratio=self.ratio,
            gate=self.gate,
            norm=self.norm,
            gain=self.gain,
        )

    def task_features(
        self,
        path: nn.Module,
        info: BackboneInfo,
        outputs: list[Tensor],
        taps: Mapping[Tap, Tensor],
        tasks: Sequence[str],
        image: Tensor,
    ) -> dict[str, list[Tensor]]:
        """Add each task's part to the stage outputs (equation 5).

        What limits this is memory traffic, so all is done with the channels last, as the latents
        lie, and the shifts of a stage are added before they meet a map.
        """
        features = {task: list(outputs) for task in tasks}
        stages: dict[int, list[Site]] = {}
        for site in self._collected(info):
            stages.setdefault(site.stage, []).append(site)
        for stage, sites in stages.items():
            output, adapters = outputs[stage], [_adapter(path, site) for site in sites]
            latents = [
                to_channels_last(_to_map(path, info, site, taps[_latent(site)], image, output), 1)
                for site in sites
            ]
            sums = scaled_sums(
                # Laid out anew once, rather than read across its layout by every task.
                to_channels_last(output, 1).contiguous(),
                latents,
                [[adapter.scale(task) for adapter in adapters] for task in tasks],
                [_sum([adapter.shift(task) for adapter in adapters]) for task in tasks],
            )
            for task, feature in zip(tasks, sums, strict=True):
                features[task][stage] = from_channels_last(feature, 1)
        return features

    def count(self, info: BackboneInfo, tasks: int) -> int:
        """``sum (2 d n + d + 2 d T [+ 2 d])``: projections, bias, scales and shifts, LayerNorm."""
        total, collected = 0, self._collected(info)
        for site in info.find("mlp"):
            d, n = site.width, width_of(site, self.ratio)
            parts = 2 * d * tasks if site in collected else 0
            total += 2 * d * n + d + parts + (2 * d if self.norm else 0)
        return total


@register
@dataclass(frozen=True, kw_only=True)
class VMTLite(VMT):
    """VMT-Adapter whose projections are sums of Kronecker products with shared m x m matrices.

    VMT-Adapter, section 4.2: ``W_down = sum_i S_i (x) D_i`` and ``W_up = sum_i S_i (x) U_i``
    (equation 6) with the m matrices S_i shared by the two, so the projections shrink to 1/m.

    Args:
        m: Number and size of the shared matrices. None takes the paper's 3 where it divides the
            backbone's widths, else the nearest number that does (the larger of two equally near).

    Raises:
        HyperparameterError: ``m`` or ``ratio`` doesn't divide a width.
    """

    name: ClassVar[str] = "vmt_lite"
    paper: ClassVar[str] = "VMT-Adapter, section 4.2"
    gain: ClassVar[float] = 1.0

    m: int | None = None
    norm: Literal["in"] | None = None

    def resolve(self, info: BackboneInfo) -> VMTLite:
        """Settle m for the backbone's widths."""
        super().resolve(info)
        common = math.gcd(*(width_of(site, self.ratio) for site in info.find("mlp")))
        allowed = [m for m in range(1, common + 1) if common % m == 0]
        if self.m is None:
            return replace(self, m=min(allowed, key=lambda m: (abs(m - 3), -m)))
        if self.m not in allowed:
            raise HyperparameterError(
                f"m={self.m!r} doesn't divide the bottlenecks of {info.model} at "
                f"ratio={self.ratio}; they allow {', '.join(map(str, allowed))}."
            )
        return self

    def _layer(self, site: Site, tasks: Sequence[str]) -> VMTAdapter:
        return VMTAdapter(
            site.width,
            tasks,
            ratio=self.ratio,
            gate=self.gate,
            norm=self.norm,
            m=self.m,
            gain=self.gain,
        )

    def count(self, info: BackboneInfo, tasks: int) -> int:
        """``sum (2 d n / m + m^3 + d + 2 d T [+ 2 d])``."""
        assert self.m is not None, "resolve() settles m"
        total, collected = 0, self._collected(info)
        for site in info.find("mlp"):
            d, n = site.width, width_of(site, self.ratio)
            parts = 2 * d * tasks if site in collected else 0
            total += 2 * d * n // self.m + self.m**3 + d + parts + (2 * d if self.norm else 0)
        return total


def _latent(site: Site) -> Tap:
    """Where the latent of a site's adapter can be read."""
    return Tap(f"{branch_name(site)}.up")


def _sum(vectors: list[Tensor]) -> Tensor:
    return sum(vectors[1:], vectors[0])


def _adapter(path: nn.Module, site: Site) -> VMTAdapter:
    adapter = branch_at(path, site)
    assert isinstance(adapter, VMTAdapter)
    return adapter


def _to_map(
    path: nn.Module, info: BackboneInfo, site: Site, tokens: Tensor, image: Tensor, output: Tensor
) -> Tensor:
    """Lay a site's tokens out as a map of the stage output's size."""
    if info.family.to_map is not None:
        return info.family.to_map(path, site.name, tokens, image)
    height, width = output.shape[-2:]
    return tokens_to_map(tokens, height, width)
