"""A run of a few seconds, started as a script: python small_run.py OUT '{"steps": 6, ...}'.

``bad`` breaks an item; ``signal`` reaches the process ``signal_to`` (or all; or the "group" of a
process, with its workers) at step ``signal_at``, or while step ``score_signal_at`` is scored; from
the step ``full_at`` on, the disk refuses files of more than ``full_bytes``.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from timm.models.swin_transformer import SwinTransformer

from peft_dense import DenseModel, inject
from peft_dense.cli.output import exit_status
from peft_dense.data import Cached, Compose, RandomFlip, RandomScaleCrop, Resize, Scenes
from peft_dense.errors import DataError
from peft_dense.tasks import task
from peft_dense.training import Recipe, Trainer

TASKS = ("semseg", "human_parts", "sal", "normals", "depth")
SIZE = (32, 48)


class Broken(Cached):
    """Made scenes of which one can't be read."""

    bad = -1

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index == self.bad:
            raise DataError(f"can't read scene {index}")
        return super().__getitem__(index)


def make_sets(bad: int = -1, train: int = 9, val: int = 5) -> tuple[Any, Any]:
    sets = []
    for number, length in enumerate((train, val)):
        scenes = Scenes(length, SIZE, TASKS, seed=number)
        held = Broken(scenes[index] for index in range(length))
        held.tasks = TASKS
        sets.append(held)
    sets[0].transform = Compose(RandomScaleCrop(SIZE), RandomFlip())
    sets[1].transform = Resize(SIZE)
    sets[0].bad = bad
    # Labels are missing here and there: every image of the first batch's processes differs.
    for index in range(0, train, 2):
        sets[0].items[index]["human_parts"].fill_(255)
        sets[0].items[index]["sal"][:20] = 255
    return sets[0], sets[1]


def make_trainer(
    out: Path,
    *,
    method: str = "vmt_lite",
    bad: int = -1,
    drop_path: float = 0.0,
    restart: bool = False,
    **recipe: Any,
) -> Trainer:
    torch.manual_seed(0)
    net = SwinTransformer(
        img_size=SIZE,
        window_size=4,
        embed_dim=12,
        depths=(1, 1),
        num_heads=(1, 2),
        drop_path_rate=drop_path,
    )
    torch.manual_seed(1)
    model = DenseModel(
        inject(net, method, tasks=TASKS), {name: task(name).channels for name in TASKS}, width=8
    )
    how = {"steps": 6, "batch": 4, "lr": 5e-3, "eval_every": 3, "save_every": 2, "pictures": 0}
    return Trainer(
        model,
        {name: task(name) for name in TASKS},
        *make_sets(bad),
        Recipe(**{**how, **recipe}),
        out,
        about={"method": method},
        restart=restart,
        accelerator=Accelerator(cpu=True, mixed_precision="bf16" if recipe.get("bf16") else "no"),
    )


def main() -> None:
    out, options = Path(sys.argv[1]), json.loads(sys.argv[2])
    names = ("signal", "signal_to", "signal_at", "score_signal_at", "full_at", "full_bytes")
    wanted = {name: options.pop(name, None) for name in names}
    torch.set_num_threads(1)
    trainer = make_trainer(out, **options)
    to = wanted["signal_to"]
    mine = to in (None, "group", trainer.accelerator.process_index)
    kill = partial(os.killpg, os.getpgid(0)) if to == "group" else partial(os.kill, os.getpid())
    learn = trainer.learner.learn

    def watched(batch: Any, step: int, votes: Any = ()) -> Any:
        told = learn(batch, step, votes)
        if step + 1 == wanted["full_at"]:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            limit = wanted["full_bytes"] or 9000
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        if step + 1 == wanted["signal_at"] and mine:
            kill(wanted["signal"])
        return told

    trainer.learner.learn = watched  # type: ignore[method-assign]
    if wanted["score_signal_at"]:
        reading = trainer.val.transform

        def transform(item: Any) -> Any:
            if trainer.progress.step == wanted["score_signal_at"]:
                kill(wanted["signal"])
            return reading(item)

        trainer.val.transform = transform
    trainer.fit()
    if trainer.accelerator.is_main_process:
        state = trainer.model.trainable_state_dict()
        torch.save(state, out / f"weights_{trainer.accelerator.num_processes}.pt")


if __name__ == "__main__":
    sys.exit(exit_status(main))
