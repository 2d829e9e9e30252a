"""Every file of this folder is imported, and registers its families."""

import importlib
import pkgutil

from peft_dense.backbones.families.base import Family, family_of, register_family

__all__ = ["Family", "family_of", "register_family"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
