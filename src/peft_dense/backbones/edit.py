"""Edits of one path: a branch beside a module, one after it, one around its output, a replacement.

What is added lies in a tree of its own at the path's root, ``path.adapters``, in which the names of
the backbone's modules lead to the branches; a forward hook on the module calls its branch. Nothing
is registered on the backbone's modules themselves: they iterate over their children, count them,
and own state-dict keys. Since the hooks are classes of this file, a path can be pickled,
deep-copied and compiled like any module.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from peft_dense.backbones.info import Site
from peft_dense.backbones.scope import grid_of, watch_scope
from peft_dense.errors import UnsupportedModelError
from peft_dense.layout import from_channels_last, to_channels_last

__all__ = [
    "add_after",
    "add_beside",
    "branch_at",
    "branch_name",
    "comes_first",
    "replace",
    "replace_branch",
    "take_off",
    "transform_output",
]

_TREE = "adapters"


def add_beside(path: nn.Module, site: Site, branch: nn.Module, *, grid: bool = False) -> None:
    """Add ``branch(input)`` to the output of the site: the parallel placement.

    Args:
        path: The path, or any module.
        site: The place, as :meth:`BackboneInfo.find` gives it.
        branch: What goes there; it works on the last axis.
        grid: Whether it is called as ``branch(input, (height, width))``, with the size of the
            site's map.

    Raises:
        UnsupportedModelError: There is a branch at that place already, or a name is taken.

    Example:
        >>> import timm
        >>> from peft_dense.backbones import examine
        >>> info = examine(net := timm.create_model("pvt_v2_b0"))
        >>> site = info.find("mlp")[0]
        >>> add_beside(net, site, nn.Linear(site.width, site.width))
        >>> branch_at(net, site).in_features
        32
    """
    _put(path, site, branch, "beside", grid)


def add_after(path: nn.Module, site: Site, branch: nn.Module, *, grid: bool = False) -> None:
    """Add ``branch(output)`` to the output of the site: the serial placement.

    Args:
        path: The path, or any module.
        site: The place, as :meth:`BackboneInfo.find` gives it.
        branch: What goes there; it works on the last axis.
        grid: Whether it is called as ``branch(output, (height, width))``, with the size of the
            site's map.

    Raises:
        UnsupportedModelError: There is a branch at that place already, or a name is taken.

    Example:
        >>> import timm
        >>> from peft_dense.backbones import examine
        >>> info = examine(net := timm.create_model("pvt_v2_b0"))
        >>> site = info.find("mlp")[0]
        >>> add_after(net, site, nn.Linear(site.width, site.width))
        >>> branch_at(net, site).in_features
        32
    """
    _put(path, site, branch, "after", grid)


def transform_output(path: nn.Module, name: str, layer: nn.Module, channel_axis: int = -1) -> None:
    """Replace the output of the module ``name`` by ``layer(output)``.

    Args:
        path: The path, or any module.
        name: The module's name.
        layer: It gets the output with its channels last.
        channel_axis: Where the output has its channels: -1, or 1 for maps (B, C, H, W).

    Raises:
        UnsupportedModelError: There is a branch at that place already, or a name is taken.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(2, 2))
        >>> transform_output(net, "0", nn.Linear(2, 5))
        >>> net(torch.zeros(1, 2)).shape
        torch.Size([1, 5])
    """
    hook = _Branch(layer, "around", channel_axis)
    _register(path, name, hook)


def branch_name(site: Site | str) -> str:
    """Name of the branch at a site, as a module of the path: where a tap can be put.

    Args:
        site: The place, or the name of its module.

    Example:
        >>> branch_name("blocks.0.mlp")
        'adapters.blocks.0.mlp.branch'
    """
    name = site if isinstance(site, str) else site.name
    return f"{_TREE}.{name}.branch"


def branch_at(path: nn.Module, site: Site | str) -> nn.Module:
    """Return the branch that was put at the site (or on the module of that name).

    Args:
        path: The path, or any module.
        site: The place, or the name of its module.

    Raises:
        AttributeError: There is no branch.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2))
        >>> transform_output(net, "0", nn.Identity())
        >>> branch_at(net, "0")
        Identity()
    """
    return path.get_submodule(branch_name(site))


def replace_branch(path: nn.Module, site: Site | str, branch: nn.Module) -> None:
    """Replace the branch at a site.

    Args:
        path: The path, or any module.
        site: The place, or the name of its module.
        branch: The new one.

    Raises:
        AttributeError: There is no branch.
        UnsupportedModelError: The hook that calls the branch was taken away.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2))
        >>> transform_output(net, "0", nn.Identity())
        >>> replace_branch(net, "0", nn.Tanh())
        >>> branch_at(net, "0")
        Tanh()
    """
    _hook_at(path, site)[1].branch = branch
    path.set_submodule(branch_name(site), branch)


def comes_first(path: nn.Module, site: Site | str) -> bool:
    """Whether the branch's hook is the first of its module, before any that changes the output.

    Args:
        path: The path, or any module.
        site: The place, or the name of its module.

    Raises:
        AttributeError: There is no branch.
        UnsupportedModelError: The hook that calls the branch was taken away.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2))
        >>> transform_output(net, "0", nn.Identity())
        >>> comes_first(net, "0")
        True
    """
    key, _ = _hook_at(path, site)
    module = path.get_submodule(site if isinstance(site, str) else site.name)
    return bool(next(iter(module._forward_hooks)) == key)


def take_off(path: nn.Module, site: Site | str) -> None:
    """Remove the branch at a site; other hooks of the module stay.

    Args:
        path: The path, or any module.
        site: The place, or the name of its module.

    Raises:
        AttributeError: There is no branch.
        UnsupportedModelError: The hook that calls the branch was taken away.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2))
        >>> transform_output(net, "0", nn.Identity())
        >>> take_off(net, "0")
        >>> len(net[0]._forward_hooks)
        0
    """
    key, _ = _hook_at(path, site)
    name = site if isinstance(site, str) else site.name
    del path.get_submodule(name)._forward_hooks[key]
    del path.get_submodule(branch_name(site).removesuffix(".branch"))._modules["branch"]


def replace(path: nn.Module, name: str, module: nn.Module) -> None:
    """Put ``module`` where the submodule ``name`` was.

    Args:
        path: The path, or any module.
        name: The submodule's name.
        module: The new one.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2))
        >>> replace(net, "0", nn.Tanh())
        >>> net[0]
        Tanh()
    """
    path.set_submodule(name, module)


class AdapterTree(nn.Module):
    """Hold branches under the names of the modules they belong to."""

    def forward(self, x: Any) -> Any:
        """Return ``x``: called only where the path is a container that runs all its children."""
        return x


def _put(
    path: nn.Module, site: Site, branch: nn.Module, place: Literal["beside", "after"], grid: bool
) -> None:
    if grid and site.scope is not None:
        watch_scope(path, site.scope)
    _register(path, site.name, _Branch(branch, place, site.channel_axis, site if grid else None))


def _register(path: nn.Module, name: str, hook: _Branch) -> None:
    module = path.get_submodule(name)
    node: nn.Module = path
    for part in (_TREE, *name.split(".")):
        below = node._modules.get(part)
        if below is None:
            if hasattr(node, part):
                raise UnsupportedModelError(
                    f"the backbone has an attribute {part!r} already; rename it in the backbone, "
                    "so that nothing is overwritten."
                )
            below = AdapterTree()
            node.add_module(part, below)
        elif not isinstance(below, AdapterTree):
            raise UnsupportedModelError(
                f"the backbone has a module {part!r} already, under which this library keeps what "
                "it adds; rename it in the backbone."
            )
        node = below
    if "branch" in node._modules:
        raise UnsupportedModelError(
            f"there is a branch at {name!r} already; a place takes one. Put both into one module."
        )
    node.add_module("branch", hook.branch)
    module.register_forward_hook(hook)


def _hook_at(path: nn.Module, site: Site | str) -> tuple[int, _Branch]:
    branch = branch_at(path, site)
    name = site if isinstance(site, str) else site.name
    for key, hook in path.get_submodule(name)._forward_hooks.items():
        if isinstance(hook, _Branch) and hook.branch is branch:
            return key, hook
    raise UnsupportedModelError(f"the hook of the branch at {name!r} is gone; inject anew.")


class _Branch:
    """Call a branch on what goes into a module or comes out of it, and join the results.

    The branch works on the last axis: maps ``(B, C, H, W)`` are handed to it channels last.
    """

    def __init__(
        self,
        branch: nn.Module,
        place: Literal["beside", "after", "around"],
        channel_axis: int,
        on_map: Site | None = None,
    ) -> None:
        self.branch, self.place, self.channel_axis = branch, place, channel_axis
        self.on_map = on_map

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        # MViTv2's attention returns (tokens, size): only the tokens are adapted.
        stream = output[0] if isinstance(output, tuple) else output
        read = args[0] if self.place == "beside" else stream
        added = self._apply(read, args)
        joined = added if self.place == "around" else stream + added
        return (joined, *output[1:]) if isinstance(output, tuple) else joined

    def _apply(self, x: Tensor, args: tuple[Any, ...]) -> Tensor:
        x = to_channels_last(x, self.channel_axis)
        y: Tensor
        y = self.branch(x) if self.on_map is None else self.branch(x, grid_of(self.on_map, args))
        return from_channels_last(y, self.channel_axis)
