"""examples/pretrain_demo.py in miniature, and the file it left in the repository."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors import safe_open

pytest.importorskip("accelerate")
pytest.importorskip("tensorboard")

from peft_dense.data import Scenes
from peft_dense.data.made import scenes as rendering
from peft_dense.errors import CheckpointError
from peft_dense.tasks import tasks
from peft_dense.training import Setup, make_backbone
from peft_dense.training.building import load_weights

ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT / "examples" / "demo_backbone.safetensors"
MINIATURE = ["--scenes", "4", "--steps", "2", "--batch", "2", "--points", "4"]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        f"{name}_script", ROOT / "examples" / f"{name}.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load("pretrain_demo")


def backbone() -> torch.nn.Module:
    torch.manual_seed(5)
    return make_backbone(Setup(pretrained=False))


# -------------------------------------------------------------------- the command


def test_in_miniature_it_writes_weights_that_the_demo_loads(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it never renders a label: what would is taken away."""

    def forbidden(*_: object) -> None:
        raise AssertionError("pretraining asked for labels")

    for owner, name in ((Scenes, "labels"), (Scenes, "__getitem__"), (rendering, "_render")):
        monkeypatch.setattr(owner, name, forbidden)
    out = tmp_path / "new" / "net.safetensors"
    script.main([*MINIATURE, "--out", str(out)])
    assert [path.name for path in out.parent.iterdir()] == [out.name]  # nothing half-written left
    net = backbone()
    before = {name: p.clone() for name, p in net.named_parameters()}
    assert load_weights(net, out) == []
    with safe_open(out, "pt") as file:
        assert all(
            torch.equal(p, file.get_tensor(name).float()) for name, p in net.named_parameters()
        )
    moved = [name for name, p in net.named_parameters() if not torch.equal(p, before[name])]
    assert "patch_embed.proj.weight" in moved and len(moved) > len(before) / 2


def test_it_is_given_pictures_and_what_is_there_only(script: ModuleType) -> None:
    images, there = script.render(3, seed=0)
    assert images.shape == (3, 2, 3, *script.SIZE) and images.dtype == torch.uint8
    assert there.shape == (3, len(script.KINDS)) and set(there.unique().tolist()) <= {0, 1}
    assert not {*script.KINDS} & {*tasks()}
    again, same = script.render(3, seed=0)
    assert torch.equal(images, again) and torch.equal(there, same)


def test_a_point_is_found_again_in_both_crops(script: ModuleType) -> None:
    """On pictures whose channels are the coordinates, the crop at a point's place is the point."""
    torch.manual_seed(0)
    height, width = script.SIZE
    x = (torch.arange(width) + 0.5) / width * 2 - 1
    y = (torch.arange(height) + 0.5) / height * 2 - 1
    picture = torch.stack([x.expand(height, width), y[:, None].expand(height, width)])
    crops = script.Crops(6), script.Crops(6)
    points = script.common_points(*crops, 40)
    for crop in crops:
        places = crop.places(points)
        assert places.abs().max() <= 1 + 1e-4
        view = crop.cut(picture.expand(6, -1, -1, -1).contiguous())
        found = torch.nn.functional.grid_sample(
            view, places[:, :, None], padding_mode="border", align_corners=False
        )[..., 0].transpose(1, 2)
        inner = (places.abs() < 0.95).all(-1)
        assert (found - points)[inner].abs().max() < 0.02


def test_contrast_is_low_where_views_agree_and_points_differ(script: ModuleType) -> None:
    torch.manual_seed(0)
    points = torch.rand(2, 8, 2) * 2 - 1
    features = torch.nn.functional.normalize(torch.randn(16, 64), dim=1)
    same = script.contrast(features, features, points)
    other = script.contrast(features, features.roll(1, 0), points)
    level = script.contrast(features[:1].expand(16, -1), features[:1].expand(16, -1), points * 1e3)
    assert same < level < other
    assert level.item() == pytest.approx(torch.tensor(16.0).log().item(), rel=1e-4)
    # Points on one spot of a scene aren't held apart, those of other scenes are.
    heap = script.contrast(features[:1].expand(16, -1), features[:1].expand(16, -1), points * 0)
    assert heap.item() == pytest.approx(torch.tensor(9.0).log().item(), rel=1e-4)


# -------------------------------------------------------------------- the file


def test_the_file_is_small_and_holds_the_whole_backbone() -> None:
    assert WEIGHTS.stat().st_size < 6_000_000
    with safe_open(WEIGHTS, "pt") as file:
        assert "examples/pretrain_demo.py" in file.metadata()["made by"]
        names = set(file.keys())
        assert {file.get_tensor(name).dtype for name in names} == {torch.float16}
    net = backbone()
    assert names == {name for name, _ in net.named_parameters()}
    assert load_weights(net, WEIGHTS) == []
    assert all(p.isfinite().all() for p in net.parameters())


def test_the_file_lies_outside_what_the_wheel_packs() -> None:
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    hatch = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]
    wheel = hatch["build"]["targets"]["wheel"]
    assert wheel == {"packages": ["src/peft_dense"]}  # no force-include, no artifacts
    assert not list((ROOT / "src").rglob("*.safetensors"))


def test_the_example_takes_it_unless_told_otherwise(tmp_path: Path) -> None:
    train = load("train")
    chosen = lambda *words: train.with_demo_weights(train.parse(words)).weights  # noqa: E731
    assert chosen() == WEIGHTS and chosen("--data", "made") == WEIGHTS
    assert chosen("--no-pretrained") is None and chosen("--data", str(tmp_path)) is None
    assert chosen("--backbone", "resnet18") is None
    assert chosen("--backbone-args", '{"embed_dim": 8}') is None
    assert chosen("--weights", "mine.safetensors") == Path("mine.safetensors")
    missing = tmp_path / "none.safetensors"
    with pytest.raises(CheckpointError, match=r"pretrain_demo.py --out .*none.safetensors.*--no-p"):
        train.with_demo_weights(train.parse([]), missing)
