"""Training on one process or many, that goes on where it was killed.

Needs ``pip install 'peft-dense[train]'``.
"""

from peft_dense.training.checkpoints import Checkpoints
from peft_dense.training.evaluation import evaluate, predict
from peft_dense.training.job import run_all
from peft_dense.training.options import (
    add_options,
    make_backbone,
    make_data,
    make_model,
    make_recipe,
)
from peft_dense.training.pictures import picture
from peft_dense.training.recipe import Recipe
from peft_dense.training.report import table
from peft_dense.training.trainer import Trainer

__all__ = [
    "Checkpoints",
    "Recipe",
    "Trainer",
    "add_options",
    "evaluate",
    "make_backbone",
    "make_data",
    "make_model",
    "make_recipe",
    "picture",
    "predict",
    "run_all",
    "table",
]
