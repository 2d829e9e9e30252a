"""Scores of a model over a data set, on one process or many."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accelerate import Accelerator
from torch.nn import functional as F
from tqdm import tqdm

from peft_dense.data import on_device
from peft_dense.dense import DenseModel
from peft_dense.predicting import raw_maps
from peft_dense.tasks import Task
from peft_dense.tasks.meter import Meter
from peft_dense.training.batches import Draws, load

__all__ = ["evaluate"]


def evaluate(
    model: DenseModel,
    tasks: Mapping[str, Task],
    data: Any,
    *,
    batch: int = 12,
    workers: int = 0,
    skip_bad: bool = False,
    bf16: bool = False,
    accelerator: Accelerator | None = None,
    meters: Mapping[str, Meter] | None = None,
    skipped: set[str] | None = None,
    progress: bool = False,
) -> dict[str, dict[str, float]]:
    """Score a model on a data set, of which each process takes its share of images.

    A prediction of another size than its label is interpolated to the label's size, so that labels
    may keep their native size (with ``batch=1``, where sizes differ).

    Args:
        model: The model.
        tasks: What to score, by name.
        data: Items with an image and one label per task.
        batch: Images at a time in each process.
        workers: Processes that load data.
        skip_bad: Report what can't be read into ``skipped``, and go on.
        bf16: Whether to autocast to bfloat16.
        accelerator: Knows this process's share of the images; by default a new one.
        meters: In place of each task's own.
        skipped: Takes the reasons why items were skipped.
        progress: Whether to show a bar.

    Returns:
        Metrics by task, the same in every process.

    Raises:
        DataError: An item can't be read, or the labels' sizes differ within a batch.

    Example:
        >>> import timm
        >>> from peft_dense import DenseModel, inject
        >>> encoder = inject(timm.create_model("pvt_v2_b0"), "vmt_lite", tasks=["depth"])
        >>> model = DenseModel(encoder, {"depth": 1})
        >>> from peft_dense.data import Scenes
        >>> from peft_dense.tasks import task
        >>> scenes = Scenes(2, size=(64, 64), tasks=["depth"])
        >>> sorted(evaluate(model, {"depth": task("depth")}, scenes, batch=2))
        ['depth']
    """
    accelerator = accelerator or Accelerator()
    meters = meters or {name: task.meter() for name, task in tasks.items()}
    names = tuple(meters)
    share = range(accelerator.process_index, len(data), accelerator.num_processes)
    batches = [[(0, index) for index in share[i : i + batch]] for i in range(0, len(share), batch)]
    device = next(model.parameters()).device
    loader = load(Draws(data, 0, skip_bad), batches, workers, device)
    shown = not progress or share.start > 0
    for examples in tqdm(loader, "scoring", len(batches), disable=shown, leave=False):
        if skipped is not None:
            skipped |= {about["skipped"] for about in examples["meta"] if "skipped" in about}
        examples = on_device(examples, device)
        for name, prediction in raw_maps(model, examples["image"], names, bf16=bf16).items():
            target = examples[name]
            size = target.shape[-2:]
            if prediction.shape[-2:] != size:
                prediction = F.interpolate(prediction, size, mode="bilinear", align_corners=False)
            meters[name].update(prediction, target)
    return {name: meter.compute() for name, meter in meters.items()}
