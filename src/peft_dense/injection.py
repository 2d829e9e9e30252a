"""One call that adapts a backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from peft_dense.adapted import AdaptedBackbone
from peft_dense.backbones import Family, describe, examine
from peft_dense.explaining import explain_method
from peft_dense.methods import Method
from peft_dense.methods import method as find_method
from peft_dense.surgery import check_names

__all__ = ["PASCAL_CONTEXT", "inject"]

PASCAL_CONTEXT = ("semseg", "human_parts", "sal", "normals")
"""The four tasks of both papers."""


def inject(
    model: nn.Module,
    method: str | Method = "vmt_lite",
    *,
    tasks: Sequence[str] | None = None,
    family: Family | None = None,
    explain: bool = False,
    **hyperparameters: Any,
) -> AdaptedBackbone:
    """Adapt a backbone to several dense tasks; the model itself isn't touched.

    Args:
        model: A pretrained vision backbone: timm's, torchvision's, or any whose stage outputs can
            be reached. Wrap it (DDP, FSDP, compile) after this call, not before.
        method: Name of a method, or a Method. :func:`peft_dense.methods` lists the names.
        tasks: Names of the tasks, any strings; None takes the four of PASCAL-Context.
        family: What the probe can't see of an unusual backbone.
        explain: Print what was found in the backbone, and what the method puts where.
        **hyperparameters: Those of the method.

    Returns:
        The adapted backbone: ``adapted(images)`` is a dict of stage features per task.

    Raises:
        UnknownNameError: Unknown method or hyper-parameter; the nearest names are offered.
        HyperparameterError: A hyper-parameter doesn't fit the backbone, or the tasks are no list of
            distinct names.
        UnsupportedModelError: The model is wrapped, or its stage outputs can't be reached.
        NoSiteError: The backbone has no place for what the method adds.

    Example:
        >>> import timm, torch
        >>> net = timm.create_model("pvt_v2_b0")
        >>> adapted = inject(net, "vmt_lite", tasks=["semseg", "depth"])
        >>> [tuple(f.shape) for f in adapted(torch.randn(1, 3, 64, 64))["depth"]]
        [(1, 32, 16, 16), (1, 64, 8, 8), (1, 160, 4, 4), (1, 256, 2, 2)]
    """
    chosen = find_method(method, **hyperparameters)
    names = check_names(PASCAL_CONTEXT if tasks is None else tasks)
    info = examine(model, family)
    if explain:
        print(describe(info))  # noqa: T201 - what explain asks for
    chosen = chosen.resolve(info)
    if explain:
        print(explain_method(model, chosen, names, info))  # noqa: T201
    return AdaptedBackbone(model, chosen, names, info)
