"""A tiny run on a folder of one's own, with tasks of every kind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from timm.models.swin_transformer import SwinTransformer

from peft_dense.cli import main
from peft_dense.data.made.archive import make_archive

SIZE = (32, 48)
NET: dict[str, Any] = {
    "img_size": 32,
    "window_size": 4,
    "embed_dim": 8,
    "depths": [1, 1],
    "num_heads": [1, 2],
}
TASKS = "semseg,sal,depth,normals,edge,roofs=binary"


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A folder of one's own, the backbone's weights, and a run on them."""
    root = tmp_path_factory.mktemp("predict")
    data = make_archive(root / "data", train=4, val=3, size=(40, 56), layout="folder")
    shutil.copytree(data / "sal", data / "roofs")
    torch.manual_seed(7)
    weights = root / "swin.safetensors"
    save_file(SwinTransformer(**NET).state_dict(), weights)
    command = [
        *("train", "--data", str(data), "--tasks", TASKS, "--weights", str(weights)),
        *("--backbone-args", json.dumps(NET), "--image-size", *map(str, SIZE), "--batch", "2"),
        *("--head-width", "8", "--steps", "2", "--pictures", "0", "--cpu", "--window", "4"),
        *("--out", str(root / "runs")),
    ]
    assert main(command) == 0
    return data, weights, root / "runs" / "vmt_lite"
