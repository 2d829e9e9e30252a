"""Any map-style data set: a plain list trains, and columns are decoded as files are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from peft_dense import DenseModel, inject
from peft_dense.counting import build
from peft_dense.data import DescribedItems, Pack, Resize, Scenes, inspect_labels, tasks_of
from peft_dense.data.transforms import Compose
from peft_dense.errors import DataError, LabelSizeError
from peft_dense.tasks import task
from peft_dense.training import Recipe, Trainer

H, W = 32, 32


def rows(number: int = 4) -> list[dict]:
    """What the Hub's `datasets` gives: Pillow's images in columns."""
    made = []
    for item in Scenes(number, (H, W), ["semseg", "sal", "depth"]):
        pixels = (255 * item["image"]).byte().movedim(0, -1).numpy()
        made.append(
            {
                "pixel_values": Image.fromarray(pixels),
                "annotation": Image.fromarray((item["semseg"] + 1).byte().numpy()),
                "mask": (255 * item["sal"]).byte().numpy(),
                "depth": torch.from_numpy(1000 * item["depth"][0].numpy()).short(),
            }
        )
    return made


TASKS = {
    "semseg": {"labels": "annotation", "values": ["ignore", *range(7)], "classes": 7},
    "sal": {"labels": "mask"},
    "depth": {"labels": "depth", "unit": "mm"},
}


def model_for(known: dict) -> DenseModel:
    torch.manual_seed(0)
    small = {"img_size": (H, W), "window_size": 4, "embed_dim": 16, "depths": (1, 1, 1, 1)}
    net = build(
        "timm.models.swin_transformer:SwinTransformer", {**small, "num_heads": (1, 1, 2, 2)}
    )
    encoder = inject(net, "vmt_lite", tasks=tuple(known))
    return DenseModel(encoder, {name: each.channels for name, each in known.items()}, width=8)


def test_a_plain_list_of_dicts_trains(tmp_path: Path) -> None:
    items = [
        {"image": item["image"], "semseg": item["semseg"], "sal": item["sal"]}
        for item in Scenes(4, (H, W), ["semseg", "sal"])
    ]
    known = {"semseg": task("semseg", channels=7), "sal": task("sal")}
    recipe = Recipe(steps=2, batch=2, pictures=1)
    result = Trainer(model_for(known), known, items, items[:2], recipe, tmp_path, label="x").fit()
    assert set(result["scores"]) == {"semseg", "sal"}
    assert (tmp_path / "grid.png").is_file() and json.loads((tmp_path / "results.json").read_text())


def test_columns_become_items_and_train(tmp_path: Path) -> None:
    data = DescribedItems(rows(), TASKS, Compose(Resize((H, W)), Pack()), image="pixel_values")
    assert not inspect_labels(data)
    known = tasks_of(data)
    assert {name: each.channels for name, each in known.items()} == {
        "semseg": 7,
        "sal": 1,
        "depth": 1,
    }
    recipe = Recipe(steps=1, batch=2, pictures=0)
    Trainer(model_for(known), known, data, data, recipe, tmp_path, label="x").fit()
    assert (tmp_path / "results.json").is_file()


def test_columns_hold_what_was_put_in() -> None:
    data = DescribedItems(rows(), TASKS, image="pixel_values")
    for item, scene in zip(
        (data[n] for n in range(len(data))),
        Scenes(4, (H, W), ["semseg", "sal", "depth"]),
        strict=True,
    ):
        assert (item["image"] - scene["image"]).abs().max() <= 1 / 255
        assert torch.equal(item["semseg"], scene["semseg"])
        assert torch.equal(item["sal"], scene["sal"])
        assert (item["depth"] - scene["depth"]).abs().max() < 0.0011


def test_tuples_as_torchvision_gives_them_paths_and_missing_labels(tmp_path: Path) -> None:
    Image.new("RGB", (6, 4), "red").save(tmp_path / "a.png")
    np.save(tmp_path / "l.npy", np.eye(4, 6))
    items = [
        (Image.new("L", (6, 4), 255), Image.fromarray(np.eye(4, 6, dtype=np.uint8))),
        (str(tmp_path / "a.png"), tmp_path / "l.npy"),
        (torch.rand(3, 4, 6), None),
    ]
    data = DescribedItems(items, {"roofs": {"labels": "1", "kind": "binary"}}, image=0)
    assert [int((data[n]["roofs"] == 1).sum()) for n in range(3)] == [4, 4, 0]
    assert (data[2]["roofs"] == 255).all() and data[0]["image"].shape == (3, 4, 6)
    assert data[1]["image"][:, 0, 0].tolist() == [1, 0, 0]
    assert data[0]["meta"]["kinds"]["roofs"].name == "binary"


@pytest.mark.parametrize(
    ("row", "how", "said"),
    [
        ({"image": 1, "x": 2}, {"labels": "y"}, r"item 0 has no 'y'; it has 'image', 'x'"),
        (
            {"image": "img", "y": np.eye(4, 6)},
            {"labels": "y", "values": {0: 0}, "classes": 2},
            "item 0, y holds the value 1",
        ),
        (
            {"image": "img", "y": np.eye(3, 6)},
            {"labels": "y", "classes": 2},
            "item 0, y is 3 x 6, its image 4 x 6",
        ),
        (
            {"image": "img", "y": {}},
            {"labels": "y", "classes": 2},
            "holds dict; expected an image, an array",
        ),
        ({"image": None, "y": np.eye(4, 6)}, {"labels": "y", "classes": 2}, "item 0 has no image"),
    ],
)
def test_what_a_column_cannot_be(row: dict, how: dict, said: str) -> None:
    row = {
        k: np.zeros((4, 6, 3), np.uint8) if isinstance(v, (str, int)) else v for k, v in row.items()
    }
    with pytest.raises((DataError, LabelSizeError), match=said):
        DescribedItems([row], {"semseg": how})[0]


def test_depth_in_whole_numbers_needs_a_unit() -> None:
    row = {"image": np.zeros((4, 6, 3), np.uint8), "depth": np.full((4, 6), 1500, np.uint16)}
    with pytest.raises(
        DataError, match="item 0, depth holds depth in whole numbers; expected floats"
    ):
        DescribedItems([row], {"depth": {"labels": "depth"}})[0]
    assert DescribedItems([row], {"depth": {"unit": "mm"}})[0]["depth"].max() == 1.5
