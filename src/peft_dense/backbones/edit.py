"""Edits of one path: a branch beside a module, a branch after it, a module in its place.

A branch becomes the submodule ``adapter`` of the module it serves, and a forward hook adds its
output. The backbone's own state-dict keys stay as they are, and since the hooks are functions of
this file, a path can be pickled, deep-copied and compiled like any module.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from peft_dense.backbones.info import Site
from peft_dense.errors import UnsupportedModelError
from peft_dense.layout import from_channels_last, to_channels_last

__all__ = ["ChannelsLast", "adapter_at", "add_after", "add_beside", "replace", "set_adapter"]


class ChannelsLast(nn.Module):
    """Apply a layer of the last axis to a map whose channels lie on axis 1.

    Shape:
        ``(B, C, H, W) -> (B, C, H, W)``
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Move the channels last, apply the layer, and move them back."""
        return from_channels_last(self.layer(to_channels_last(x, 1)), 1)


def add_beside(path: nn.Module, site: Site, branch: nn.Module) -> None:
    """Add ``branch(input)`` to the output of the site: the parallel placement."""
    _new_adapter(path, site, branch).register_forward_hook(_beside)


def add_after(path: nn.Module, site: Site, branch: nn.Module) -> None:
    """Add ``branch(output)`` to the output of the site: the serial placement."""
    _new_adapter(path, site, branch).register_forward_hook(_after)


def adapter_at(path: nn.Module, site: Site) -> nn.Module:
    """Return the branch that was put at the site, without its layout wrapper."""
    adapter = path.get_submodule(site.name).adapter
    layer = adapter.layer if isinstance(adapter, ChannelsLast) else adapter
    assert isinstance(layer, nn.Module)
    return layer


def replace(path: nn.Module, name: str, module: nn.Module) -> None:
    """Put ``module`` where the submodule ``name`` was."""
    path.set_submodule(name, module)


def _new_adapter(path: nn.Module, site: Site, branch: nn.Module) -> nn.Module:
    if hasattr(path.get_submodule(site.name), "adapter"):
        raise UnsupportedModelError(
            f"{site.name!r} has a submodule or attribute 'adapter' already; rename it in the "
            "backbone, so that nothing is overwritten."
        )
    return set_adapter(path, site, branch)


def set_adapter(path: nn.Module, site: Site, branch: nn.Module) -> nn.Module:
    """Make ``branch`` the adapter of the site and return the site's module."""
    module = path.get_submodule(site.name)
    if type(module).forward is nn.Sequential.forward:
        module.__class__ = _SequentialSite
    module.adapter = ChannelsLast(branch) if site.channel_axis == 1 else branch
    return module


class _SequentialSite(nn.Sequential):
    """A Sequential that doesn't take its adapter for one of its layers."""

    def forward(self, x: Any) -> Any:
        """Run the layers, not the adapter."""
        for name, layer in self.named_children():
            x = x if name == "adapter" else layer(x)
        return x


def _beside(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    return _add(output, module.adapter(args[0]))  # type: ignore[operator]


def _after(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    stream = output[0] if isinstance(output, tuple) else output
    return _add(output, module.adapter(stream))  # type: ignore[operator]


def _add(output: Any, branch: Tensor) -> Any:
    # MViTv2's attention returns (tokens, size): only the tokens are adapted.
    if isinstance(output, tuple):
        return (output[0] + branch, *output[1:])
    return output + branch
