"""What a method would add to a backbone, and where."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from peft_dense.adapted import AdaptedBackbone
from peft_dense.backbones import BackboneInfo
from peft_dense.backbones.clone import meta
from peft_dense.methods import Method
from peft_dense.ownership import slots

__all__ = ["explain_method"]


def explain_method(
    model: nn.Module, method: Method, tasks: Sequence[str], info: BackboneInfo
) -> str:
    """List the places of one path that a method changes, and what all paths share.

    It is read off the method applied on the ``meta`` device.

    Args:
        model: The backbone; it isn't touched.
        method: The method, its hyper-parameters settled for this backbone.
        tasks: Names of the tasks.
        info: What the probe found.

    Returns:
        A table: place, what is there, trainable parameters; then the ledger.

    Example:
        >>> import timm
        >>> from peft_dense.backbones import examine
        >>> from peft_dense.methods import method
        >>> net = timm.create_model("pvt_v2_b0")
        >>> info = examine(net)
        >>> said = explain_method(net, method("bitfit").resolve(info), ["sal"], info)
        >>> said.splitlines()[0]
        'bitfit puts on each of 1 path:'
        >>> said.splitlines()[1].split()
        ['patch_embed.proj', 'its', 'own', 'bias', '32']
    """
    with torch.device("meta"):
        adapted = AdaptedBackbone(meta(model), method, tasks, info)
    first = next(iter(adapted.paths.values()))
    rows = _rows(first)
    count = len(adapted.paths)
    head = f"{method.name} puts on each of {count} path{'s' if count > 1 else ''}:"
    lines = [head, *(_table(rows) if rows else ["  nothing"])]
    if adapted.shared is not None:
        size = sum(p.numel() for p in adapted.shared.parameters() if p.requires_grad)
        lines.append("and once for all paths:")
        lines += _table([("", type(adapted.shared).__name__, size)])
    return "\n".join([*lines, "", str(adapted.ledger())])


def _rows(path: nn.Module) -> list[tuple[str, str, int]]:
    """Give place, what is there and its size for everything on a path that isn't frozen."""
    found: dict[str, tuple[list[str], int]] = {}
    for slot in slots(path):
        if slot.frozen or not isinstance(slot.tensor, nn.Parameter):
            continue
        holder, _, leaf = slot.name.rpartition(".")
        place, branch, _ = holder.removeprefix("adapters.").partition(".branch")
        if holder.startswith("adapters.") and branch:
            what = type(path.get_submodule(f"adapters.{place}.branch")).__name__
        elif slot.origin is not None:
            place, what = holder, f"its own {leaf}"
        else:
            place, what = holder, f"{type(slot.module).__name__} with {leaf}"
        parts, size = found.get(place, ([], 0))
        parts += [what] if what not in parts else []
        found[place] = (parts, size + slot.tensor.numel())
    return [(place, ", ".join(parts), size) for place, (parts, size) in found.items()]


def _table(rows: Sequence[tuple[str, str, int]]) -> list[str]:
    first = max(len(place) for place, _, _ in rows)
    second = max(len(what) for _, what, _ in rows)
    return [f"  {place:<{first}}  {what:<{second}}  {size:>12,}" for place, what, size in rows]
