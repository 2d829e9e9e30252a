"""The methods, one file each, registered by name.

Every file of this folder is imported, so a new method is one new file.
"""

import importlib
import pkgutil
import sys
from types import ModuleType

from peft_dense.methods.base import Method, method, methods, register

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["Method", "method", "methods", "register"]


class _CallableModule(ModuleType):
    """This package, which ``peft_dense.methods()`` calls: so the function doesn't hide it."""

    def __call__(self) -> list[str]:
        """List the names of all registered methods."""
        return methods()


sys.modules[__name__].__class__ = _CallableModule
