"""What is known of a backbone: its stages, its sites, and the parameters it uses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from peft_dense.backbones.families import Family
from peft_dense.backbones.places import LinearSite, MapScope, Operation, Site
from peft_dense.backbones.taps import StageTap
from peft_dense.errors import ImageSizeError, NoSiteError, ShapeError

__all__ = ["BackboneInfo", "LinearSite", "MapScope", "Operation", "Site"]


@dataclass(frozen=True, kw_only=True)
class BackboneInfo:
    """What the probe found: stages, sites and the parameters the stage outputs depend on.

    Attributes:
        model: Name of the model's class.
        family: What the probe was told.
        indices: Which of the model's outputs are the stages.
        channels: Widths of the stages, finest first.
        reductions: Strides of the stages, finest first.
        grids: Their sizes at the probed image size.
        sites: Where adapters can go.
        parameters: Shapes of the used parameters, by name.
        norms: Names of those that belong to normalisation layers.
        stem: The first convolution's name and width.
        unused: Names of the modules that never ran.
        multiple: What an image's sides must be divisible by; None where only ``probed_size`` works.
        probed_size: Height and width of the image that it was probed with.
        tap: How the stage outputs are reached.
        operations: The modules with a weight whose output can be scaled and shifted.
        in_channels: How many channels images have.
        updating: Names of the modules whose buffers a forward in train mode writes (batch norms,
            spectral norms).
        holds: Attribute names of what ran, for error messages.

    Shape:
        images ``(B, in_channels, H, W)``; stage i
        ``(B, channels[i], H / reductions[i], W / reductions[i])``

    Example:
        >>> import timm
        >>> from peft_dense.backbones import examine
        >>> info = examine(timm.create_model("pvt_v2_b0"))
        >>> info.channels, info.reductions, info.multiple
        ((32, 64, 160, 256), (4, 8, 16, 32), 32)
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
    tap: StageTap = field(repr=False)
    operations: tuple[Operation, ...] = field(repr=False)
    in_channels: int = 3
    updating: tuple[str, ...] = field(default=(), repr=False)
    holds: tuple[str, ...] = field(default=(), repr=False)

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

    def stage_outputs(self, path: nn.Module, x: Tensor) -> list[Tensor]:
        """Run a clone of the backbone on ``x`` and return its stages as maps, finest first.

        Shape:
            ``(B, in_channels, H, W) ->`` a list of ``(B, C_i, ceil(H / r_i), ceil(W / r_i))``
        """
        return self.tap(path, x, self.family.features)

    def fits(self, site: Site) -> bool:
        """Whether the tokens of a site can be added to its stage's output.

        They can where the module runs once, is as wide as the stage, and its tokens are the stage's
        map in raster order (after ``site.prefix``), or ``family.to_map`` brings them there.
        """
        if site.calls != 1 or site.width != self.channels[site.stage]:
            return False
        if self.family.to_map is not None:
            return site.tokens == math.prod(self.grids[site.stage])
        return site.raster

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
                    f"no {kind!r} site in {self.model}; it has {self._summary()}. No module named "
                    f"{' or '.join(map(repr, getattr(self.family, kind)))} ran on tokens."
                    f"{self.about_blocks()} Choose other sites=..., or name the attribute with "
                    f"family=Family({kind}=('...',))."
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
                    f"no {role!r} linear in {self.model}; it has {have}."
                    f"{self.about_blocks()} Choose other targets=..., or name the attributes with "
                    f"family=Family(roles={{{role!r}: ('...',)}})."
                )
        return tuple(linear for linear in every if linear.role in roles)

    def check_images(self, x: Tensor) -> None:
        """Check that ``x`` is a batch of images that the stages can divide.

        Raises:
            ShapeError: It isn't (B, in_channels, H, W), or not floating point.
            ImageSizeError: The stages can't divide it; the nearest size that works is named.
        """
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ShapeError(
                f"images have shape {tuple(x.shape)}; expected (B, {self.in_channels}, H, W): "
                f"{self.model} was built for {self.in_channels} "
                f"channel{'s' if self.in_channels != 1 else ''}. Add the batch axis with x[None], "
                "or bring the channels to the front."
            )
        if not x.is_floating_point():
            raise ShapeError(
                f"images have dtype {x.dtype}; expected floating point. Convert with "
                "x.float() / 255 and normalise as the backbone was trained."
            )
        self.check_size(int(x.shape[-2]), int(x.shape[-1]))

    def nearest_size(self, height: int, width: int) -> tuple[int, int]:
        """Give the nearest height and width that the stages can divide."""
        if (height, width) == self.probed_size or self.multiple is None:
            return self.probed_size
        step = self.multiple
        return (
            max(1, (height + step // 2) // step) * step,
            max(1, (width + step // 2) // step) * step,
        )

    def check_size(self, height: int, width: int) -> None:
        """Check that the stages can divide images of a size.

        Raises:
            ImageSizeError: They can't; the nearest size that works is named.
        """
        near = self.nearest_size(height, width)
        if near == (height, width):
            return
        rule = (
            f"takes only {near[0]}x{near[1]}"
            if self.multiple is None
            else f"needs sides divisible by {self.multiple}"
        )
        raise ImageSizeError(
            f"image size {height}x{width}: {self.model} {rule}; the nearest size that works is "
            f"{near[0]}x{near[1]}. Resize or pad the images."
        )

    def about_blocks(self) -> str:
        """Give a sentence for messages on the blocks' attributes; empty if unknown."""
        return f" Its blocks hold {', '.join(self.holds)}." if self.holds else ""

    def _summary(self) -> str:
        kinds = [site.kind for site in self.sites]
        return ", ".join(f"{kinds.count(kind)} {kind!r}" for kind in sorted(set(kinds))) or "none"
