"""One call that adapts a backbone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from peft_dense.adapted import AdaptedBackbone
from peft_dense.backbones import Family, examine
from peft_dense.errors import HyperparameterError
from peft_dense.methods import Method
from peft_dense.methods import method as find_method

__all__ = ["PASCAL_CONTEXT", "inject"]

PASCAL_CONTEXT = ("semseg", "human_parts", "sal", "normals")
"""The four tasks of both papers."""


def inject(
    model: nn.Module,
    method: str | Method = "vmt_lite",
    *,
    tasks: Sequence[str] | None = None,
    family: Family | None = None,
    **hyperparameters: Any,
) -> AdaptedBackbone:
    """Adapt a backbone to several dense tasks; the model itself isn't touched.

    Args:
        model: A pretrained vision backbone: timm's, torchvision's, or any whose stage outputs can
            be reached. Wrap it (DDP, FSDP, compile) after this call, not before.
        method: Name of a method, or a Method. :func:`peft_dense.methods` lists the names.
        tasks: Names of the tasks, any strings; None takes the four of PASCAL-Context.
        family: What the probe can't see of an unusual backbone.
        **hyperparameters: Those of the method.

    Returns:
        The adapted backbone: ``adapted(images)`` is a dict of stage features per task.

    Raises:
        UnknownNameError: Unknown method or hyper-parameter; the nearest names are offered.
        HyperparameterError: A hyper-parameter doesn't fit the backbone, or the tasks are empty or
            twice.
        UnsupportedModelError: The model is wrapped, or its stage outputs can't be reached.
        NoSiteError: The backbone has no place for what the method adds.

    Example:
        >>> import timm, torch
        >>> net = timm.create_model("pvt_v2_b0")
        >>> adapted = inject(net, "vmt_lite", tasks=["semseg", "depth"])
        >>> [tuple(f.shape) for f in adapted(torch.randn(1, 3, 64, 64))["depth"]]
        [(1, 32, 16, 16), (1, 64, 8, 8), (1, 160, 4, 4), (1, 256, 2, 2)]
    """
    how = find_method(method, **hyperparameters)
    given = PASCAL_CONTEXT if tasks is None else (tasks,) if isinstance(tasks, str) else tasks
    names = tuple(given) if isinstance(given, Iterable) else ()
    if (
        not names
        or len(set(names)) != len(names)
        or not all(isinstance(n, str) and n for n in names)
    ):
        raise HyperparameterError(
            f"tasks={tasks!r}; expected at least one name, each a non-empty string and each once."
        )
    info = examine(model, family, stacklevel=3)
    return AdaptedBackbone(model, how.resolve(info), names, info)
