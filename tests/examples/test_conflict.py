"""examples/conflict.py: angles are those of the tasks' own gradients, and watching moves none."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("accelerate")

from peft_dense.cli.train import options_of
from peft_dense.conflict import ConflictRecorder
from peft_dense.errors import PeftDenseError
from peft_dense.predicting import normalise
from peft_dense.training import make_backbone, make_data
from peft_dense.training.batches import load_batches
from peft_dense.training.building import make_model
from peft_dense.training.launcher import make_accelerator

SCRIPT = Path(__file__).parents[2] / "examples" / "conflict.py"
BACKBONE = {"img_size": 32, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
TINY = [
    *("--image-size", "32", "32", "--scenes", "4", "2", "--batch", "2", "--head-width", "8"),
    *("--backbone-args", json.dumps(BACKBONE), "--steps", "3", "--tasks", "semseg,depth"),
    *("--cpu", "--no-pretrained"),
]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("conflict_example", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_first_angle_is_that_of_two_gradients(script, tmp_path, capsys):
    argv = [*TINY, "--method", "shared_adapter,vmt", "--out", str(tmp_path)]
    recorders = script.main(argv)
    assert [each.name for each in recorders] == ["shared_adapter", "vmt"]
    assert [len(each.reports) for each in recorders] == [3, 3]
    assert (tmp_path / "conflict.png").is_file() and "semseg and depth" in capsys.readouterr().out
    again = ConflictRecorder.load(tmp_path / "vmt.json")
    torch.testing.assert_close(again.angles(), recorders[1].angles())

    setup, recipe = options_of(script.parse(argv))
    torch.manual_seed(recipe.seed)
    net = make_backbone(setup)
    tasks, train, _ = make_data(setup, recipe)
    model = make_model(setup, net, "shared_adapter", {}, tasks, recipe.seed).train()
    batch = next(iter(load_batches(train, recipe, 0, 3, make_accelerator(cpu=True))))
    predictions = model(normalise(model, batch["image"]))
    own = [p for name, p in model.encoder.named_parameters() if p.requires_grad and "up." in name]
    flat = []
    for name, task in tasks.items():
        loss = task.loss(predictions[name], batch[name])
        found = torch.autograd.grad(loss, own, retain_graph=True)
        flat.append(torch.cat([each.flatten() for each in found]))
    angle = torch.cosine_similarity(*flat, dim=0).acos().rad2deg()
    # Only `up` has a gradient at the silent start, and a positive weight turns no gradient.
    assert recorders[0].angles()[0, 0].item() == pytest.approx(angle.item(), abs=0.1)


def test_watching_moves_no_later_angle(script, tmp_path):
    argv = [*TINY, "--method", "vmt"]
    (always,) = script.main([*argv, "--out", str(tmp_path / "a")])
    (seldom,) = script.main([*argv, "--out", str(tmp_path / "b"), "--watch-every", "2"])
    assert len(seldom.reports) == 2
    torch.testing.assert_close(always.angles()[::2], seldom.angles())


def test_a_method_of_many_paths_is_refused(script, tmp_path):
    with pytest.raises(PeftDenseError, match="share"):
        script.main([*TINY, "--method", "adapter", "--out", str(tmp_path)])


def test_no_step_between_two_angles_is_refused(script, tmp_path):
    with pytest.raises(PeftDenseError, match="--watch-every"):
        script.main([*TINY, "--method", "vmt", "--watch-every", "0", "--out", str(tmp_path)])
