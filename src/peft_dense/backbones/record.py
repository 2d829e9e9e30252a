"""What a pass leaves behind: a record of the tensors that a method asked for.

No module keeps what belongs to one call. Hooks sit at the places that a method names
(:class:`Tap`); a call opens a record, the hooks fill it, the method reads it, and it ends with the
call. The record lies in a thread's own storage, so threads that share a model don't meet. Where no
record is open (a path called by itself, the recomputation of a checkpointed block) the hooks do
nothing.
"""

from __future__ import annotations

import threading
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from peft_dense.errors import UnsupportedModelError

__all__ = ["Tap", "Recording", "watch"]


class Tap(NamedTuple):
    """A place on a path: what goes into a module, or what comes out of it.

    Args:
        module: Name of the module in the path, such as a site's name, a block's, or
            :func:`~peft_dense.backbones.branch_name` of a site for what was put there.
        of: ``"input"``, the first argument, or ``"output"``, of a tuple the first entry.

    Example:
        >>> Tap("layers.0.blocks.1", "input")
        Tap(module='layers.0.blocks.1', of='input')
    """

    module: str
    of: Literal["input", "output"] = "output"


class _Records(threading.local):
    """The record that is open in this thread, and whether its call wants gradients."""

    def __init__(self) -> None:
        # On the class they would be set only at the first pass, and a compiler would trace again.
        self.taken: dict[Tap, Tensor] | None = None
        self.grad = False


_RECORDS = _Records()


class Recording:
    """Open a record for one pass; of several, the innermost one is filled.

    Example:
        >>> net = nn.Linear(2, 3)
        >>> watch(net, Tap(""))
        >>> with Recording() as record:
        ...     y = net(torch.zeros(1, 2))
        >>> record[Tap("")] is y
        True
    """

    def __enter__(self) -> dict[Tap, Tensor]:
        """Give the dict that the taps fill."""
        self._outer = (_RECORDS.taken, _RECORDS.grad)
        taken: dict[Tap, Tensor] = {}
        _RECORDS.taken, _RECORDS.grad = taken, torch.is_grad_enabled()
        return taken

    def __exit__(self, *error: object) -> None:
        """Close the record, whatever happened."""
        _RECORDS.taken, _RECORDS.grad = self._outer


def watch(path: nn.Module, tap: Tap) -> None:
    """Hook ``path`` so that an open record gets the tensor at ``tap``."""
    module = path.get_submodule(tap.module)
    if tap.of == "input":
        module.register_forward_pre_hook(_TakeInput(tap))
    else:
        module.register_forward_hook(_TakeOutput(tap))


class _TakeInput:
    """Put a module's first argument into the open record."""

    def __init__(self, tap: Tap) -> None:
        self.tap = tap

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        _take(self.tap, args[0])


class _TakeOutput:
    """Put a module's output into the open record."""

    def __init__(self, tap: Tap) -> None:
        self.tap = tap

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        _take(self.tap, output[0] if isinstance(output, tuple) else output)


def _take(tap: Tap, tensor: Tensor) -> None:
    taken = _RECORDS.taken
    if taken is None:
        return
    if _RECORDS.grad and not torch.is_grad_enabled():
        raise UnsupportedModelError(
            f"{tap.module!r} ran without gradients inside a call that wants them, so what it "
            "computes for the tasks would lose its gradient. That is reentrant checkpointing, or "
            "a no_grad block in the backbone's forward: checkpoint with use_reentrant=False (as "
            "set_grad_checkpointing does), or call the model under torch.no_grad()."
        )
    taken[tap] = tensor
