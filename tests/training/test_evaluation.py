"""Images are normalised as the backbone was pretrained; predictions are scored at labels' size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor
from torch.nn import functional as F

pytest.importorskip("accelerate")
pytest.importorskip("tensorboard")

from peft_dense import DenseModel, inject
from peft_dense.data import Resize, Scenes
from peft_dense.errors import DataError
from peft_dense.predicting import normalise
from peft_dense.tasks import task
from peft_dense.training import evaluate, picture, predict

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
KNOWN = {name: task(name) for name in ("sal", "depth")}


def make_model(about: dict[str, Any] | None = None) -> DenseModel:
    torch.manual_seed(0)
    net = SwinTransformer(img_size=32, window_size=4, embed_dim=12, depths=(1,), num_heads=(1,))
    if about is not None:
        net.pretrained_cfg = about
    return DenseModel(inject(net, "vmt_lite", tasks=tuple(KNOWN)), {"sal": 1, "depth": 1}, width=8)


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        (None, IMAGENET),
        ({}, IMAGENET),
        ({"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7)}, ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))),
        ({"mean": (0.5, 0.5, 0.5), "std": None}, ((0.5, 0.5, 0.5), IMAGENET[1])),
    ],
    ids=["none", "empty", "own", "own mean"],
)
def test_the_models_own_mean_and_deviation_count(
    about: dict[str, Any] | None, expected: tuple[tuple[float, ...], tuple[float, ...]]
) -> None:
    images = torch.rand(2, 3, 4, 5)
    found = normalise(make_model(about), images)
    for channel, (mean, std) in enumerate(zip(*expected, strict=True)):
        torch.testing.assert_close(found[:, channel], (images[:, channel] - mean) / std)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_than_three_take_the_average(channels: int) -> None:
    images = torch.rand(2, channels, 4, 5)
    about = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    torch.testing.assert_close(normalise(make_model(about), images), (images - 0.2) / 0.5)


def test_training_and_scoring_see_the_same_images() -> None:
    """What predict hands the model is what normalise gives."""
    model, seen = make_model({"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}), []
    model.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    images = torch.rand(2, 3, 32, 32)
    predict(model.train(), images)
    assert model.training and torch.equal(seen[0], normalise(model, images))


class Native:
    """An item whose label is larger than its image."""

    tasks = ("depth",)
    transform = None

    def __init__(self, label: Tensor) -> None:
        self.label = label

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(3)
        image = torch.rand(3, 32, 32, generator=generator)
        return {"image": image, "depth": self.label, "meta": {"id": "a"}}


def test_predictions_are_brought_to_the_labels_size() -> None:
    """Pixel centres stay where they are: corners of the two maps don't coincide."""
    model, size = make_model(), (80, 48)
    model.heads["depth"].register_forward_hook(lambda _, __, made: made + 9)  # metres are positive
    data = Native(torch.ones(1, *size))
    made = predict(model, data[0]["image"][None], ["depth"])["depth"]
    assert made.min() > 0
    for corners, right in ((False, True), (True, False)):
        data.label = F.interpolate(made, size, mode="bilinear", align_corners=corners)[0]
        rmse = evaluate(model, {"depth": KNOWN["depth"]}, data)["depth"]["rmse"]
        assert (rmse < 1e-5) == right


def test_parts_of_the_data_make_up_its_scores() -> None:
    scenes = Scenes(5, (32, 32), tuple(KNOWN), transform=Resize((32, 32)))
    model = make_model()
    whole = evaluate(model, KNOWN, scenes, batch=5)
    assert set(whole) == {"sal", "depth"}
    for batch, workers in ((1, 0), (2, 1)):
        found = evaluate(model, KNOWN, scenes, batch=batch, workers=workers)
        for name, metrics in whole.items():
            assert found[name] == pytest.approx(metrics, rel=1e-5)


def test_what_is_drawn_is_computed_as_asked() -> None:
    scenes = Scenes(3, (32, 32), tuple(KNOWN), transform=Resize((32, 32)))
    model, seen = make_model(), []
    model.register_forward_pre_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    sheets = [picture(model, KNOWN, scenes, 2, **how) for how in ({}, {"bf16": True})]
    assert seen == [False, True]
    # A row of titles, then of each example two rows: its image and truths, and what was found.
    assert {sheet.size for sheet in sheets} == {(3 * (32 + 4), 14 + 2 * (32 + 4 + 32 + 12))}


class Broken(Scenes):
    def __getitem__(self, index: int) -> dict[str, Any]:
        if index == 2:
            raise DataError("can't read c.jpg")
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_image_is_named_the_same_from_a_worker(workers: int) -> None:
    scenes = Broken(4, (32, 32), tuple(KNOWN), transform=Resize((32, 32)))
    with pytest.raises(DataError) as error:
        evaluate(make_model(), KNOWN, scenes, batch=2, workers=workers)
    assert str(error.value) == "can't read c.jpg"
    skipped: set[str] = set()
    evaluate(make_model(), KNOWN, scenes, batch=2, workers=workers, skip_bad=True, skipped=skipped)
    assert skipped == {"can't read c.jpg"}
