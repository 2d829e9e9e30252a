"""Dense tasks: each one's predictions, loss, metric and pictures.

Every file of this folder is imported, so a new task is one new file.
"""

from importlib import import_module
from pkgutil import iter_modules

from peft_dense.tasks.base import Task
from peft_dense.tasks.boundaries import BoundaryMeter
from peft_dense.tasks.delta import delta_m
from peft_dense.tasks.kinds import IGNORE
from peft_dense.tasks.meter import Meter
from peft_dense.tasks.registry import register, task, tasks
from peft_dense.tasks.scores import Scores, published, references

__all__ = [
    "IGNORE",
    "BoundaryMeter",
    "Meter",
    "Scores",
    "Task",
    "delta_m",
    "published",
    "references",
    "register",
    "task",
    "tasks",
]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
