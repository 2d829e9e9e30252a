"""Heads: from the stages of a backbone to one map per task.

Every file of this folder is imported, so a new head is one new file.
"""

from importlib import import_module
from pkgutil import iter_modules

from peft_dense.heads.base import Head, head, heads, register
from peft_dense.heads.hrnet import HRNetHead
from peft_dense.heads.segformer import SegFormerHead

__all__ = ["HRNetHead", "Head", "SegFormerHead", "head", "heads", "register"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
