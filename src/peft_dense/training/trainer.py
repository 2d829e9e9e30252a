"""The training of one model on one data set by one recipe, which survives any kill."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from signal import Signals
from typing import Any, NoReturn

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from tqdm import tqdm

from peft_dense.data import inspect_labels
from peft_dense.data.labels import Item
from peft_dense.dense import DenseModel
from peft_dense.errors import DataError, UnknownNameError
from peft_dense.tasks import Task
from peft_dense.training.batches import load_batches
from peft_dense.training.best import quality
from peft_dense.training.checkpoints import Checkpoints, write_whole
from peft_dense.training.evaluation import evaluate
from peft_dense.training.folder_lock import FolderLock
from peft_dense.training.launcher import check_launcher, make_accelerator
from peft_dense.training.learner import Learner
from peft_dense.training.log import Log
from peft_dense.training.memory import reset_peak_memory
from peft_dense.training.pictures import picture
from peft_dense.training.progress import Progress, Speed
from peft_dense.training.recipe import Recipe
from peft_dense.training.report import costs, in_the_bar, score_line
from peft_dense.training.run_folder import RESULTS, identify, open_on_all
from peft_dense.training.step import rounded_products
from peft_dense.training.stopping import SIGNALS, SignalHeard, SignalListener, Stopped
from peft_dense.training.trained import describe_tasks

__all__ = ["Result", "Trainer"]

Result = dict[str, Any]
"""What ``results.json`` holds: scores, counts, seconds, the recipe."""

Metrics = dict[str, dict[str, float]]
"""Metrics by task."""

_LOG_EVERY = 10


class Trainer:
    """Train a model, with all that it leaves in one folder.

    ``out`` gets log.csv and TensorBoard events, ``best/`` and ``last/`` (`DenseModel.save`:
    adapters and heads), pictures, results.json, and during the run the newest states in
    ``states/``. Started again with the same arguments, it goes on from the newest whole state, and
    on the CPU ends with the bits it would have had; a finished run just gives its results, and the
    model its weights.

    ``best/`` is the best by the rule of `peft_dense.training.best`. After `fit` the model is that
    of ``last/``, the last one scored: with ``recipe.ema`` the averaged one.

    Ctrl-C and SIGTERM end a run after its current step: a state is saved, one line says how to go
    on, and `Stopped` ends the script with exit code 130 or 143. Of several processes, one that gets
    the signal is enough.

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
        label: Name of the run in results and progress bars.
        about: What else tells this run from others (backbone, data ...), as JSON values. A folder
            with another recipe or another ``about`` is refused.
        restart: Drop the run that the folder holds, if it holds one, and begin anew.
        accelerator: Device and processes; by default what the environment says. Its mixed
            precision ``bf16`` counts as the recipe's; its ``fp16`` isn't supported.

    Raises:
        HyperparameterError: A batch has fewer images than processes times parts, or the launcher
            asks for what isn't supported, such as FSDP or fp16.
        UnknownNameError: ``tasks`` aren't the model's.
        UnsupportedModelError: With several processes, a batch norm trains that they can't share.

    Example:
        >>> import tempfile, timm
        >>> from peft_dense import inject
        >>> from peft_dense.data import Scenes
        >>> from peft_dense.tasks import task
        >>> encoder = inject(timm.create_model("pvt_v2_b0"), "vmt_lite", tasks=["sal"])
        >>> model, tasks = DenseModel(encoder, {"sal": 1}, width=16), {"sal": task("sal")}
        >>> train, val = (Scenes(4, (64, 64), ["sal"], seed=seed) for seed in (0, 1))
        >>> with tempfile.TemporaryDirectory() as out:
        ...     result = Trainer(model, tasks, train, val, Recipe(steps=2, batch=2), out).fit()
        >>> result["steps"], list(result["scores"])
        (2, ['sal'])
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
        restart: bool = False,
        accelerator: Accelerator | None = None,
    ) -> None:
        self.accelerator = accelerator or make_accelerator()
        check_launcher(self.accelerator)
        if set(tasks) != set(model.tasks):
            raise UnknownNameError(
                f"tasks are {', '.join(tasks)}, the model's {', '.join(model.tasks)}; pass the "
                "same."
            )
        bf16 = recipe.bf16 or self.accelerator.mixed_precision == "bf16"
        self.recipe = recipe = replace(recipe, bf16=bf16)
        self.label, self.out, self.restart = label, Path(out), restart
        self.tasks, self.train, self.val = dict(tasks), train, val
        self.model = model.to(self.accelerator.device)
        self.steps = recipe.steps_for(len(train))
        self.every = recipe.eval_every or math.ceil(self.steps / 10)
        self.save_every = recipe.save_every or min(self.every, 500)
        process = self.accelerator.process_index
        self.learner = Learner(self.model, self.tasks, recipe, self.steps, process)
        self.states = Checkpoints(self.out / "states")
        self.progress = Progress()
        sizes = {"images": [len(train), len(val)]}
        self.identity = identify(recipe, {**sizes, **(about or {})})
        self.identity["predicting"] = describe_tasks(self.tasks, val)
        self.batch = min(recipe.batch, len(train))
        recipe.check_parts(len(train), self.accelerator.num_processes)

    # ------------------------------------------------------------------ the run

    def fit(self) -> Result:
        """Train to the end, from the folder's newest state; give what results.json holds.

        Raises:
            CheckpointError: The folder holds another run, can't be written, or another process
                trains in it.
            DataError: A file can't be read, without ``skip_bad``.
            HyperparameterError: The loss isn't finite.
            Stopped: A signal came; the state is kept.
        """
        with FolderLock(self.out) as lock:
            return self._open(lock) or self._fit()

    def _fit(self) -> Result:
        self._look_at_labels()
        main, now = self.accelerator.is_main_process, self.progress
        reset_peak_memory(self.accelerator.device)
        with (
            SignalListener() as signals,
            Log(self.out, now.step) if main else nullcontext() as log,
            tqdm(
                desc=f"{self.label:<16}",
                initial=now.step,
                total=self.steps,
                unit="step",
                mininterval=1.0,
                disable=not main,
            ) as bar,
            rounded_products(self.recipe.tf32),
        ):
            speed = Speed(now, self.batch)
            scores = self._score(log, signals) if self._is_due() else {}
            batches = load_batches(self.train, self.recipe, now.step, self.steps, self.accelerator)
            for batch in now.waiting_for(batches):
                start = time.perf_counter()
                metrics, signal = self._learn(batch, signals)
                now.seconds += time.perf_counter() - start
                now.step += 1
                bar.update()
                last = now.step == self.steps
                if log and (now.step % _LOG_EVERY == 0 or last):
                    metrics["all"] |= speed.lap()
                    bar.set_postfix_str(in_the_bar(metrics["all"]), refresh=False)
                    log(now.step, "train", metrics)
                if signal and not last:
                    self._stop(signal)
                if self._is_due():
                    scores = self._score(log, signals)
                if now.step % self.save_every == 0 and not last and main:
                    self.states.save(now.step, self._state())
            result = self._finish(scores)
            if signal := max(gather_object([signals.heard])):
                self._say(f"{self.label}: {Signals(signal).name} came; this run is finished.")
                raise Stopped(signal)
        return result

    def _look_at_labels(self) -> None:
        """Before step 1, refuse labels that nothing can be learned from, and report odd ones."""
        if self.progress.step:
            return
        found: list[Any] = [inspect_labels(self.train) if self.accelerator.is_main_process else []]
        broadcast_object_list(found)
        for finding in found[0]:
            if finding.what == "unreadable" and self.recipe.skip_bad:
                continue
            if finding.serious:
                raise DataError(str(finding))
            self._say(f"note: {finding}")

    def _learn(self, batch: Item, signals: SignalListener) -> tuple[Metrics, int]:
        """Take one step; give its losses, and the number of a signal any process heard, or 0."""
        skipped = {item["skipped"] for item in batch["meta"] if "skipped" in item}
        for reason in skipped - self.progress.skipped:
            self._say(f"skipped: {reason}", everywhere=True)
        self.progress.skipped |= skipped
        votes = [float(signals.heard == number) for number in SIGNALS]
        metrics, votes = self.learner.learn(batch, self.progress.step, votes)
        if self.accelerator.num_processes == 1:
            return metrics, signals.heard  # also if it came after the votes
        return metrics, next((n for n, count in zip(SIGNALS, votes, strict=True) if count), 0)

    def _is_due(self) -> bool:
        """Whether the step that the run is at is to be scored, and isn't yet."""
        step = self.progress.step
        due = step == self.steps or (step > 0 and step % self.every == 0)
        return due and self.progress.scored_step < step

    def _score(self, log: Log | None, signals: SignalListener) -> Metrics:
        """Score the validation set; keep the model in ``best/`` if it is the best so far."""
        now = self.progress
        try:
            with self.learner.scored():
                scores = self._evaluate(signals)
                primary = self._primary(scores)
                found = quality(primary, self.tasks, now.step)
                better = now.best is None or found > now.best
                if better:
                    now.best, now.best_primary = found, primary
                    self._keep("best")
                if log:
                    log(now.step, "val", scores)
                    said = score_line(primary, self.tasks) + " (best)" * better
                    self._say(f"{self.label}, step {now.step}: {said}")
                    if rows := self.recipe.pictures:
                        how = {"bf16": self.recipe.bf16, "skip_bad": self.recipe.skip_bad}
                        sheet = picture(self.model, self.tasks, self.val, rows, **how)
                        log.picture(now.step, sheet)
        except SignalHeard:
            self._stop(signals.heard)
        now.skipped = set(gather_object(sorted(now.skipped)))
        now.scored_step = now.step
        return scores

    def _evaluate(self, signals: SignalListener) -> Metrics:
        """Score; with one process, a signal ends it at once."""
        world = self.accelerator.num_processes
        with signals.leaving_at_once() if world == 1 else nullcontext():
            return evaluate(
                self.model,
                self.tasks,
                self.val,
                batch=max(1, self.recipe.batch // world),
                workers=self.recipe.workers,
                skip_bad=self.recipe.skip_bad,
                bf16=self.recipe.bf16,
                accelerator=self.accelerator,
                skipped=self.progress.skipped,
            )

    # ------------------------------------------------------------------ what is said

    def _say(self, text: str, *, everywhere: bool = False) -> None:
        if everywhere or self.accelerator.is_main_process:
            tqdm.write(text, file=sys.stderr)

    # ------------------------------------------------------------------ what is kept

    def _open(self, lock: FolderLock) -> Result | None:
        """Go to the newest state; of a finished run give the results, and the model its weights."""
        opened = open_on_all(lock, self.identity, self.states, self.restart, self.accelerator)
        self.restart = False
        if opened.state:
            self.learner.restore(opened.state[1])
            self.progress = Progress.of_state(opened.state[1]["progress"])
            self._say(f"{self.label}: goes on from step {self.progress.step} of {self.steps}")
        if opened.results is not None:
            self.model.load_trainable_state_dict(opened.weights)
            self._say(f"{self.label}: finished before; results and weights are those of {self.out}")
        return opened.results

    def _state(self) -> dict[str, Any]:
        return {**self.learner.as_state(), "progress": self.progress.as_state()}

    def _stop(self, signal: int) -> NoReturn:
        """Save the state, and end all processes once it is there."""
        now = self.progress
        if self.accelerator.is_main_process:
            self.states.save(now.step, self._state())
        self.accelerator.wait_for_everyone()
        self._say(
            f"{self.label}: stopped by {Signals(signal).name} after step {now.step} of "
            f"{self.steps}; its state is in {self.states.folder}. Start the same command again to "
            "go on from there."
        )
        raise Stopped(signal)

    def _keep(self, name: str) -> None:
        if self.accelerator.is_main_process:
            self.model.save(self.out / name)

    def _finish(self, scores: Metrics) -> Result:
        """Leave the model that was scored in ``last/`` and in memory, and the results."""
        self.learner.settle()
        self._keep("last")
        result: Result = {
            "label": self.label,
            "method": self.identity["about"].get("method", self.label),
            "primary": self._primary(scores),
            "scores": scores,
            "steps": self.steps,
            "seed": self.recipe.seed,
            **self.progress.as_results(self.batch),
            **costs(self.model, self.accelerator),
            **self.identity,
        }
        if self.accelerator.is_main_process:
            write_whole(self.out / RESULTS, json.dumps(result, indent=1).encode())
            self.states.clear()
        self.accelerator.wait_for_everyone()
        return result

    def _primary(self, scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        return {name: scores[name][task.metric] for name, task in self.tasks.items()}
