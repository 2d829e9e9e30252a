"""A trained model, read from its run's folder, without the data it was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from peft_dense.dense import DenseModel
from peft_dense.errors import CheckpointError, UnknownNameError
from peft_dense.predicting import Prediction, predict
from peft_dense.tasks import Task, task
from peft_dense.training.building import build_backbone
from peft_dense.training.rescoring import setup_of
from peft_dense.training.run_folder import read_identity
from peft_dense.training.setup import Setup

__all__ = ["TrainedRun", "describe_tasks", "load_run"]

_MODELS = ("best", "last")


@dataclass(frozen=True)
class TrainedRun:
    """Hold a run's model and what is needed to predict with it.

    Args:
        folder: The run's.
        model: With its backbone's weights.
        tasks: By name, with their classes' names.
        size: Height and width that images were trained and scored at.
        white: What white is in images of 16 bits, as in the data of training.
        bf16: Whether it was scored in bfloat16.

    Example:
        >>> import timm
        >>> from peft_dense import inject
        >>> encoder = inject(timm.create_model("pvt_v2_b0"), "vmt_lite", tasks=["sal"])
        >>> model = DenseModel(encoder, {"sal": 1}, width=16)
        >>> run = TrainedRun(Path(), model, {"sal": task("sal")}, (64, 64), 255.0, bf16=False)
        >>> [found.map("sal").size for found in run.predict([torch.rand(3, 48, 80)])]
        [(80, 48)]
    """

    folder: Path
    model: DenseModel
    tasks: dict[str, Task]
    size: tuple[int, int]
    white: float
    bf16: bool

    def predict(self, images: Any, **options: Any) -> Iterator[Prediction]:
        """Predict images just as validation did: `peft_dense.predict` with this run's values.

        Args:
            images: As for `peft_dense.predict`.
            options: Other options of `peft_dense.predict`. With ``window`` images keep their own
                size, unless ``size`` is given.

        Raises:
            PeftDenseError: As `peft_dense.predict`.
        """
        chosen = options.pop("tasks", None)
        if not isinstance(chosen, Mapping):
            names = self.model.encoder.check_tasks(chosen)
            chosen = {name: self.tasks[name] for name in names}
        size = None if options.get("window") is not None else self.size
        own: dict[str, Any] = {"size": size, "white": self.white, "bf16": self.bf16}
        return predict(self.model, images, tasks=chosen, **{**own, **options})


def load_run(
    run: str | Path,
    which: str = "best",
    *,
    weights: str | Path | None = None,
    device: torch.device | str = "cpu",
) -> TrainedRun:
    """Read a run's model, with its backbone's weights from where training had them.

    Args:
        run: The folder of one run of a method.
        which: Which of its models: ``best`` or ``last``.
        weights: The backbone's weights, if they have moved.
        device: Where the model goes.

    Raises:
        CheckpointError: It isn't a run, has kept no such model yet, or its backbone's weights
            aren't there.
        UnknownNameError: ``which`` is neither ``best`` nor ``last``.

    Example:
        >>> import tempfile
        >>> from peft_dense.training import Recipe, run_all
        >>> with tempfile.TemporaryDirectory() as out:
        ...     data = {"tasks": "sal", "scenes": (4, 2), "image_size": (64, 64)}
        ...     setup = Setup(method="vmt_lite", out=Path(out), cpu=True, **data)
        ...     results = run_all(setup, Recipe(steps=2, batch=2))
        ...     run = load_run(Path(out, "vmt_lite"))
        <BLANKLINE>
        method    sal mIoU↑  Delta %  encoder  all params ...
        >>> run.size, list(run.tasks)
        ((64, 64), ['sal'])
    """
    run = Path(run)
    if which not in _MODELS:
        raise UnknownNameError.of("model of a run", which, _MODELS)
    _check_folder(run, which)
    setup, recipe = setup_of(run)
    known = _read_tasks(run)
    setup = _with_weights(run, setup, weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)  # of a backbone at random weights
        model = DenseModel.load(run / which, build_backbone(setup)).to(device).eval()
    return TrainedRun(
        folder=run,
        model=model,
        tasks={name: known[0][name] for name in model.tasks},
        size=(setup.image_size[0], setup.image_size[1]),
        white=known[1],
        bf16=recipe.bf16,
    )


def _check_folder(run: Path, which: str) -> None:
    """Check that it is a run's folder, and holds the model."""
    if not run.is_dir():
        raise CheckpointError(
            f"no folder {run}; give the folder of one run, such as the OUT/METHOD that "
            "peft-dense train left."
        )
    if not (run / "run.json").is_file():
        runs = sorted(path.parent.name for path in run.glob("*/run.json"))
        if runs:
            raise CheckpointError(
                f"{run} holds the runs {', '.join(runs)}; give one of them, {run / runs[0]}."
            )
    read_identity(run)
    if not (run / which).is_dir():
        there = [name for name in _MODELS if (run / name).is_dir()]
        remedy = f"take {there[0]} (--which)" if there else "let it train until it was scored once"
        raise CheckpointError(f"{run} has no {which}/ yet; {remedy}.")


def _with_weights(run: Path, setup: Setup, weights: str | Path | None) -> Setup:
    if weights is not None:
        if not Path(weights).is_file():
            raise CheckpointError(f"no file {weights} with weights; pass a safetensors file.")
        return replace(setup, weights=Path(weights), pretrained=False)
    if setup.weights is not None and not setup.weights.is_file():
        raise CheckpointError(
            f"{run} was trained on the backbone's weights in {setup.weights}, and there is no such "
            "file here; pass --weights FILE (weights=), where they are now."
        )
    return setup


# ---------------------------------------------------------------------- what run.json says


def describe_tasks(tasks: Mapping[str, Task], data: Any) -> dict[str, Any]:
    """Describe what predicting needs and only the data know, as JSON values.

    Args:
        tasks: By name.
        data: The data set that is scored.
    """
    described = {name: {"kind": each.kind, **asdict(each)} for name, each in tasks.items()}
    return {"tasks": described, "white": float(getattr(data, "white", 65535))}


def _read_tasks(run: Path) -> tuple[dict[str, Task], float]:
    """Make the tasks that `describe_tasks` described, and give what white is.

    Raises:
        CheckpointError: The run is of a version that didn't write it.
    """
    about = read_identity(run).get("predicting")
    if about is None:
        raise CheckpointError(
            f"{run / 'run.json'} doesn't say what the tasks are; it is of an earlier version. "
            "Start the training's command again: it writes that anew, and trains no further where "
            "it was finished."
        )
    made = {}
    for name, values in about["tasks"].items():
        kind, options = values["kind"], dict(values)
        known = {each.name for each in fields(type(task(name, kind, channels=values["channels"])))}
        options = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in options.items()
            if key in known and key != "name"
        }
        made[name] = task(name, kind, **options)
    return made, about["white"]
