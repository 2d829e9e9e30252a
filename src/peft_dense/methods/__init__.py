"""The methods, one file each, registered by name.

Every file of this folder is imported, so a new method is one new file.
"""

import importlib
import pkgutil

from peft_dense.methods.base import Method, method, methods, register

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["Method", "method", "methods", "register"]
