"""Height and width of the map on which a site's tokens lie, for branches that ask for them.

Tokens (B, N, C) don't tell. A module around the site sees the map, or is handed its size, and the
probe notes which (``Site.scope``). Hooks there put the size on a stack while that module runs, in
that thread only, and the site's hook reads it. A checkpointed block that is computed again enters
its modules again, so the size is there again.
"""

from __future__ import annotations

import threading
from typing import Any

from torch import Tensor, nn

from peft_dense.backbones.info import MapScope, Site
from peft_dense.errors import UnsupportedModelError

__all__ = ["WholeImage", "grid_of", "watch_scope"]


class _Sizes(threading.local):
    """Sizes of the maps that the modules now running in this thread see, outermost first."""

    def __init__(self) -> None:
        self.stack: list[tuple[str, tuple[int, int]]] = []


_SIZES = _Sizes()


def watch_scope(path: nn.Module, scope: MapScope) -> None:
    """Hook the module of ``scope`` so that the sites inside it can read its map's size."""
    module, key = path.get_submodule(scope.module), _key(scope)
    if not any(isinstance(h, _Enter) and h.key == key for h in module._forward_pre_hooks.values()):
        module.register_forward_pre_hook(_Enter(scope))
        module.register_forward_hook(_Leave(scope), always_call=True)


class WholeImage:
    """Give the image's size, during a pass, to sites that read theirs off the whole image.

    A pass may reach the stages by another method than the path's ``forward``, which no hook sees.

    Args:
        path: The path that runs.
        image: Its input.

    Shape:
        ``image``: ``(B, C, H, W)``

    Example:
        >>> import torch
        >>> with WholeImage(path := nn.Conv2d(3, 8, 4, 4), image := torch.zeros(1, 3, 16, 16)):
        ...     features = path(image)
    """

    def __init__(self, path: nn.Module, image: Tensor) -> None:
        self.hooks = [h for h in path._forward_pre_hooks.values() if isinstance(h, _Enter)]
        self.path, self.image = path, image

    def __enter__(self) -> None:
        """Put the image's size on the stack."""
        for hook in self.hooks:
            hook(self.path, (self.image,))

    def __exit__(self, *error: object) -> None:
        """Take it off."""
        for hook in reversed(self.hooks):
            _leave(hook.key)


def grid_of(site: Site, args: tuple[Any, ...]) -> tuple[int, int]:
    """Height and width of the site's map, for a call of its module with ``args``.

    Raises:
        UnsupportedModelError: Nothing around the site that sees the map is running.
    """
    scope = site.scope
    if scope is None:
        raise UnsupportedModelError(
            f"the tokens of {site.name!r} form no map in raster order (windows, mask units), so "
            "a branch that works on maps can't go there. Choose other sites."
        )
    if scope.module == site.name:
        height, width = _size(scope, args)
    else:
        key = _key(scope)
        sizes = [size for name, size in _SIZES.stack if name == key]
        if not sizes:
            raise UnsupportedModelError(
                f"the branch at {site.name!r} needs the height and width that "
                f"{scope.module or 'the whole model'!r} sees, and that isn't running. Where it is "
                "the whole model, turn gradient checkpointing off, and call the adapted backbone "
                "rather than parts of it."
            )
        height, width = sizes[-1]
    return -(-height // scope.stride), -(-width // scope.stride)


def _key(scope: MapScope) -> str:
    return f"{scope.module}[{scope.argument}]"


def _size(scope: MapScope, args: tuple[Any, ...]) -> tuple[int, int]:
    seen = args[scope.argument]
    if scope.axes is None:
        return seen[0], seen[1]
    return seen.shape[scope.axes[0]], seen.shape[scope.axes[1]]


class _Enter:
    """Before a module runs: put the size of its map on the stack."""

    def __init__(self, scope: MapScope) -> None:
        self.scope, self.key = scope, _key(scope)

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        _SIZES.stack.append((self.key, _size(self.scope, args)))


class _Leave:
    """After a module ran, or failed: take the size off again."""

    def __init__(self, scope: MapScope) -> None:
        self.key = _key(scope)

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        _leave(self.key)


def _leave(key: str) -> None:
    stack = _SIZES.stack
    while stack and stack.pop()[0] != key:
        pass
