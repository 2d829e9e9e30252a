"""Training on one process or many, which resumes where it was killed.

Needs ``pip install 'peft-dense[train]'``.
"""

from peft_dense.errors import MissingPackageError

try:
    import accelerate as _accelerate  # noqa: F401
    import tensorboard as _tensorboard  # noqa: F401
    import tqdm as _tqdm  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingPackageError.of("training", error.name, "train") from error

from peft_dense.predicting import raw_maps as predict
from peft_dense.training.best import quality
from peft_dense.training.building import make_backbone, make_data, make_model
from peft_dense.training.checkpoints import Checkpoints
from peft_dense.training.evaluation import evaluate
from peft_dense.training.options import add_options, read_options
from peft_dense.training.pictures import picture
from peft_dense.training.recipe import Recipe
from peft_dense.training.report import table
from peft_dense.training.runs import run_all
from peft_dense.training.setup import Setup
from peft_dense.training.stopping import Stopped
from peft_dense.training.trained import TrainedRun, load_run
from peft_dense.training.trainer import Trainer

__all__ = [
    "Checkpoints",
    "Recipe",
    "Setup",
    "Stopped",
    "TrainedRun",
    "Trainer",
    "add_options",
    "evaluate",
    "load_run",
    "make_backbone",
    "make_data",
    "make_model",
    "picture",
    "predict",
    "quality",
    "read_options",
    "run_all",
    "table",
]
