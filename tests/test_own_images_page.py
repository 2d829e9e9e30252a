"""The page on one's own images: its commands run as they stand, only on less."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

pytest.importorskip("accelerate")
pytest.importorskip("tensorboard")

from peft_dense.cli import main

PAGE = Path(__file__).parents[1] / "docs" / "own_images.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SWIN = {"img_size": 32, "patch_size": 4, "window_size": 4, "embed_dim": 12}
SWIN |= {"depths": [1, 1], "num_heads": [1, 2], "num_classes": 0}
CLASS = "timm.models.swin_transformer:SwinTransformer"
LESS = {
    "--train 200 --val 40 --size 192 256": "--train 4 --val 2 --size 32 48",
    "--backbone swin_tiny_patch4_window7_224 --pretrained --image-size 224 224": (
        f"--backbone {CLASS} --backbone-args '{json.dumps(SWIN)}' --no-pretrained "
        "--image-size 32 32 --head-width 8 --workers 0 --cpu"
    ),
    "--epochs 40 --bf16": "--steps 2 --batch 2",
}


def commands() -> list[str]:
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    return [" ".join(block.replace("\\\n", " ").split()) for block in blocks]


def test_the_page_from_images_to_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    ran, unused = [], set(LESS)
    for command in commands():
        less = command
        for long, short in LESS.items():
            unused -= {long} if long in less else set()
            less = less.replace(long, short)
        program, *arguments = shlex.split(less)
        assert program == "peft-dense"
        assert main(arguments) == 0, f"{less}\n{capsys.readouterr().err}"
        ran.append(arguments[0])
    assert not unused, "the page has changed; LESS must follow"
    assert ran == ["data", "data", "data", "train", "evaluate", "predict"]
    for left in ("samples.png", "seen/contact_sheet.png", "runs/photos/vmt_lite/grid.png"):
        assert (tmp_path / left).is_file()
    seen = {path.name for path in (tmp_path / "seen").iterdir() if path.is_dir()}
    assert {"semseg", "depth", "side_by_side", "overlay"} <= seen
