"""What is known of a backbone: its stages, its sites, and the parameters it uses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from peft_dense.backbones.families import Family
from peft_dense.errors import ImageSizeError, NoSiteError, ShapeError

__all__ = ["BackboneInfo", "LinearSite", "MapScope", "Site"]


@dataclass(frozen=True, kw_only=True)
class MapScope:
    """The nearest module around a site that sees the site's map."""

    module: str
    argument: int
    axes: tuple[int, int] | None
    stride: int


@dataclass(frozen=True, kw_only=True)
class LinearSite:
    """One linear of a site: an ``nn.Linear``, or a 1x1 convolution.

    ``role`` is ``qkv``, ``proj``, ``fc1`` or ``fc2``. ``called`` is False where the model reads the
    weight instead of calling the module (SwinV2's and BEiT's ``qkv``).
    """

    name: str
    role: str
    in_features: int
    out_features: int
    called: bool


@dataclass(frozen=True, kw_only=True)
class Site:
    """One module beside or after which a branch can go.

    ``kind`` is ``mlp`` or ``attn``; ``layer`` the module's class; ``width`` its output channels;
    ``channel_axis`` -1 for tokens (B, N, C) and maps (B, H, W, C), 1 for maps (B, C, H, W);
    ``tokens`` how many an image of the probed size has there, and ``grid`` their (N,) or (H, W);
    ``stage`` counts from the finest; ``keeps_shape`` tells whether input and output have one shape.
    """

    name: str
    kind: str
    layer: type[nn.Module]
    stage: int
    width: int
    channel_axis: int
    tokens: int
    grid: tuple[int, ...]
    keeps_shape: bool
    linears: tuple[LinearSite, ...] = ()
    scope: MapScope | None = None


@dataclass(frozen=True, kw_only=True)
class BackboneInfo:
    """What the probe found: stages, sites and the parameters the stage outputs depend on.

    ``channels`` and ``reductions`` are the stages' widths and strides, finest first, and ``grids``
    their sizes at the probed image size; ``multiple``
    is what an image's sides must be divisible by, or None where only ``probed_size`` works;
    ``parameters`` maps the names of the used parameters to their shapes; ``norms`` names those of
    normalisation layers among them; ``stem`` is the first convolution and its width; ``unused``
    names the modules that never ran.
    """

    model: str
    family: Family = field(repr=False)
    indices: tuple[int, ...]
    channels: tuple[int, ...]
    reductions: tuple[int, ...]
    grids: tuple[tuple[int, int], ...]
    sites: tuple[Site, ...]
    parameters: Mapping[str, tuple[int, ...]] = field(repr=False)
    norms: tuple[str, ...] = field(repr=False)
    stem: tuple[str, int] | None
    unused: tuple[str, ...]
    multiple: int | None
    probed_size: tuple[int, int]

    @property
    def flat(self) -> bool:
        """Whether all stages have one scale, as in a plain ViT."""
        return len(set(self.reductions)) == 1

    @property
    def size(self) -> int:
        """Number of parameters the stage outputs depend on."""
        return sum(math.prod(shape) for shape in self.parameters.values())

    def numel(self, names: Sequence[str]) -> int:
        """Number of values in the named parameters."""
        return sum(math.prod(self.parameters[name]) for name in names)

    def find(self, kinds: str) -> tuple[Site, ...]:
        """Sites of a kind: ``"mlp"``, ``"attn"`` or ``"both"``.

        Raises:
            NoSiteError: The backbone has none; the message lists those it has.
        """
        wanted = ("mlp", "attn") if kinds == "both" else (kinds,)
        found = tuple(site for site in self.sites if site.kind in wanted)
        for kind in wanted:
            if not any(site.kind == kind for site in found):
                raise NoSiteError(
                    f"no {kind!r} site in {self.model}; it has {self._summary()}. Choose other "
                    f"sites=..., or name the attribute with family=Family({kind}=('...',))."
                )
        return found

    def linears(self, roles: Sequence[str]) -> tuple[LinearSite, ...]:
        """Linears that play one of ``roles``.

        Raises:
            NoSiteError: The backbone has none for one of the roles; the message lists those it has.
        """
        every = [linear for site in self.sites for linear in site.linears]
        for role in roles:
            if not any(linear.role == role for linear in every):
                have = ", ".join(sorted({linear.role for linear in every})) or "none"
                raise NoSiteError(
                    f"no {role!r} linear in {self.model}; it has {have}. Choose other targets=..., "
                    f"or name the attributes with family=Family(roles={{{role!r}: ('...',)}})."
                )
        return tuple(linear for linear in every if linear.role in roles)

    def check_images(self, x: Tensor) -> None:
        """Check that ``x`` is a batch of images that the stages can divide.

        Raises:
            ShapeError: It isn't (B, 3, H, W), or not floating point.
            ImageSizeError: The stages can't divide it; the nearest size that works is named.
        """
        if x.ndim != 4 or x.shape[1] != 3:
            raise ShapeError(
                f"images have shape {tuple(x.shape)}; expected (B, 3, H, W). Add the batch axis "
                "with x[None], or bring the channels to the front."
            )
        if not x.is_floating_point():
            raise ShapeError(
                f"images have dtype {x.dtype}; expected floating point. Convert with "
                "x.float() / 255 and normalise as the backbone was trained."
            )
        height, width = int(x.shape[-2]), int(x.shape[-1])
        if (height, width) == self.probed_size:
            return
        if self.multiple is None:
            near = self.probed_size
        elif height % self.multiple == 0 and width % self.multiple == 0:
            return
        else:
            step = self.multiple
            near = (
                max(1, (height + step // 2) // step) * step,
                max(1, (width + step // 2) // step) * step,
            )
        rule = (
            f"takes only {near[0]}x{near[1]}"
            if self.multiple is None
            else f"needs sides divisible by {self.multiple}"
        )
        raise ImageSizeError(
            f"image size {height}x{width}: {self.model} {rule}; the nearest size that works is "
            f"{near[0]}x{near[1]}. Resize or pad the images."
        )

    @property
    def operations(self):
        from collections import namedtuple

        Op = namedtuple("Op", "name channels channel_axis")
        found = dict([self.stem]) if self.stem else {}
        for parameter in self.norms:
            name, _, leaf = parameter.rpartition(".")
            if leaf == "weight":
                found[name] = self.parameters[parameter][0]
        ax = dict.fromkeys([self.stem[0]] if self.stem else [], 1)
        for site in self.sites:
            found |= {li.name: li.out_features for li in site.linears if li.called}
        return [Op(n, c, ax.get(n, -1)) for n, c in found.items()]

    def fits(self, site: Site) -> bool:
        """Whether a site's tokens are those of its stage output, but for a few class tokens."""
        height, width = self.grids[site.stage]
        if site.width != self.channels[site.stage]:
            return False
        if len(site.grid) == 2:
            return site.grid == (height, width) or self.family.to_map is not None
        return 0 <= site.tokens - height * width <= 16

    def stage_outputs(self, path: nn.Module, x: Tensor) -> list[Tensor]:
        """Run a path and give its stage outputs."""
        from peft_dense.backbones.taps import stage_outputs

        if self.family.features is not None:
            outputs = list(self.family.features(path, x))
            return [outputs[index] for index in self.indices]
        tapped = stage_outputs(path, x, self.indices)
        assert tapped is not None, "the probe reached them"
        return tapped

    def _summary(self) -> str:
        kinds = [site.kind for site in self.sites]
        return ", ".join(f"{kinds.count(kind)} {kind!r}" for kind in sorted(set(kinds))) or "none"


def describe(info: BackboneInfo) -> str:
    return str(info)
