"""``peft-dense train`` and ``evaluate``: the scripts' code, and how they fail."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("accelerate")
pytest.importorskip("tensorboard")

from peft_dense.cli import main
from peft_dense.cli.output import exit_status
from peft_dense.cli.train import make_parser, options_of
from peft_dense.errors import CheckpointError
from peft_dense.methods import methods
from peft_dense.training import Recipe, Setup
from peft_dense.training.options import use_config
from peft_dense.training.rescoring import Convention
from peft_dense.training.run_folder import read_weights

ROOT = Path(__file__).parents[1]
BACKBONE = {"img_size": 32, "window_size": 4, "embed_dim": 8, "depths": [1], "num_heads": [1]}
TINY = [
    *("--image-size", "32", "48", "--scenes", "3", "2", "--batch", "2", "--head-width", "8"),
    *("--backbone-args", json.dumps(BACKBONE), "--tasks", "sal,depth", "--steps", "1"),
    *("--pictures", "0", "--cpu"),
]


def test_a_run_is_trained_and_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *TINY, "--out", str(tmp_path)]) == 0
    assert "sal mIoU" in capsys.readouterr().out
    run = tmp_path / "vmt_lite"
    assert main(["evaluate", str(run), "--cpu", "--which", "best", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    results = json.loads((run / "results.json").read_text())
    assert found["scores"]["depth"] == pytest.approx(results["scores"]["depth"], rel=1e-5)
    # Other rates are another run, and the message says what to do; then it is done.
    assert main(["train", *TINY, "--out", str(tmp_path), "--lr", "0.5"]) == 2
    said = capsys.readouterr().err
    assert "lr is 0.002 there, 0.5 here" in said and "--restart" in said
    assert main(["train", *TINY, "--out", str(tmp_path), "--lr", "0.5", "--restart"]) == 0
    assert json.loads((run / "results.json").read_text())["recipe"]["lr"] == 0.5


def test_described_data_is_trained_and_scored_from_anywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    size = ["--train", "2", "--val", "2", "--size", "24", "32"]
    assert main(["data", "make", "city", *size, "--layout", "cityscapes"]) == 0
    assert main(["data", "describe", "city", "--out", "my.toml"]) == 0
    tiny = [word for word in TINY if word not in ("--tasks", "sal,depth")]
    for number, data in enumerate(("cityscapes:city", "my.toml", "city")):
        out = str(tmp_path / f"run{number}")
        assert main(["train", *tiny, "--data", data, "--no-pretrained", "--out", out]) == 0
        capsys.readouterr()
        monkeypatch.chdir(tmp_path / "city")  # what the run names is found from elsewhere
        run = f"{out}/vmt_lite"
        assert main(["evaluate", run, "--cpu", "--json"]) == 0
        (found,) = json.loads(capsys.readouterr().out)
        assert set(found["scores"]) == {"semseg", "depth"}
        assert main(["train", *tiny, "--data", "no:where", "--no-pretrained", "--out", out]) == 2
        assert "names no ready description" in capsys.readouterr().err
        monkeypatch.chdir(tmp_path)


def test_a_description_that_says_something_else_is_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    size = ["--train", "2", "--val", "2", "--size", "24", "32"]
    assert main(["data", "make", "city", *size, "--layout", "cityscapes"]) == 0
    assert main(["data", "describe", "city"]) == 0
    tiny = [word for word in TINY if word not in ("--tasks", "sal,depth")]
    train = ["train", *tiny, "--data", "city", "--no-pretrained", "--out", "run"]
    assert main(train) == 0
    description = tmp_path / "city" / "dense.toml"
    said = description.read_text(encoding="utf-8")
    description.write_text(f"# the same, with a remark\n{said}", encoding="utf-8")
    assert main(train) == 0
    description.write_text(f"{said}\n[tasks.depth]\ninvalid = [7]\n", encoding="utf-8")
    capsys.readouterr()
    assert main(train) == 2
    assert "holds another run: description is" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "notes"),
    [
        ([], 1),
        (["--no-pretrained"], 0),
        (["--weights", "file.safetensors"], 0),
        (["--data", "/nowhere", "--no-pretrained"], 0),
    ],
)
def test_training_on_made_scenes_says_so_and_where_weights_are(
    words: list[str],
    notes: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("peft_dense.training.run_all", lambda setup, recipe: [])
    assert main(["train", *words]) == 0
    said = capsys.readouterr().err.splitlines()
    assert len(said) == notes
    assert all("random weights" in line and "demo_backbone.safetensors" in line for line in said)


def test_a_fork_begins_with_the_weights_of_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun, forked = tmp_path / "a", tmp_path / "b"
    assert main(["train", *TINY, "--out", str(begun)]) == 0
    fork = ["--fork-from", str(begun / "vmt_lite"), "--out", str(forked)]
    frozen = ["--lr", "0", "--weight-decay", "0"]  # what it begins with is what it ends with
    assert main(["train", *TINY, *fork, *frozen]) == 0
    weights = [read_weights(run / "vmt_lite" / "last") for run in (begun, forked)]
    trained = [name for name in weights[0] if "running" not in name and "num_batches" not in name]
    assert len(trained) > 10
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in trained)
    assert main(["train", *TINY, *fork, "--method", "lora,vmt_lite"]) == 2
    assert "a run of one method" in capsys.readouterr().err
    assert main(["train", *TINY, *fork, "--method", "lora", "--out", str(tmp_path / "c")]) == 2


def test_a_folder_that_cannot_be_made_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["train", *TINY, "--out", str(tmp_path / "file")]) == 2
    assert "error: can't make the folder" in capsys.readouterr().err


@pytest.mark.parametrize("script", ["train", "pascal_context/train", "pascal_context/evaluate"])
def test_scripts_end_as_the_command_does(script: str, tmp_path: Path) -> None:
    wrong = ["/nowhere"] if "evaluate" in script else ["--data", "/nowhere", "--no-pretrained"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / f"{script}.py"), *wrong],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ") and "Traceback" not in done.stderr


BLOCKER = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
from peft_dense.cli import main
sys.exit(main({arguments!r}))
"""


@pytest.mark.parametrize("package", ["accelerate", "tensorboard"])
@pytest.mark.parametrize("command", [["train", "--cpu"], ["evaluate", "run"]])
def test_missing_packages_name_the_extra(package: str, command: list[str], tmp_path: Path) -> None:
    code = BLOCKER.format(package=package, arguments=command)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and f"needs {package}" in line
    assert "pip install 'peft-dense[train]'" in line


def test_the_rest_of_the_command_line_needs_no_extra(tmp_path: Path) -> None:
    code = BLOCKER.format(package="accelerate", arguments=["methods", "--json"])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert (
        done.returncode == 0 and [each["method"] for each in json.loads(done.stdout)] == methods()
    )


def test_ctrl_c_before_a_run_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def run() -> None:
        raise KeyboardInterrupt

    assert exit_status(run) == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert "SIGINT" in line


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_help_says_defaults_that_say_something(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "(default: None)" not in said and "(default: False)" not in said
    assert "(default: ())" not in said and "(default: [])" not in said
    assert "(default: 12)" in said or "(default: 8)" in said


def test_every_field_is_an_option_and_is_read_back() -> None:
    parser = make_parser()
    assert all(action.help for action in parser._actions)
    titles = {group.title for group in parser._action_groups if group._group_actions}
    assert titles == {"options", "data", "model", "training", "speed", "keeping", "where"}
    setup, recipe = options_of(parser.parse_args([]))
    assert isinstance(setup, Setup) and isinstance(recipe, Recipe)
    assert (recipe.steps, recipe.batch, recipe.optimizer) == (250, 8, "adamw")
    given = [
        *("--image-size", "64", "96", "--scale", "0.5", "2", "--hyper", "ratio=8", "lora.rank=4"),
        *("--backbone-args", '{"a": 1}', "--weights", "w.safetensors", "--no-pretrained"),
        *("--loss-weights", "sal=3", "--epochs", "2", "--no-fused", "--bf16", "--clip", "1.5"),
        *("--schedule", "cosine", "--ema", "0.9", "--restart", "--window", "7"),
    ]
    setup, recipe = options_of(parser.parse_args(given))
    assert setup.image_size == (64, 96) and setup.scale == (0.5, 2.0)
    assert setup.hyper == ("ratio=8", "lora.rank=4") and setup.backbone_args == {"a": 1}
    assert setup.weights == Path("w.safetensors") and setup.pretrained is False
    assert setup.restart and not setup.cpu and setup.window == 7
    assert recipe.loss_weights["sal"] == 3 and recipe.loss_weights["normals"] == 10
    assert (recipe.epochs, recipe.steps, recipe.clip, recipe.ema) == (2, None, 1.5, 0.9)
    assert recipe.bf16 and not recipe.fused and recipe.schedule == "cosine"


def test_a_config_gives_the_defaults_of_what_is_parsed_next(tmp_path: Path) -> None:
    recipe = {"lr": 0.25, "loss_weights": {"sal": 7.0}}
    about = {"method": "lora", "hyper": {"rank": 2}}
    (tmp_path / "run.json").write_text(json.dumps({"recipe": recipe, "about": about}))
    for path in (tmp_path, tmp_path / "run.json"):
        parser, given = make_parser(), ["--config", str(path), "--steps", "3"]
        use_config(parser, given)
        setup, found = options_of(parser.parse_args(given))
        assert (setup.method, setup.hyper, found.lr, found.steps) == ("lora", ("rank=2",), 0.25, 3)
        assert found.loss_weights["sal"] == 7 and found.loss_weights["normals"] == 10


def test_edges_are_scored_within_the_usual_distance(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """0.0075 of the diagonal, as on BSDS and PASCAL-Context; 0.011 is NYUD's."""
    assert Convention().tolerance == 0.0075
    asked = []

    def score(run: Path, convention: Convention, *_: object, **__: object) -> None:
        asked.append(convention)
        raise CheckpointError("enough")

    (tmp_path / "results.json").write_text("{}")
    monkeypatch.setattr("peft_dense.training.rescoring.score_run", score)
    for more in ([], ["--tolerance", "0.011"]):
        assert main(["evaluate", str(tmp_path), "--edges", "--cpu", *more]) == 2
    assert [each.tolerance for each in asked] == [0.0075, 0.011] and asked[0].edges


def test_a_runs_own_file_gives_its_options_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [
        *("--method", "vmt_lite", "--hyper", "ratio=4", "--lr", "0.3", "--loss-weights", "sal=7"),
        *("--weight-decay", "0.1", "--ema", "0.5", "--scale", "0.5", "1"),
    ]
    assert main(["train", *TINY, *given, "--out", str(tmp_path / "a")]) == 0
    file = tmp_path / "a" / "vmt_lite" / "run.json"
    again = ["--config", str(file), "--pictures", "0", "--cpu"]
    assert main(["train", *again, "--out", str(tmp_path / "b"), "--seed", "1"]) == 0
    first, second = (
        json.loads((tmp_path / run / "vmt_lite" / "run.json").read_text()) for run in "ab"
    )
    assert second["recipe"] == {**first["recipe"], "seed": 1}
    assert second["about"] == first["about"] and first["about"]["hyper"] == {"ratio": 4}
    # The folder will do, and what is the same run goes on where that is: it is finished.
    capsys.readouterr()
    same = ["--config", str(file.parent), "--out", str(tmp_path / "a"), "--cpu"]
    assert main(["train", *same]) == 0
    assert "finished before" in capsys.readouterr().err
    assert main(["train", "--config", str(tmp_path)]) == 2
    assert "no run.json" in capsys.readouterr().err


def test_wrong_words_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (["--optimizer", "sgd"], ["--steps", "many"], ["--unknown"]):
        with pytest.raises(SystemExit) as stop:
            main(["train", *wrong])
        assert stop.value.code == 2
    assert isinstance(make_parser(), argparse.ArgumentParser)
