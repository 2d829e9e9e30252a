"""Check that a model can be adapted, and probe it."""

from __future__ import annotations

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from peft_dense.backbones.families import Family, family_of
from peft_dense.backbones.info import BackboneInfo
from peft_dense.backbones.origin import is_path
from peft_dense.backbones.sites import probe
from peft_dense.errors import UnsupportedModelError, warn

__all__ = ["examine"]


def examine(model: nn.Module, family: Family | None = None) -> BackboneInfo:
    """Check that ``model`` can be adapted as it stands, and probe it.

    A flat backbone (one scale, as a plain ViT) is accepted with a warning.

    Args:
        model: Any backbone; it isn't touched.
        family: What the probe can't see; by default what is registered for the model's class.

    Raises:
        UnsupportedModelError: It isn't a module, is wrapped (by inject, DDP, FSDP or compile), or
            its stage outputs can't be reached.

    Example:
        >>> import timm
        >>> examine(timm.create_model("pvt_v2_b0")).channels
        (32, 64, 160, 256)
    """
    _check_unwrapped(model)
    info = probe(model, family_of(model) if family is None else family)
    if info.flat and len(info.channels) > 1:
        warn(
            f"{info.model} is flat: all its {len(info.channels)} stage outputs have stride "
            f"{info.reductions[0]}. It works; heads made for a pyramid lose their fine scales."
        )
    return info


def _check_unwrapped(model: object) -> None:
    if not isinstance(model, nn.Module):
        raise UnsupportedModelError(
            f"inject got {type(model).__name__}; expected a torch.nn.Module, such as "
            "timm.create_model('swin_tiny_patch4_window7_224')."
        )
    for module in model.modules():
        wrapper = _wrapper(module)
        if wrapper is not None:
            raise UnsupportedModelError(
                f"the model is already wrapped by {wrapper}; inject first, wrap afterwards "
                f"({_REMEDIES.get(wrapper, 'unwrap it')})."
            )


_REMEDIES = {
    "peft_dense.inject": "eject() returns the original model",
    "DistributedDataParallel": "model.module is the bare model",
    "DataParallel": "model.module is the bare model",
    "torch.compile": "model._orig_mod is the bare model; build it anew after model.compile()",
    "FullyShardedDataParallel": "build the model anew",
}


def _wrapper(module: nn.Module) -> str | None:
    """Name of what wraps a module, or None."""
    if is_path(module):
        return "peft_dense.inject"
    kinds = {kind.__name__ for kind in type(module).__mro__}
    if "AdaptedBackbone" in kinds or "DenseModel" in kinds:
        return "peft_dense.inject"
    if isinstance(module, (DistributedDataParallel, DataParallel)):
        return type(module).__name__
    if kinds & {"FullyShardedDataParallel", "FSDPModule"}:
        return "FullyShardedDataParallel"
    if "OptimizedModule" in kinds or getattr(module, "_compiled_call_impl", None) is not None:
        return "torch.compile"
    return None
