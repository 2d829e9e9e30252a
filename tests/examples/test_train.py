"""examples/train.py: two steps on tiny data leave every file it promises, and they fit together."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

pytest.importorskip("accelerate")
pytest.importorskip("tensorboard")

from peft_dense import DenseModel
from peft_dense.cli.train import options_of
from peft_dense.data import Scenes
from peft_dense.errors import (
    CheckpointError,
    DataError,
    HyperparameterError,
    PeftDenseError,
    UnknownNameError,
    UnsupportedModelError,
)
from peft_dense.tasks import task
from peft_dense.training import building, evaluate, make_backbone, make_data, table

SCRIPT = Path(__file__).parents[2] / "examples" / "train.py"
BACKBONE_ARGS = {"img_size": 32, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2]}
TINY = [
    *("--image-size", "32", "64", "--scenes", "4", "3", "--batch", "2", "--head-width", "8"),
    *("--backbone-args", json.dumps({**BACKBONE_ARGS, "window_size": 4})),
    *("--pictures", "2", "--cpu"),
]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_example", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def run(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that two methods leave after two steps on all six tasks."""
    out = tmp_path_factory.mktemp("run")
    methods = "decoders_only,vmt_lite,adapter"
    hyper = ["vmt_lite.ratio=2", "vmt_lite.m=2", "adapter.ratio=4"]
    script.main([*TINY, "--method", methods, "--steps", "2", "--out", str(out), "--hyper", *hyper])
    return out


METHODS = ("decoders_only", "vmt_lite", "adapter")
TASKS = ("depth", "edge", "human_parts", "normals", "sal", "semseg")


@pytest.mark.parametrize("method", METHODS)
def test_results_and_log_agree(run: Path, method: str) -> None:
    result = json.loads((run / method / "results.json").read_text())
    assert result["method"] == method and result["steps"] == 2 and result["seed"] == 0
    assert result["all"] > result["encoder"] and (result["encoder"] > 0) == (method != METHODS[0])
    assert sorted(result["primary"]) == list(TASKS)
    with (run / method / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["task"] for row in rows} == {*TASKS, "all"}
    last = {
        (row["task"], row["metric"]): float(row["value"])
        for row in rows
        if row["split"] == "val" and row["step"] == "2"
    }
    for name, metrics in result["scores"].items():
        for metric, value in metrics.items():
            assert last[name, metric] == pytest.approx(value, rel=1e-4, nan_ok=True)
    assert list((run / method).glob("events.out.tfevents.*"))


def test_hyperparameters_reach_their_method_only(run: Path) -> None:
    saved = [json.loads((run / name / "last" / "peft_dense.json").read_text()) for name in METHODS]
    text = [json.dumps(each) for each in saved]
    assert '"ratio": 2' in text[1] and '"m": 2' in text[1] and '"ratio": 4' in text[2]


@pytest.mark.parametrize("method", METHODS)
def test_grid_has_a_cell_for_image_truth_and_prediction(run: Path, method: str) -> None:
    grid = Image.open(run / method / "grid.png")
    assert grid.size == (7 * (64 + 4), 14 + 2 * (2 * (32 + 4) + 2 * 4))
    item = Scenes(3, (32, 64), seed=1, look="demo")[0]  # the first of the validation scenes
    image = np.asarray(grid)[14:46, :64]
    assert np.abs(image / 255 - item["image"].movedim(0, -1).numpy()).max() < 2 / 255


@pytest.mark.parametrize("method", METHODS)
def test_checkpoint_gives_the_scores_again(run: Path, script: ModuleType, method: str) -> None:
    setup, recipe = options_of(script.parse(TINY))
    torch.manual_seed(0)  # the random backbone of the run
    model = DenseModel.load(run / method / "last", make_backbone(setup))
    known, _, val = make_data(setup, recipe)
    scores = evaluate(model, known, val, batch=2)
    result = json.loads((run / method / "results.json").read_text())
    for name, metrics in scores.items():
        assert metrics == pytest.approx(result["scores"][name], rel=1e-5, nan_ok=True)
    assert (run / method / "best" / "peft_dense.safetensors").exists()


def test_table_ranks_against_decoders_only() -> None:
    known = {"sal": task("sal"), "depth": task("depth")}
    counts = {"encoder": 5, "all": 1234567, "seconds": 3.2, "peak_memory": 3 * 2**29}
    results = [
        {"label": "lora", "primary": {"sal": 60.0, "depth": 1.0}, **counts},
        {"label": "decoders_only", "primary": {"sal": 50.0, "depth": 2.0}, **counts},
    ]
    lines = table(results, known).splitlines()
    assert lines[0].split() == [
        *("method", "sal", "mIoU↑", "depth", "rmse↓", "Delta", "%"),
        *("encoder", "all", "params", "seconds", "peak", "GiB"),
    ]
    assert lines[2].split() == ["lora", "60.00", "1.00", "+35.00", "5", "1,234,567", "3", "1.50"]
    assert "+0.00" in lines[3] and "gain over decoders_only" in lines[-1]
    assert "gain over lora" in table(results[:1], known)


def test_own_images_and_weights(script: ModuleType, tmp_path: Path) -> None:
    """A folder with two tasks, one of them with named classes, and a file of backbone weights."""
    for split in ("train", "val"):
        (tmp_path / f"{split}.txt").write_text("a\nb\n")
    for folder in ("images", "semseg", "sal", "notes"):
        (tmp_path / folder).mkdir()
    rng = np.random.default_rng(0)
    for name in "ab":
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8)).save(
            tmp_path / "images" / f"{name}.png"
        )
        Image.fromarray(rng.integers(0, 5, (40, 50), np.uint8)).save(
            tmp_path / "semseg" / f"{name}.png"
        )
    (tmp_path / "classes.json").write_text(
        json.dumps({"semseg": list("abcde"), "sal": ["no", "y"]})
    )
    net = make_backbone(options_of(script.parse(TINY))[0])
    with torch.no_grad():
        net.patch_embed.proj.weight.fill_(0.25)
    state = {name: v.half() for name, v in net.state_dict().items() if "attn_mask" not in name}
    save_file(state, tmp_path / "net.safetensors")

    out = tmp_path / "out"
    options = ["--data", str(tmp_path), "--weights", str(tmp_path / "net.safetensors")]
    options += ["--epochs", "1", "--out", str(out), "--method", "shared_lora", "--window", "4"]
    with pytest.raises(DataError, match="sal: there is no label"):
        script.main([*TINY, *options])
    marks = np.zeros((40, 50), np.uint8)
    marks[10:20] = 255  # as most masks are drawn: the foreground, not what is ignored
    Image.fromarray(marks).save(tmp_path / "sal" / "b.png")
    (result,) = script.main([*TINY, *options])
    assert sorted(result["primary"]) == ["sal", "semseg"] and result["steps"] == 1
    assert 0 < result["primary"]["sal"] < 100
    config = json.loads((out / "shared_lora" / "last" / "peft_dense.json").read_text())
    assert config["heads"]["channels"] == {"sal": 1, "semseg": 5}
    loaded = make_backbone(options_of(script.parse([*TINY, *options]))[0])
    assert (loaded.patch_embed.proj.weight == 0.25).all()


@pytest.mark.parametrize(
    ("options", "kind", "expected"),
    [
        (["--method", "vmt_light"], UnknownNameError, "'vmt_light'; did you mean 'vmt_lite'"),
        (["--hyper", "rati=2"], UnknownNameError, "'rati'; did you mean 'ratio'"),
        (["--hyper", "ratio"], DataError, "'ratio' isn't KEY=VALUE"),
        (["--hyper", "lora.rank=2"], UnknownNameError, "method in --hyper 'lora'"),
        (["--hyper", "ratio=3"], HyperparameterError, "ratio"),
        (["--data", "/nowhere"], DataError, "no folder /nowhere"),
        (["--tasks", "semseg,edges"], UnknownNameError, "did you mean 'edge'"),
    ],
)
def test_bad_options(
    script: ModuleType,
    options: list[str],
    kind: type[PeftDenseError],
    expected: str,
    tmp_path: Path,
) -> None:
    with pytest.raises(kind, match=expected):
        script.main([*TINY, "--out", str(tmp_path), *options])


def test_all_methods_go_on_and_leave_out_what_does_not_fit(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = ["decoders_only", "phm", "shared_bitfit"]  # PHM's n is 4; its waist is 8 / 4 = 2 wide
    monkeypatch.setattr(building, "methods", lambda: names)
    command = [*TINY, "--method", "all", "--steps", "1", "--tasks", "sal", "--out", str(tmp_path)]
    first = script.main(command)
    assert [result["label"] for result in first] == ["decoders_only", "shared_bitfit"]
    assert "phm is left out: n is 4" in capsys.readouterr().out
    (tmp_path / "shared_bitfit" / "results.json").unlink()  # as if it had been cut off
    done = tmp_path / "decoders_only" / "results.json"
    written = done.stat().st_mtime_ns
    again = script.main(command)
    assert done.stat().st_mtime_ns == written  # not trained twice
    assert [result["scores"] for result in again] == [result["scores"] for result in first]
    monkeypatch.setattr(building, "methods", lambda: ["phm"])
    with pytest.raises(UnsupportedModelError, match="no method fits"):
        script.main([*command[:-1], str(tmp_path / "none")])


def test_weights_of_another_backbone_are_refused(script: ModuleType, tmp_path: Path) -> None:
    save_file({"patch_embed.proj.bias": torch.zeros(8)}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"holds 8 of the backbone's .* first missing"):
        script.main([*TINY, "--weights", str(tmp_path / "w.safetensors")])
