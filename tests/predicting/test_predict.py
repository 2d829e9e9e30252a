"""Predicting: own sizes, any input, the model untouched, whole and tiles, mirrored and not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from peft_dense import DenseModel, inject, predict
from peft_dense.data.images import as_picture
from peft_dense.errors import (
    DataError,
    HyperparameterError,
    ImageSizeError,
    MissingFileError,
    MissingPackageError,
    UnknownNameError,
)
from peft_dense.predicting import Prediction, memory, passes, prepare, raw_maps
from peft_dense.predicting.deciding import decide_at
from peft_dense.tasks import Task, task

KINDS: dict[str, Task] = {
    "semseg": task("semseg", channels=5),
    "many": task("many", kind="segmentation", channels=300),
    "roofs": task("roofs", kind="binary"),
    "edge": task("edge"),
    "normals": task("normals"),
    "depth": task("depth"),
}
SIZE = (32, 48)


class Local(nn.Module):
    """Two stages of convolutions: what a pixel of the output sees is near it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 4, stride=4)
        self.second = nn.Conv2d(6, 8, 2, stride=2)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> list[Tensor]:
        first = torch.tanh(self.first(x))
        return [first, torch.tanh(self.second(self.drop(first)))]


def make(net: nn.Module, seed: int = 1, **heads: Any) -> DenseModel:
    torch.manual_seed(seed)
    encoder = inject(net, "decoders_only", tasks=tuple(KINDS))
    channels = {name: each.channels for name, each in KINDS.items()}
    model = DenseModel(encoder, channels, **{"width": 8, **heads}).eval()
    with torch.no_grad():
        for name, parameter in model.heads.named_parameters():
            if name.endswith("classify.bias"):
                parameter.normal_()
            if name.endswith("classify.weight"):
                parameter.normal_(0, 2)
    found = raw_maps(model, torch.from_numpy(photo(64, 96)).movedim(-1, 0)[None] / 255)
    assert all(float(each.std((-1, -2)).mean()) > 0.1 for each in found.values())
    return model


@pytest.fixture(scope="module")
def model() -> DenseModel:
    torch.manual_seed(0)
    return make(timm.create_model("pvt_v2_b0"))


@pytest.fixture(scope="module")
def local() -> DenseModel:
    torch.manual_seed(0)
    return make(Local())


def photo(height: int, width: int, seed: int = 0, to: type = np.uint8) -> Any:
    """Smooth blobs: what resampling does to noise is no photograph."""
    drawn = torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    smooth = F.interpolate(drawn, (height, width), mode="bicubic", align_corners=True).clamp(0, 1)
    array = smooth[0].movedim(0, -1).numpy()
    return (255 * array).round().astype(np.uint8) if to is np.uint8 else array


def only(found: Any) -> Prediction:
    (one,) = found
    return one


def agree(a: Prediction, b: Prediction, share: float = 0.999, atol: float = 1e-4) -> None:
    """Numbers are equal but for rounding; classes but for pixels where two are as good."""
    for name, label in a.labels.items():
        assert label.shape == b.labels[name].shape and label.dtype == b.labels[name].dtype
        if label.is_floating_point():
            torch.testing.assert_close(label, b.labels[name], rtol=1e-4, atol=atol)
        else:
            assert (label == b.labels[name]).float().mean() >= share


# ---------------------------------------------------------------------- what comes out


def test_labels_have_each_image_s_own_size_and_what_their_kind_holds(model: DenseModel) -> None:
    shapes = [(50, 70), (33, 21), (64, 96)]
    images = [photo(*shape, seed) for seed, shape in enumerate(shapes)]
    found = list(predict(model, images, tasks=KINDS, size=(64, 64), batch=2))
    assert [each.size for each in found] == shapes
    for each, shape in zip(found, shapes, strict=True):
        assert each.labels.keys() == KINDS.keys() and each.is_finite()
        assert {n: tuple(x.shape) for n, x in each.labels.items()} == {
            **dict.fromkeys(KINDS, shape),
            "normals": (3, *shape),
        }
        types = {name: x.dtype for name, x in each.labels.items()}
        whole = {"semseg": torch.uint8, "many": torch.int32}
        assert types == {**dict.fromkeys(KINDS, torch.float32), **whole}
        assert int(each.labels["semseg"].max()) < 5 and int(each.labels["many"].max()) < 300
        for name in ("roofs", "edge"):
            assert 0 <= float(each.labels[name].min()) <= float(each.labels[name].max()) <= 1
        lengths = each.labels["normals"].norm(dim=0)
        torch.testing.assert_close(lengths, torch.ones_like(lengths))


def test_mixed_sizes_together_equal_one_by_one(model: DenseModel) -> None:
    images = [photo(40, 60), photo(60, 40, 1), photo(40, 60, 2), photo(64, 64, 3)]
    for size in ((64, 64), None):
        together = list(predict(model, images, tasks=KINDS, size=size, batch=3))
        assert [each.name for each in together] == [f"image-{n:04d}" for n in (1, 2, 3, 4)]
        for image, each in zip(images, together, strict=True):
            agree(each, only(predict(model, image, tasks=KINDS, size=size)))


def test_it_is_what_the_model_gives_of_what_validation_shows_it(model: DenseModel) -> None:
    image = photo(50, 70)
    shown = prepare(as_picture(image, "a"), (64, 96))[None].float() / 255
    raw = raw_maps(model, shown)
    found = only(predict(model, image, tasks=KINDS, size=(64, 96)))
    for name, each in KINDS.items():
        whole = F.interpolate(raw[name], (50, 70), mode="bilinear", align_corners=False)
        expected, got = each.decide(whole)[0], found.labels[name]
        if got.is_floating_point():
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
        else:
            assert (got == expected).float().mean() > 0.999


@pytest.mark.parametrize("size", [(5, 7), (31, 9), (3, 40)])
def test_deciding_a_few_rows_at_a_time_is_interpolating_and_deciding(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peft_dense.predicting.deciding._VALUES", 64)
    raw = torch.randn(3, 9, 12, generator=torch.Generator().manual_seed(0))
    whole = F.interpolate(raw[None], size, mode="bilinear", align_corners=False)
    for name in ("normals", "semseg"):
        each = task(name, channels=3)
        expected = each.decide(whole)[0]
        got = decide_at(each, raw, size)
        torch.testing.assert_close(got.float(), expected.float(), rtol=1e-4, atol=1e-5)


def test_own_mean_and_deviation_are_the_backbone_s() -> None:
    net = Local()
    grey = torch.full((1, 3, 8, 8), 0.5)
    torch.manual_seed(0)
    model = make(net)
    torch.testing.assert_close(
        passes.normalise(model, grey)[0, 0, 0, 0].item(), 0.0655, atol=1e-3, rtol=0
    )
    net.pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.25,) * 3}  # type: ignore[assignment]
    assert float(passes.normalise(model, grey).abs().max()) == 0


# ---------------------------------------------------------------------- whole, tiles, mirrors


def test_tiles_and_whole_agree_away_from_the_cuts(local: DenseModel) -> None:
    """Of the local model a pixel sees 16 others to each side; the cuts are at columns 32 and 96."""
    image = photo(96, 128)
    whole = only(predict(local, image, tasks=KINDS))
    tiles = only(predict(local, image, tasks=KINDS, window=(96, 96), overlap=0.6, batch=3))
    agree(whole, only(predict(local, image, tasks=KINDS, window=(96, 128))))
    away = torch.ones(128, dtype=torch.bool)
    away[16:48] = away[80:112] = False
    for name, label in whole.labels.items():
        a, b = label[..., away].float(), tiles.labels[name][..., away].float()
        assert float((a - b).abs().gt(1e-3).float().mean()) < 1e-3, name
    depth = whole.labels["depth"] - tiles.labels["depth"]
    assert float(depth.abs().max()) > 1e-3  # near the cuts they do differ


def test_no_seam_shows_where_windows_meet(local: DenseModel) -> None:
    image = photo(64, 160)
    depth = only(predict(local, image, tasks=KINDS, window=(64, 64), overlap=0.5)).labels["depth"]
    whole = only(predict(local, image, tasks=KINDS)).labels["depth"]
    jumps = [float(each.diff(dim=1).abs().max()) for each in (depth, whole)]
    assert jumps[0] < 1.5 * jumps[1]


@pytest.mark.parametrize("window", [(64, 64), (96, 128)])
def test_an_image_smaller_than_a_window_has_its_own_size(
    local: DenseModel, window: tuple[int, int]
) -> None:
    found = only(predict(local, photo(50, 90), tasks=KINDS, window=window))
    assert found.size == (50, 90) and found.is_finite()


def test_averaged_with_the_mirrored_it_follows_a_mirror(model: DenseModel) -> None:
    image = photo(64, 96)
    plain, turned = (
        only(predict(model, each, tasks=KINDS, flip=True)) for each in (image, image[:, ::-1])
    )
    back = {name: label.flip(-1) for name, label in turned.labels.items()}
    back["normals"] = back["normals"] * torch.tensor([-1.0, 1, 1])[:, None, None]
    agree(plain, Prediction("b", "b", plain.image, back, KINDS, 0.0), atol=1e-3)
    # The law says something: without the mean the model doesn't follow.
    one = only(predict(model, image, tasks=KINDS)).labels["normals"]
    assert float((one - plain.labels["normals"]).abs().max()) > 1e-3


def test_a_mean_of_normals_is_one_of_directions() -> None:
    long, short = torch.tensor([100.0, 0, 0]), torch.tensor([0, 0.01, 0])
    votes = task("normals").votes(torch.stack([long, short])[..., None, None])
    torch.testing.assert_close(votes.mean(0).flatten(), torch.tensor([0.5, 0.5, 0]))


# ---------------------------------------------------------------------- the model stays


def test_the_model_is_left_as_it_was(local: DenseModel) -> None:
    local.train()
    local.heads["depth"].eval()
    weight = next(local.parameters())
    weight.requires_grad_(True)
    weight.grad = torch.ones_like(weight)
    modes = [module.training for module in local.modules()]
    flags = [p.requires_grad for p in local.parameters()]
    state = {name: value.clone() for name, value in local.state_dict().items()}
    random = torch.get_rng_state()
    found = predict(local, [photo(32, 48)] * 3, tasks=KINDS, batch=1)
    next(found)  # also while it is under way
    assert [module.training for module in local.modules()] == modes
    results = list(found)
    assert [module.training for module in local.modules()] == modes
    assert [p.requires_grad for p in local.parameters()] == flags
    assert bool((weight.grad == 1).all()) and not results[0].labels["depth"].requires_grad
    assert all(torch.equal(value, state[name]) for name, value in local.state_dict().items())
    assert torch.equal(random, torch.get_rng_state()) and torch.is_grad_enabled()
    # In evaluation mode while it looks: dropout drew nothing.
    agree(results[0], results[1])
    weight.grad = None
    local.eval()


def test_a_pass_that_fails_leaves_the_modes_too(local: DenseModel) -> None:
    local.train()

    def fail() -> None:
        with passes.undisturbed(local):
            assert not any(module.training for module in local.modules())
            raise RuntimeError("full")

    with pytest.raises(RuntimeError, match="full"):
        fail()
    assert local.training
    local.eval()


def test_all_tasks_cost_one_pass(local: DenseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    forward = DenseModel.forward
    monkeypatch.setattr(
        DenseModel, "forward", lambda *a, **k: calls.append(a[1].shape) or forward(*a, **k)
    )
    list(predict(local, [photo(32, 48)] * 4, tasks=KINDS, batch=4))
    assert calls == [(4, 3, 32, 48)]


# ---------------------------------------------------------------------- what goes in


def test_an_image_is_the_same_however_it_is_given(local: DenseModel, tmp_path: Path) -> None:
    array = photo(32, 48)
    Image.fromarray(array).save(tmp_path / "a.png")
    tensor = torch.from_numpy(array).movedim(-1, 0)
    given: list[Callable[[], Any]] = [
        lambda: tmp_path / "a.png",
        lambda: str(tmp_path / "*.png"),
        lambda: tmp_path,
        lambda: Image.open(tmp_path / "a.png"),
        lambda: tensor,
        lambda: tensor[None],
        lambda: tensor.float() / 255,
        lambda: (each for each in [array]),
        lambda: [tmp_path / "a.png"],
    ]
    expected = only(predict(local, array, tasks=KINDS))
    for each in given:
        agree(only(predict(local, each(), tasks=KINDS)), expected)


def test_files_are_turned_as_they_are_shown_and_named_by_their_place(
    local: DenseModel, tmp_path: Path
) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    (tmp_path / "deep").mkdir()
    Image.fromarray(photo(32, 48)).save(tmp_path / "deep" / "b.jpg", exif=turned)
    Image.fromarray(photo(32, 48)).save(tmp_path / "deep" / "b.png")
    (tmp_path / "out").mkdir()
    Image.fromarray(photo(32, 48)).save(tmp_path / "out" / "c.png")
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no image")
    found = list(predict(local, tmp_path, tasks=KINDS, leave_out=tmp_path / "out"))
    assert [(each.name, each.size) for each in found] == [
        ("deep/b", (48, 32)),
        ("deep/b-2", (32, 48)),
    ]


def test_sixteen_bits_are_scaled_by_white(local: DenseModel, tmp_path: Path) -> None:
    grey = (4095 * photo(32, 48, to=float)[..., 0]).round().astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    expected = np.repeat((grey / 4095).astype(np.float32)[..., None], 3, axis=-1)
    agree(
        only(predict(local, tmp_path / "a.png", tasks=KINDS, white=4095)),
        only(predict(local, expected, tasks=KINDS)),
    )


def test_frames_of_a_video(local: DenseModel, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "clip.mp4"), "w") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for seed in range(5):
            frame = av.VideoFrame.from_ndarray(photo(32, 48, seed), format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    found = list(predict(local, tmp_path / "clip.mp4", tasks=KINDS, every=2))
    assert [each.name for each in found] == ["clip-000000", "clip-000002", "clip-000004"]
    for each, seed in zip(found, (0, 2, 4), strict=True):
        there = torch.from_numpy(photo(32, 48, seed)).movedim(-1, 0).float()
        assert (each.image.float() - there).abs().mean() < 10
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    skipped: list[str] = []
    assert not list(predict(local, tmp_path / "bad.mp4", tasks=KINDS, skipped=skipped))
    assert "bad.mp4" in skipped[0] and "whole" in skipped[0]


def test_a_video_without_its_reader_names_the_extra(
    local: DenseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(MissingPackageError, match=r"peft-dense\[video\]"):
        predict(local, tmp_path / "clip.mp4", tasks=KINDS)


def test_a_bar_counts_the_images(local: DenseModel, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(list(predict(local, [photo(32, 48)] * 3, tasks=KINDS, progress=True))) == 3
    assert "predicting" in capsys.readouterr().err
    list(predict(local, photo(32, 48), tasks=KINDS))
    assert not capsys.readouterr().err


# ---------------------------------------------------------------------- what can't be


def test_it_goes_on_after_a_bad_image_and_says_so(local: DenseModel, tmp_path: Path) -> None:
    for name in ("a", "c"):
        Image.fromarray(photo(32, 48)).save(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    np.save(tmp_path / "d.npy", np.zeros((32, 48, 5), np.uint8))
    skipped: list[str] = []
    found = list(predict(local, tmp_path, tasks=KINDS, skipped=skipped, batch=8))
    assert [each.name for each in found] == ["a", "c"]
    assert "b.png" in skipped[0] and "d.npy has 5 channels" in skipped[1]
    with pytest.raises(DataError, match=r"b\.png"):
        list(predict(local, tmp_path, tasks=KINDS))


def test_an_image_too_large_for_the_memory_names_windows_and_size(
    local: DenseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = memory.needed_memory([3, 5, 300, 1, 1, 3, 1], (32, 48)) + 1
    monkeypatch.setattr("peft_dense.predicting.predictor.free_memory", lambda device: free)
    skipped: list[str] = []
    images = [photo(32, 48), photo(64, 96), photo(32, 48, 1)]
    found = list(predict(local, images, tasks=KINDS, skipped=skipped, batch=8))
    assert len(found) == 2
    assert "image 2 is too large" in skipped[0] and "64 x 96" in skipped[0]
    assert "--window" in skipped[0] and "--size" in skipped[0]
    assert only(predict(local, images[1], tasks=KINDS, size=(32, 48))).size == (64, 96)


def test_memory_that_runs_out_in_a_pass_is_said_of_the_image(
    local: DenseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = DenseModel.forward

    def full(self: Any, x: Tensor, tasks: Any = None) -> Any:
        if len(x) > 1 or float(x.max()) < 0:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")
        return forward(self, x, tasks)

    monkeypatch.setattr(DenseModel, "forward", full)
    skipped: list[str] = []
    images = [photo(32, 48), np.zeros((32, 48, 3), np.uint8), photo(32, 48, 1)]
    found = list(predict(local, images, tasks=KINDS, skipped=skipped))
    assert [each.name for each in found] == ["image-0001", "image-0003"]
    assert "image 2 is too large" in skipped[0]
    monkeypatch.setattr(DenseModel, "forward", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # other errors stay what they are
        list(predict(local, images, tasks=KINDS, skipped=skipped))


def test_what_can_t_be_is_said_before_anything_is_read(local: DenseModel, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'depth'"):
        predict(local, tmp_path, tasks=["dept"])
    with pytest.raises(UnknownNameError, match="name of task 'many' doesn't tell"):
        predict(local, photo(32, 48))
    with pytest.raises(HyperparameterError, match="channels=21"):
        predict(local, photo(32, 48), tasks={"semseg": task("semseg")})
    with pytest.raises(ImageSizeError, match="the nearest size that works is 32x48"):
        predict(local, photo(32, 48), tasks=KINDS, size=(33, 50))
    with pytest.raises(ImageSizeError):
        predict(local, photo(32, 48), tasks=KINDS, window=(33, 50))
    for wrong in ({"overlap": 1.0}, {"batch": 0}, {"every": 0}, {"size": (3, 4, 5)}):
        with pytest.raises(HyperparameterError):
            predict(local, photo(32, 48), tasks=KINDS, **wrong)
    for size in (64, ("64", "96"), (64, float("inf")), (64, 96.5), (True, 64)):
        for name in ("size", "window"):
            with pytest.raises(HyperparameterError, match=f"{name}=.*: expected .height, width"):
                predict(local, photo(32, 48), tasks=KINDS, **{name: size})
    with pytest.raises(MissingFileError, match="no file or folder"):
        predict(local, tmp_path / "nowhere.jpg", tasks=KINDS)
    with pytest.raises(DataError, match="no image in the folder"):
        predict(local, tmp_path, tasks=KINDS)
    with pytest.raises(DataError, match="no file matches"):
        predict(local, str(tmp_path / "*.jpg"), tasks=KINDS)
    with pytest.raises(DataError, match="there are no images"):
        predict(local, [], tasks=KINDS)
    for bad, said in ((300.0 * photo(8, 8, to=float), "0 to 1"), (3, "is a int")):
        with pytest.raises(DataError, match=said):
            list(predict(local, [bad], tasks=KINDS))
