"""Hooks that note what goes in and out of every module during a forward."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor, nn

__all__ = ["Call", "Calls", "Shape", "Watch"]

Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """One call of a module.

    ``arguments`` has one entry per positional argument: the shape of a tensor, a pair of whole
    numbers, or None; ``pairs`` are the indices of those that aren't tensors. ``outputs`` is the
    shape of the output, the first of several; ``order`` counts the calls as they ended.
    """

    arguments: tuple[Shape | None, ...]
    pairs: tuple[int, ...]
    outputs: Shape | None
    order: int

    @property
    def inputs(self) -> Shape | None:
        """Shape of the first positional argument, where it is a tensor."""
        return self.arguments[0] if self.arguments and 0 not in self.pairs else None


Calls: TypeAlias = Mapping[str, "list[Call]"]
"""The calls of one forward by the modules' names, ``""`` for the model, in the order they ended."""


class Watch:
    """Watch a model's forwards, one record each.

    Args:
        model: The model, hooked until :meth:`close`.
    """

    def __init__(self, model: nn.Module) -> None:
        self._calls: dict[str, list[Call]] | None = None
        self._count = 0
        self._handles = [
            module.register_forward_hook(self._note(name)) for name, module in model.named_modules()
        ]

    @contextmanager
    def record(self, image: Tensor) -> Iterator[dict[str, list[Call]]]:
        """Record the calls that happen inside; the model's own argument is ``image``."""
        calls: dict[str, list[Call]] = {}
        self._calls, self._count = calls, 0
        try:
            yield calls
        finally:
            self._calls = None
            # A tap may run the model's parts without the model itself.
            calls[""] = [Call((tuple(image.shape),), (), None, self._count + 1)]

    def close(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()

    def _note(self, name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if self._calls is None:
                return
            stream = output[0] if isinstance(output, (tuple, list)) and output else output
            self._count += 1
            call = Call(
                tuple(map(_shape, args)),
                tuple(i for i, arg in enumerate(args) if not isinstance(arg, Tensor)),
                tuple(stream.shape) if isinstance(stream, Tensor) else None,
                self._count,
            )
            self._calls.setdefault(name, []).append(call)

        return hook


def _shape(argument: object) -> Shape | None:
    if isinstance(argument, Tensor):
        return tuple(argument.shape)
    if isinstance(argument, (tuple, list)) and len(argument) == 2:
        first, second = argument
        if isinstance(first, int) and isinstance(second, int):
            return first, second
    return None
