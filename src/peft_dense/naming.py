"""One name for every frozen tensor, however many paths share it.

``state_dict()`` of several paths would name each frozen tensor once a path. Two hooks of the root
drop the copies on the way out and restore them on the way in.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ["drop_duplicates", "frozen_keys", "restore_duplicates"]


def frozen_keys(backbone: nn.Module, paths: nn.ModuleDict) -> dict[str, str]:
    """Map each path's state-dict key of a frozen tensor to the backbone's key of it."""
    names = {id(parameter): name for name, parameter in backbone.named_parameters()}
    keys: dict[str, str] = {}
    for stored, path in paths._modules.items():
        assert path is not None
        for prefix, module in path.named_modules(remove_duplicate=False):
            parameters = dict(module.named_parameters(recurse=False))
            at = f"paths.{stored}.{prefix}." if prefix else f"paths.{stored}."
            for leaf, parameter in parameters.items():
                if id(parameter) in names:
                    keys[at + leaf] = f"backbone.{names[id(parameter)]}"
            # Running statistics belong to whoever owns the weight beside them.
            if all(id(parameter) in names for parameter in parameters.values()):
                for leaf, _ in module.named_buffers(recurse=False):
                    source = f"{prefix}.{leaf}" if prefix else leaf
                    if leaf not in module._non_persistent_buffers_set:
                        keys[at + leaf] = f"backbone.{source}"
    return keys


def drop_duplicates(module: Any, state: dict[str, Any], prefix: str, _: dict[str, Any]) -> None:
    """Name each frozen tensor once, under ``backbone``."""
    for key in frozen_keys(module.backbone, module.paths):
        state.pop(prefix + key, None)


def restore_duplicates(module: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Give the paths back the names that saving dropped, and leave the original its values."""
    for key, source in frozen_keys(module.backbone, module.paths).items():
        if prefix + source in state:
            state[prefix + key] = state[prefix + source]
    frozen = module.backbone.state_dict(keep_vars=True)
    given = {name: state.get(f"{prefix}backbone.{name}") for name in frozen}
    if any(
        new is not None and new.shape == old.shape and not torch.equal(new.to(old), old)
        for (name, old), new in zip(frozen.items(), given.values(), strict=True)
    ):
        for parameter in module.backbone.parameters():
            parameter.data = parameter.data.clone()
        for part in module.modules():
            for leaf, buffer in part.named_buffers(recurse=False):
                part._buffers[leaf] = buffer.clone()
