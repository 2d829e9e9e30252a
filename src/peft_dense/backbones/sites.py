"""One probing forward that finds where a method can act on a backbone.

The probe runs a copy of the model on torch's ``meta`` device, where tensors have shapes and no
values, and watches: which modules are feed-forward parts (``mlp``) and token mixers (``attn``),
what goes in and out of them, on which axis the channels lie, and, by one backward, which parameters
the stage outputs depend on. What they don't depend on (classifier, final norm, last pooling) is no
part of the encoder.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.layers.norm import RmsNorm, RmsNorm2d, SimpleNorm, SimpleNorm2d
from torch import Tensor, nn

from peft_dense.backbones.clone import meta
from peft_dense.backbones.families import Family
from peft_dense.backbones.info import BackboneInfo
from peft_dense.backbones.taps import stage_outputs
from peft_dense.backbones.watch import Watch
from peft_dense.errors import NoSiteError, UnsupportedModelError

__all__ = ["probe"]

_NORMS = (
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.modules.batchnorm._NormBase,
    RmsNorm,
    RmsNorm2d,
    SimpleNorm,
    SimpleNorm2d,
)


def probe(model: nn.Module, family: Family) -> BackboneInfo:
    """Watch one forward of a copy of ``model`` on the meta device.

    Args:
        model: Any backbone; it isn't touched.
        family: What the probe can't see of it.

    Raises:
        UnsupportedModelError: The model doesn't run, or its stage outputs can't be reached.
        NoSiteError: No feed-forward part and no token mixer were found.
    """
    name = type(model).__name__
    size = _native_size(model)
    clone = meta(model).eval()
    if family.flexible is not None:
        family.flexible(clone)
    watch = Watch(clone, family)
    try:
        with watch:
            outputs = _run(clone, family, size)
    except UnsupportedModelError:
        raise
    except Exception as error:
        raise UnsupportedModelError(
            f"{name} failed on an image of {size[0]}x{size[1]}: {error}. Build it for the size you "
            "want, or describe it with family=Family(features=..., flexible=...)."
        ) from error
    if outputs is None:
        raise UnsupportedModelError(
            f"{name} has no forward_intermediates and its forward returns no list of maps, so its "
            "stage outputs can't be reached. Pass "
            "family=Family(features=lambda model, x: [finest, ..., coarsest])."
        )
    used = _used(clone, outputs)
    indices = _choose(outputs, size)
    maps = [outputs[index] for index in indices]
    grids = tuple((int(output.shape[-2]), int(output.shape[-1])) for output in maps)
    sites = watch.sites(maps, indices)
    if not sites:
        raise NoSiteError(
            f"{name} has no module named {' or '.join(map(repr, family.mlp + family.attn))} that "
            f"ran on tokens. Its blocks have {watch.names()}. Name the right ones with "
            "family=Family(mlp=('...',), attn=('...',))."
        )
    reductions = tuple(size[0] // grid[0] for grid in grids)
    norms = tuple(
        f"{prefix}.{leaf}" if prefix else leaf
        for prefix, module in clone.named_modules()
        if isinstance(module, _NORMS)
        for leaf, _ in module.named_parameters(recurse=False)
        if (f"{prefix}.{leaf}" if prefix else leaf) in used
    )
    return BackboneInfo(
        model=name,
        family=family,
        indices=tuple(indices),
        channels=tuple(output.shape[1] for output in maps),
        reductions=reductions,
        grids=grids,
        sites=sites,
        parameters={name: tuple(p.shape) for name, p in clone.named_parameters() if name in used},
        norms=norms,
        stem=watch.stem(),
        unused=watch.unused(used),
        multiple=_multiple(clone, family, size, max(reductions)),
        probed_size=size,
    )


def _run(model: nn.Module, family: Family, size: tuple[int, int]) -> list[Tensor] | None:
    kind = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    image = torch.empty(1, 3, *size, device="meta", dtype=kind)
    if family.features is not None:
        return list(family.features(model, image))
    return stage_outputs(model, image)


def _native_size(model: nn.Module) -> tuple[int, int]:
    """Image size the model was built for, 224 x 224 where it doesn't say."""
    embed = getattr(model, "patch_embed", None)
    config = getattr(model, "pretrained_cfg", None) or {}
    for size in (getattr(embed, "img_size", None), config.get("input_size")):
        if isinstance(size, int):
            return size, size
        if isinstance(size, (tuple, list)) and len(size) >= 2:
            return int(size[-2]), int(size[-1])
    return 224, 224


def _choose(outputs: Sequence[Tensor], size: tuple[int, int]) -> list[int]:
    """Pick the stages: all but a stem finer than 1/4; a flat model's depth in four parts."""
    if len({tuple(output.shape) for output in outputs}) == 1 and len(outputs) > 4:
        return [len(outputs) * part // 4 - 1 for part in (1, 2, 3, 4)]
    return [i for i, output in enumerate(outputs) if output.shape[-2] * 4 <= size[0]]


def _used(model: nn.Module, outputs: Sequence[Tensor]) -> set[str]:
    """Names of the parameters on which the outputs depend, by one backward."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    total = torch.stack([output.sum() for output in outputs]).sum()
    grads = torch.autograd.grad(total, [p for _, p in named], allow_unused=True)
    return {name for (name, _), grad in zip(named, grads, strict=True) if grad is not None}


def _multiple(
    model: nn.Module, family: Family, size: tuple[int, int], reduction: int
) -> int | None:
    """Smallest step by which an image may grow: the coarsest stride, the native size, or none."""
    for step in dict.fromkeys((reduction, *(s for s in size if s % reduction == 0))):
        base = [side // step * step for side in size]
        try:
            with torch.no_grad():
                _run(model, family, (base[0] + step, base[1] + 2 * step))
        except Exception:  # any failure means: not at this size
            continue
        return step
    return None
