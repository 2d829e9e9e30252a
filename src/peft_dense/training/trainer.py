"""One model, one data set, one recipe: from the first step to the results, through any kill."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from tqdm import tqdm

from peft_dense.data.labels import Item
from peft_dense.dense import DenseModel
from peft_dense.errors import CheckpointError, HyperparameterError, UnknownNameError
from peft_dense.tasks import Task
from peft_dense.training.averaging import Average
from peft_dense.training.batches import load_batches, seed_of
from peft_dense.training.checkpoints import Checkpoints, write_whole
from peft_dense.training.claim import RESULTS, look, mark_of
from peft_dense.training.evaluation import evaluate
from peft_dense.training.log import Log
from peft_dense.training.memory import reset_peak_memory
from peft_dense.training.optimizer import make_optimizer, set_rates
from peft_dense.training.pictures import picture
from peft_dense.training.processes import share_model, sum_over_processes
from peft_dense.training.recipe import Recipe
from peft_dense.training.report import costs, gain
from peft_dense.training.step import backward

__all__ = ["Result", "Trainer"]

Result = dict[str, Any]
"""What ``results.json`` holds: scores, counts, seconds, the recipe."""

_LOG_EVERY = 10


class Trainer:
    """Train a model and leave everything a person wants to keep in one folder.

    ``out`` gets log.csv and TensorBoard events, ``best/`` and ``last/`` (`DenseModel.save`:
    adapters and heads), pictures, results.json, and while it runs the newest states in
    ``states/``. Started again with the same arguments it goes on from the newest whole state, and
    on the CPU ends with the bits it would have had; a finished run just gives its results.

    Under `accelerate launch` or `torchrun` the processes share each batch; losses, gradients, batch
    norms and metrics are those of the whole batch (drop path draws in each process by itself). On
    how batches and their random numbers are drawn see `peft_dense.training.batches`.

    Args:
        model: The model, as it starts.
        tasks: Loss, metrics and colours by task.
        train: Items to train on, with ``tasks`` and ``transform`` as the sets of `peft_dense.data`.
        val: Items to score.
        recipe: How to train.
        out: The folder.
        label: What the run is called in results and progress bars.
        about: What else tells this run from others (backbone, data ...), as JSON values. A folder
            with another recipe or another ``about`` is refused.
        accelerator: Device and processes; by default what the environment says. Its mixed
            precision ``bf16`` counts as the recipe's; its ``fp16`` isn't supported.

    Raises:
        HyperparameterError: A batch has fewer images than processes times parts, or the launcher
            asks for another precision than bf16.
        UnknownNameError: ``tasks`` aren't the model's.
        UnsupportedModelError: Of several processes, a batch norm trains that they can't share.

    Example:
        ``Trainer(model, tasks, train, val, Recipe(epochs=10), "runs/mine").fit()``
    """

    def __init__(
        self,
        model: DenseModel,
        tasks: Mapping[str, Task],
        train: Any,
        val: Any,
        recipe: Recipe,
        out: str | Path,
        *,
        label: str = "run",
        about: Mapping[str, Any] | None = None,
        accelerator: Accelerator | None = None,
    ) -> None:
        self.accelerator = accelerator or Accelerator()
        precision = self.accelerator.mixed_precision
        if precision not in ("no", "bf16"):
            raise HyperparameterError(f"mixed precision {precision}; expected no or bf16.")
        if set(tasks) != set(model.tasks):
            raise UnknownNameError(
                f"tasks are {', '.join(tasks)}, the model's {', '.join(model.tasks)}; pass the "
                "same."
            )
        recipe = replace(recipe, bf16=recipe.bf16 or precision == "bf16")
        self.recipe, self.label, self.out = recipe, label, Path(out)
        self.tasks, self.train, self.val = dict(tasks), train, val
        self.model = model.to(self.accelerator.device)
        if recipe.checkpointing:
            self.model.encoder.set_grad_checkpointing()
        share_model(self.model)
        self.steps = recipe.steps_for(len(train))
        self.every = recipe.eval_every or math.ceil(self.steps / 10)
        self.save_every = recipe.save_every or min(self.every, 500)
        self.optimizer = make_optimizer(model, recipe)
        trained = [p for p in model.parameters() if p.requires_grad]
        self.average = Average(trained, recipe.ema) if recipe.ema else None
        self.states = Checkpoints(self.out / "states")
        self.step, self.seconds = 0, 0.0
        self.best, self.first = -math.inf, dict[str, float]()
        self.skipped: set[str] = set()
        sizes = {"images": [len(train), len(val)]}
        self.mark = mark_of(recipe, {**sizes, **(about or {})})
        smallest = min(recipe.batch, len(train)) // self.accelerator.num_processes
        if smallest < recipe.accumulate:
            raise HyperparameterError(
                f"{smallest} images a process and step can't be computed in "
                f"{recipe.accumulate} parts; use a larger batch, or fewer parts or processes."
            )

    # ------------------------------------------------------------------ the run

    def fit(self) -> Result:
        """Train to the end, from wherever the folder is; give what results.json holds.

        Raises:
            CheckpointError: The folder holds another run, or can't be written.
            DataError: A file can't be read, without ``skip_bad``.
            HyperparameterError: The loss isn't finite.
        """
        if done := self._open():
            return done
        main = self.accelerator.is_main_process
        reset_peak_memory(self.accelerator.device)
        log = Log(self.out, self.step) if main else None
        bar = tqdm(
            desc=f"{self.label:<16}",
            initial=self.step,
            total=self.steps,
            unit="step",
            mininterval=1.0,
            disable=not main,
        )
        scores: Mapping[str, Mapping[str, float]] = {}
        for batch in load_batches(self.train, self.recipe, self.step, self.steps, self.accelerator):
            start = time.perf_counter()
            losses = self._train(batch)
            self.seconds += time.perf_counter() - start
            self.step += 1
            bar.update()
            last = self.step == self.steps
            if log and (self.step % _LOG_EVERY == 0 or last):
                bar.set_postfix(loss=f"{losses['all']['loss']:.3f}", refresh=False)
                log(self.step, "train", losses)
            if self.step % self.every == 0 or last:
                scores = self._score(log)
            if self.step % self.save_every == 0 and not last and main:
                self.states.save(self.step, self._state())
        bar.close()
        if log:
            log.close()
        return self._finish(scores)

    def _train(self, batch: Item) -> dict[str, dict[str, float]]:
        """Take one step; give each task's loss over the whole batch, and all of them weighted."""
        recipe = self.recipe
        skipped = {item["skipped"] for item in batch["meta"] if "skipped" in item}
        for reason in skipped - self.skipped:
            tqdm.write(f"skipped: {reason}")
        self.skipped |= skipped
        torch.manual_seed(seed_of(recipe.seed, self.step, self.accelerator.process_index, 0))
        self.model.train()
        self.optimizer.zero_grad()
        set_rates(self.optimizer, recipe.rate(self.step, self.steps))
        shares = backward(self.model, self.tasks, batch, recipe)
        values = sum_over_processes(torch.stack(list(shares.values()))).tolist()
        losses = dict(zip(shares, values, strict=True))
        total = sum(recipe.weight(name) * value for name, value in losses.items())
        if not math.isfinite(total):  # before it reaches a weight
            raise HyperparameterError(
                f"the loss is {total} at step {self.step + 1} ({losses}). Lower lr (now "
                f"{recipe.lr:g}) or train without bf16."
            )
        self.optimizer.step()
        if self.average:
            self.average.update(self.step)
        rate = self.optimizer.param_groups[0]["lr"]
        return {**{k: {"loss": v} for k, v in losses.items()}, "all": {"loss": total, "lr": rate}}

    def _score(self, log: Log | None) -> dict[str, dict[str, float]]:
        """Score the validation set; keep the model in ``best/`` if it is the best so far."""
        with self.average.applied() if self.average else nullcontext():
            scores = evaluate(
                self.model,
                self.tasks,
                self.val,
                batch=max(1, self.recipe.batch // self.accelerator.num_processes),
                workers=self.recipe.workers,
                skip_bad=self.recipe.skip_bad,
                bf16=self.recipe.bf16,
                accelerator=self.accelerator,
                skipped=self.skipped,
            )
            primary = self._primary(scores)
            self.first = self.first or primary
            rise = gain(primary, self.first, self.tasks)
            rise = self.step if rise is None else rise  # nothing to go by: the latest is best
            if rise > self.best:
                self.best = rise
                self._keep("best")
            if log:
                log(self.step, "val", scores)
            if log and self.recipe.pictures:
                sheet = picture(
                    self.model,
                    self.tasks,
                    self.val,
                    self.recipe.pictures,
                    bf16=self.recipe.bf16,
                    skip_bad=self.recipe.skip_bad,
                )
                sheet.save(self.out / "grid.png")
                log.picture(self.step, sheet)
        self.skipped = set(gather_object(sorted(self.skipped)))
        return scores

    # ------------------------------------------------------------------ what is kept

    def _open(self) -> Result | None:
        """Go to the newest whole state; give the results of a finished run.

        The first process looks for all: the others may have no view of the folder.
        """
        found: list[Any] = [None, None, None]
        if self.accelerator.is_main_process:
            try:
                found = [None, *look(self.out, self.mark, self.states)]
            except CheckpointError as error:
                found[0] = str(error)
        broadcast_object_list(found)
        refusal, done, state = found
        if refusal:
            raise CheckpointError(refusal)
        if state:
            self._restore(*state)
        return dict(done) if done else None

    def _state(self) -> dict[str, Any]:
        return {
            "model": self.model.trainable_state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.values if self.average else [],
            "seconds": self.seconds,
            "best": self.best,
            "first": self.first,
            "skipped": sorted(self.skipped),
        }

    def _restore(self, step: int, state: Mapping[str, Any]) -> None:
        self.step = step
        self.model.load_trainable_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average:
            for value, saved in zip(self.average.values, state["average"], strict=True):
                value.copy_(saved)
        self.seconds, self.best = state["seconds"], state["best"]
        self.first, self.skipped = state["first"], set(state["skipped"])

    def _keep(self, name: str) -> None:
        if self.accelerator.is_main_process:
            self.model.save(self.out / name)

    def _finish(self, scores: Mapping[str, Mapping[str, float]]) -> Result:
        with self.average.applied() if self.average else nullcontext():
            self._keep("last")
        result: Result = {
            "label": self.label,
            "method": self.mark["about"].get("method", self.label),
            "primary": self._primary(scores),
            "scores": scores,
            "steps": self.steps,
            "seed": self.recipe.seed,
            "skipped": sorted(self.skipped),
            **costs(self.model, self.seconds, self.accelerator),
            **self.mark,
        }
        if self.accelerator.is_main_process:
            write_whole(self.out / RESULTS, json.dumps(result, indent=1).encode())
            self.states.clear()
        self.accelerator.wait_for_everyone()
        return result

    def _primary(self, scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        return {name: scores[name][task.metric] for name, task in self.tasks.items()}
