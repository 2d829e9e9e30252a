"""One module for each task, under any task name.

``nn.ModuleDict`` builds attribute and state-dict names out of its keys, so it refuses ``"a.b"``,
``"keys"`` or ``"training"``. :class:`TaskDict` percent-encodes just those.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView
from typing import Any
from urllib.parse import unquote

from torch import nn

from peft_dense.errors import UnknownNameError

__all__ = ["TaskDict"]

_RESERVED = frozenset(dir(nn.ModuleDict()))


class TaskDict(nn.ModuleDict):
    """Hold one module per task, keyed by any non-empty task name.

    What lies under a task's key serves that task only: counting per task, saving, adding and
    removing tasks rely on it.

    Inside, ``.`` is kept as ``%2E`` and ``%`` as ``%25``, and a name that ``nn.ModuleDict`` uses
    itself has its first character encoded (``keys`` as ``%6Beys``). All other names appear in
    state dicts as they are.

    Args:
        modules: A mapping, or pairs, of task names and modules.

    Raises:
        UnknownNameError: When asked for a task it doesn't hold, or given an empty name.

    Example:
        >>> tasks = TaskDict({"semseg": nn.Linear(2, 2), "depth.v2": nn.Linear(2, 2)})
        >>> list(tasks), "depth.v2" in tasks
        (['semseg', 'depth.v2'], True)
        >>> [name for name, _ in tasks.named_parameters()][2]
        'depth%2Ev2.weight'
    """

    def __getitem__(self, key: str) -> Any:
        """Give the module of task ``key``."""
        return self._modules[_stored(self, key)]

    def __setitem__(self, key: str, module: nn.Module) -> None:
        """Put ``module`` in place for task ``key``."""
        if not isinstance(key, str) or not key:
            raise UnknownNameError(f"a task's name is a non-empty string; got {key!r}. Rename it.")
        self.add_module(_encode(key), module)

    def __delitem__(self, key: str) -> None:
        """Remove task ``key`` and its module."""
        del self._modules[_stored(self, key)]

    def __contains__(self, key: object) -> bool:
        """Whether there is a task ``key``."""
        return isinstance(key, str) and _encode(key) in self._modules

    def __iter__(self) -> Iterator[str]:
        """Go through the task names in the order they were added."""
        return iter(self.keys())

    def keys(self) -> KeysView[str]:
        """Give the task names."""
        return {unquote(name): None for name in self._modules}.keys()

    def items(self) -> ItemsView[str, nn.Module]:
        """Give pairs of task names and modules."""
        return {unquote(name): module for name, module in self._modules.items()}.items()


# Functions, not methods: every attribute of the class is one more name it can't use for a task.
def _stored(tasks: TaskDict, name: str) -> str:
    if name not in tasks:
        raise UnknownNameError.of("task", name, tasks.keys())
    return _encode(name)


def _encode(name: str) -> str:
    encoded = name.replace("%", "%25").replace(".", "%2E")
    return f"%{ord(name[0]):02X}{encoded[1:]}" if name in _RESERVED else encoded
