"""examples/pascal_context: the real loader, training and scoring on a small made archive."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("accelerate")
pytest.importorskip("tensorboard")
pytest.importorskip("scipy")

from peft_dense import papers
from peft_dense.data.made.archive import make_archive
from peft_dense.errors import CheckpointError, DataError, PeftDenseError, UnknownNameError

FOLDER = Path(__file__).parents[2] / "examples" / "pascal_context"
BACKBONE_ARGS = {"img_size": 32, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2]}
TINY = [
    *("--backbone", "timm.models.swin_transformer:SwinTransformer", "--cpu", "--workers", "0"),
    "--no-pretrained",
    *("--backbone-args", json.dumps({**BACKBONE_ARGS, "window_size": 4})),
    *("--image-size", "32", "48", "--head-width", "8", "--batch", "2", "--steps", "2"),
    *("--tasks", "semseg,human_parts,sal,normals,edge", "--pictures", "1"),
]
METHODS = ("decoders_only", "vmt_lite")


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"pascal_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


train, evaluate = load("train"), load("evaluate")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_archive(tmp_path_factory.mktemp("data"), train=4, val=3, size=(40, 56))


@pytest.fixture(scope="module")
def runs(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods, two seeds."""
    out = tmp_path_factory.mktemp("runs")
    for seed in ("0", "1"):
        options = ["--data", str(root), "--out", str(out / seed), "--seed", seed]
        train.main([*TINY, *options, "--method", ",".join(METHODS)])
    return out


def test_the_two_commands_agree(runs: Path) -> None:
    """What evaluate.py computes from the saved model is what train.py saw at its end."""
    run = runs / "0" / "vmt_lite"
    (found,) = evaluate.main([str(run), "--cpu", "--batch", "2"])
    result = json.loads((run / "results.json").read_text())
    assert set(found["scores"]) == {"semseg", "human_parts", "sal", "normals", "edge"}
    for task, metrics in result["scores"].items():
        assert found["scores"][task] == pytest.approx(metrics, rel=1e-5, nan_ok=True)
    kept = next(run.glob("scores-last-resized.json"))
    assert json.dumps(json.loads(kept.read_text())) == json.dumps(found)


def test_every_convention_in_one_table(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(runs / seed / name) for seed in "01" for name in METHODS]
    options = ["--cpu", "--labels", "native", "--edges", "--order"]
    found = evaluate.main([*folders, *options])
    assert {"odsF", "oisF", "AP"} <= found[0]["scores"]["edge"].keys()
    assert {"mIoU", "maxF"} == found[0]["scores"]["sal"].keys()
    assert {"mErr", "rmse", "within_11.25"} <= found[0]["scores"]["normals"].keys()
    lines = capsys.readouterr().out.splitlines()
    header = next(line for line in lines if line.startswith("       method"))
    assert "edge odsF↑" in header and "normals mErr↓" in header
    rows = [line for line in lines if line.split()[:1] in [[name] for name in METHODS]]
    assert len(rows) == 2 and "+0.00 ± 0.00" in rows[0] and rows[1].count("±") == 6
    assert "native size" in lines[-1] and "2 seed(s)" in lines[-1]
    gain = float(rows[1].split()[-7])
    assert f"over 2 methods: {1 if gain > 0 else -1}.00" in lines[-1]
    resized = evaluate.main([folders[0], "--cpu"])
    assert resized[0]["scores"]["semseg"] != found[0]["scores"]["semseg"]


def test_a_gain_over_another_protocol_is_refused(
    runs: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(runs / "0" / "vmt_lite")
    papers = ["--cpu", "--reference", "polyhistor_swin_tiny"]
    with pytest.raises(UnknownNameError, match="edge"):  # which the papers don't have
        evaluate.main([run, *papers])
    four = ["--tasks", "semseg,human_parts,sal,normals"]
    options = ["--data", str(root), "--out", str(tmp_path), "--method", "vmt_lite"]
    train.main([*TINY, *four, *options])
    run = str(tmp_path / "vmt_lite")
    with pytest.raises(DataError, match="measured on"):
        evaluate.main([run, *papers])
    evaluate.main([run, *papers, "--across-protocols"])
    assert "measured on PASCAL-Context, 5,105 images" in capsys.readouterr().out
    run = str(runs / "0" / "vmt_lite")
    with pytest.raises(UnknownNameError, match="reference 'lora'"):
        evaluate.main([run, "--cpu", "--reference", "lora"])


def test_a_table_and_json_are_not_asked_for_at_once(runs: Path) -> None:
    with pytest.raises(PeftDenseError, match="--papers is a table"):
        evaluate.main([str(runs / "0" / "vmt_lite"), "--cpu", "--papers", "--json"])


def test_folders_that_are_no_runs(runs: Path, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "x"):
        with pytest.raises(CheckpointError, match=r"no results\.json"):
            evaluate.main([str(runs / "0" / "vmt_lite"), str(folder), "--cpu"])


def test_rows_are_of_runs_that_differ_by_their_seed_only(
    runs: Path, root: Path, tmp_path: Path
) -> None:
    run = str(runs / "0" / "vmt_lite")
    with pytest.raises(DataError, match="their seeds are the same"):
        evaluate.main([run, run, "--cpu"])
    options = ["--data", str(root), "--out", str(tmp_path), "--seed", "1", "--lr", "0.01"]
    train.main([*TINY, *options, "--method", "vmt_lite"])
    with pytest.raises(DataError, match="lr differs"):
        evaluate.main([run, str(tmp_path / "vmt_lite"), "--cpu"])


def test_presets_are_the_rows_of_the_papers() -> None:
    from peft_dense import papers
    from peft_dense.training import read_options
    from peft_dense.training.building import named_methods

    args = train.parse(["--method", "papers"])
    assert list(named_methods(read_options(args)[0])) == [row.label for row in papers.ROWS]
    assert args.batch == 12 and args.epochs == 60 and args.lr == args.weight_decay == 1e-4
    assert args.optimizer == "adam" and args.pretrained and tuple(args.image_size) == (448, 448)


@pytest.mark.full
def test_all_rows_of_both_papers_by_one_command_and_again(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole protocol in small: cut off between two rows, it goes on with the second."""
    backbone = {**BACKBONE_ARGS, "embed_dim": 96, "window_size": 4, "num_heads": [3, 6]}
    options = [*TINY, "--backbone-args", json.dumps(backbone), "--data", str(root)]
    options += ["--tasks", "semseg,human_parts,sal,normals", "--steps", "1", "--out", str(tmp_path)]
    train.main([*options, "--method", "single_task_full"])
    first = (tmp_path / "single_task_full" / "results.json").read_bytes()
    train.main([*options, "--method", "papers"])
    assert (tmp_path / "single_task_full" / "results.json").read_bytes() == first
    runs = [tmp_path / row.label.replace(" ", ",") for row in papers.ROWS]
    assert all((run / "results.json").is_file() for run in runs)
    capsys.readouterr()
    evaluate.main([*map(str, runs), "--cpu", "--papers"])
    beside = capsys.readouterr().out.rsplit("\n\n", 3)[2].splitlines()
    assert [line.split("  ")[0].strip() or line.strip().split("  ")[0] for line in beside[1:]] == [
        row.label for row in papers.ROWS
    ]


def test_a_corrupt_label_is_named_or_skipped(root: Path, tmp_path: Path) -> None:
    import shutil

    broken = tmp_path / "PASCAL_MT"
    shutil.copytree(root, broken)
    ids = (broken / "ImageSets/Context/train.txt").read_text().split()
    (broken / "sal_distill" / f"{ids[1]}.png").write_bytes(b"not a picture")
    options = [*TINY, "--data", str(broken), "--out", str(tmp_path / "out")]
    with pytest.raises(DataError, match=f"{ids[1]}.png"):
        train.main(options)
    seen = (broken / "ImageSets/Context/val.txt").read_text().split()
    (broken / "JPEGImages" / f"{seen[0]}.jpg").write_bytes(b"not a picture either")
    (result,) = train.main([*options, "--skip-bad"])
    (image, label) = result["skipped"]
    assert f"{seen[0]}.jpg" in image and f"{ids[1]}.png" in label
    (found,) = evaluate.main([str(tmp_path / "out" / "vmt_lite"), "--cpu", "--labels", "native"])
    assert found["skipped"] == [image]


def test_options_that_would_do_nothing_are_refused(root: Path, tmp_path: Path) -> None:
    for options, said in (
        (["--data", "made", "--protocol", "astmt"], "for PASCAL-Context's archive only"),
        (["--data", str(root), "--loss-weights", "semsg=3"], "did you mean 'semseg'"),
        (["--data", str(root), "--loss-weights", "semseg=x"], "expected TASK=NUMBER"),
        (["--data", str(root), "--pretrained"], "is no name of timm's"),
        (["--data", str(root), "--weights", "/nowhere.safetensors"], "no file /nowhere"),
    ):
        with pytest.raises(PeftDenseError, match=said):
            train.main([*TINY, *options, "--out", str(tmp_path)])


def test_the_docs_say_what_every_option_means() -> None:
    page = (FOLDER.parents[1] / "docs" / "pascal_context.md").read_text(encoding="utf-8")
    parser = train.make_parser()
    for action in parser._actions:
        if action.option_strings[0] != "-h":
            default = parser.get_default(action.dest)
            row = f"| `{action.option_strings[0]}` | {action.help} | `{default}` |"
            assert row in page, f"put this row into docs/pascal_context.md: {row}"


def test_the_docs_show_the_papers_cells() -> None:
    from peft_dense import papers

    page = (FOLDER.parents[1] / "docs" / "pascal_context.md").read_text(encoding="utf-8")
    for row in papers.ROWS:
        scores = row.scores.values() if row.scores else ()
        cells = " | ".join(f"{value:.2f}" for value in scores) or "- | - | - | -"
        counts = f"{row.encoder} | {row.total or '-'}"
        assert f"| `{row.label}` | {cells} | {row.delta:+.2f} | {counts} | {row.places} |" in page
