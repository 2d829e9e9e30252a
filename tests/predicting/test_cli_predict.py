"""``peft-dense predict``: from a run's folder alone to files, and how it fails."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("accelerate")
pytest.importorskip("tensorboard")

from peft_dense.cli import main
from peft_dense.cli.predict import choose_device
from peft_dense.data import DenseFolder, Pack, Resize, collate, on_device
from peft_dense.data.made.archive import make_archive
from peft_dense.errors import CheckpointError, UnknownNameError
from peft_dense.predicting import raw_maps
from peft_dense.training import load_run

SIZE = (32, 48)
NET = {"img_size": 32, "window_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2]}


def predict(*words: object) -> int:
    return main(["predict", *map(str, words), "--cpu"])


def test_from_a_run_s_folder_alone_to_label_maps_and_pictures(
    trained: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, _, run = trained
    out, photos = tmp_path / "out", tmp_path / "photos"
    shutil.copytree(data / "images", photos)
    (photos / "bad.jpg").write_bytes(b"no image")
    data.rename(data.with_name("gone"))
    try:
        assert predict(run, photos, "--out", out) == 1
    finally:
        data.with_name("gone").rename(data)
    said = capsys.readouterr()
    assert "7 images" in said.out and "bad.jpg" in said.err and "left out: 1" in said.out
    for photo in photos.glob("2*.jpg"):
        size = Image.open(photo).size
        for task in ("semseg", "sal", "edge", "roofs"):
            assert Image.open(out / task / f"{photo.stem}.png").size == size
        assert np.load(out / "depth" / f"{photo.stem}.npy").shape == size[::-1]
        assert np.load(out / "normals" / f"{photo.stem}.npy").shape == (*size[::-1], 3)
        for kind in ("side_by_side", "overlay"):
            assert np.asarray(Image.open(out / kind / f"{photo.stem}.jpg")).std() > 10
    assert Image.open(out / "contact_sheet.png").width > 300
    assert Image.open(out / "semseg" / f"{photo.stem}.png").mode == "P"
    # A second time nothing is replaced by accident, and the results are no images.
    before = (out / "contact_sheet.png").stat().st_mtime_ns
    assert predict(run, photos, "--out", out) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (out / "contact_sheet.png").stat().st_mtime_ns == before
    (photos / "bad.jpg").unlink()
    assert predict(run, photos, "--out", photos / "inside", "--tasks", "depth") == 0
    assert predict(run, photos, "--out", photos / "inside", "--overwrite", "--no-pictures") == 0
    assert "7 images" in capsys.readouterr().out.splitlines()[-1]


def test_a_model_is_shown_exactly_what_validation_showed_it(
    trained: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    data, _, place = trained
    run = load_run(place, "last")
    assert run.size == SIZE and not run.bf16
    assert run.tasks["semseg"].classes[:2] == ("background", "ground")  # type: ignore[attr-defined]
    assert run.tasks["roofs"].kind == "binary"
    transform = lambda item: Pack()(Resize(SIZE)(item))  # noqa: E731 - as building.make_data
    val = DenseFolder(data, "val", list(run.tasks), transform, kinds={"roofs": "binary"})
    batch = on_device(collate([val[index] for index in range(len(val))]), "cpu")
    raw = raw_maps(run.model, batch["image"])
    paths = [val.files(name)["image"] for name in val.ids]
    seen: list[torch.Tensor] = []
    handle = run.model.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    found = list(run.predict(paths))
    handle.remove()
    run.model.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    assert torch.equal(raw_maps(run.model, batch["image"])["depth"], raw["depth"])
    assert torch.equal(seen[0], seen[1])  # to the bit
    for index, each in enumerate(found):
        size = each.size
        whole = torch.nn.functional.interpolate(raw["depth"][[index]], size, mode="bilinear")
        torch.testing.assert_close(each.labels["depth"], whole[0, 0], rtol=1e-4, atol=1e-4)


def test_white_of_the_training_data_holds_for_other_images(tmp_path: Path) -> None:
    data = make_archive(tmp_path / "data", train=2, val=1, size=(40, 56), layout="folder")
    for photo in (data / "images").glob("*.jpg"):
        grey = np.asarray(Image.open(photo).convert("L")).astype(np.uint16) * 16
        photo.unlink()
        Image.fromarray(grey).save(photo.with_suffix(".png"))
    command = [
        *("train", "--data", str(data), "--tasks", "sal", "--no-pretrained", "--steps", "1"),
        *("--backbone-args", json.dumps(NET), "--image-size", "32", "48", "--batch", "2"),
        *("--head-width", "8", "--pictures", "0", "--cpu", "--out", str(tmp_path / "runs")),
    ]
    assert main(command) == 0
    run = load_run(tmp_path / "runs" / "vmt_lite")
    assert run.white == 4095
    (found,) = run.predict(sorted((data / "images").iterdir())[0])
    assert float(found.image.max()) > 0.5


@pytest.mark.parametrize(
    "options",
    [
        ("--window", "32", "48", "--overlap", "0.5", "--flip"),
        ("--size", "64", "64", "--bf16"),
        ("--own-size", "--which", "last", "--batch", "2"),
    ],
)
def test_options_reach_the_model(
    options: tuple[str, ...], trained: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    data, _, run = trained
    shutil.copytree(data / "images", tmp_path / "photos")
    plain, other = tmp_path / "plain", tmp_path / "other"
    assert predict(run, tmp_path / "photos", "--out", plain, "--no-pictures") == 0
    assert predict(run, tmp_path / "photos", "--out", other, "--no-pictures", *options) == 0
    differences = []
    for file in sorted((plain / "depth").iterdir()):
        a, b = np.load(file), np.load(other / "depth" / file.name)
        assert a.shape == b.shape
        differences.append(float(np.abs(a - b).max()))
    assert max(differences) > 1e-4


def test_what_a_run_lacks_is_named_with_the_remedy(
    trained: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, weights, run = trained
    photos, out = data / "images", tmp_path / "out"

    def said(*words: object) -> str:
        assert predict(*words, "--out", out) == 2
        assert not out.exists(), "nothing was written"
        return capsys.readouterr().err

    assert "give the folder of one run" in said(tmp_path / "nowhere", photos)
    assert f"give one of them, {run}" in said(run.parent, photos)
    assert "did you mean 'depth'" in said(run, photos, "--tasks", "dept")
    assert "no image in the folder" in said(run, tmp_path)
    assert "no file matches" in said(run, tmp_path / "*.jpg")
    assert "the nearest size that works is" in said(run, photos, "--size", "33", "47")
    assert "give one" in said(run, photos, "--own-size", "--window", "32", "32")
    np.save(tmp_path / "five.npy", np.zeros((40, 40, 5), np.uint8))
    assert "five.npy has 5 channels; the model takes images of 3" in said(run, tmp_path)

    weights.rename(weights.with_name("moved.safetensors"))
    try:
        text = said(run, photos)
        assert str(weights) in text and "--weights FILE" in text
        moved = weights.with_name("moved.safetensors")
        assert predict(run, photos, "--out", tmp_path / "ok", "--weights", moved) == 0
        assert "no file" in said(run, photos, "--weights", tmp_path / "none.safetensors")
    finally:
        weights.with_name("moved.safetensors").rename(weights)

    other = tmp_path / "other"
    shutil.copytree(run, other)
    shutil.rmtree(other / "best")
    assert "has no best/ yet; take last (--which)" in said(other, photos)
    identity = json.loads((other / "run.json").read_text())
    del identity["predicting"]
    (other / "run.json").write_text(json.dumps(identity))
    assert "Start the training's command again" in said(other, photos, "--which", "last")
    del identity["about"]["backbone"]
    (other / "run.json").write_text(json.dumps(identity))
    assert "a script of its own" in said(other, photos, "--which", "last")


def test_a_name_or_a_folder_that_isn_t_there_is_said(
    trained: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'last'"):
        load_run(trained[2], "lats")
    with pytest.raises(CheckpointError, match="no folder"):
        load_run(tmp_path / "nowhere")


def test_a_device_that_isn_t_there_is_said() -> None:
    assert choose_device("cpu") == "cpu"
    with pytest.raises(UnknownNameError, match="unknown device 'gpu'"):
        choose_device("gpu")


def test_loading_a_run_draws_no_random_numbers(trained: tuple[Path, Path, Path]) -> None:
    before = torch.get_rng_state()
    load_run(trained[2])
    assert torch.equal(before, torch.get_rng_state())
