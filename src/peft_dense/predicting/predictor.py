"""Predict images from anywhere: label maps at the images' own size, one pass for all tasks."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from peft_dense.data import on_device
from peft_dense.data.images import Picture
from peft_dense.data.transforms.draws import checked_size
from peft_dense.dense import DenseModel
from peft_dense.errors import (
    DataError,
    MissingPackageError,
)
from peft_dense.nn.checks import check_whole
from peft_dense.predicting.arguments import chosen_tasks
from peft_dense.predicting.deciding import decide_at
from peft_dense.predicting.memory import (
    check_memory,
    free_memory,
    memory_errors,
    needed_memory,
)
from peft_dense.predicting.passes import averaged_maps, votes
from peft_dense.predicting.prediction import Prediction
from peft_dense.predicting.preparing import check_channels, prepare
from peft_dense.predicting.sources import Images, Source, find_images
from peft_dense.predicting.windows import check_overlap, slide
from peft_dense.tasks import Task

__all__ = ["predict"]


def predict(
    model: DenseModel,
    images: Images,
    *,
    tasks: Sequence[str] | Mapping[str, Task] | None = None,
    size: Sequence[int] | None = None,
    window: Sequence[int] | None = None,
    overlap: float = 0.25,
    flip: bool = False,
    batch: int = 8,
    bf16: bool = False,
    white: float = 65535,
    every: int = 1,
    skipped: list[str] | None = None,
    progress: bool = False,
    leave_out: Path | None = None,
) -> Iterator[Prediction]:
    """Predict images one after another, all tasks in one pass.

    An image is resampled to ``size``, as in training's validation, and the predictions to the
    image's own size before each pixel is decided. With ``window`` the model slides over the image
    instead. The model is left as it was: modes, gradients, flags.

    `peft_dense.training.load_run` reads model, tasks and size from a run's folder.

    Args:
        model: The model, on the device where it is to run.
        images: Paths of images, folders or videos, patterns such as ``"photos/*.jpg"``, Pillow
            images, arrays (H, W, C), tensors (C, H, W) or (B, C, H, W) of bytes or of floats in
            0..1; or an iterable of these. Files are turned as they are shown.
        tasks: Names, or tasks by name, which know their classes' names; by default all.
        size: Height and width at which the model sees images, as in training; by default the
            nearest to each image's own that the backbone takes, with ``window`` its own.
        window: Height and width of windows; by default the model sees an image whole.
        overlap: The least share of a window that the next one sees again.
        flip: Whether to average with the predictions of the mirrored image.
        batch: Images at a time, as long as they have one size; windows at a time.
        bf16: Whether to autocast to bfloat16.
        white: What white is in images of 16 bits.
        every: Of a video, take every n-th frame.
        skipped: Takes the reasons why images were left out; by default the first one raises.
        progress: Whether to show a bar.
        leave_out: A folder whose files aren't taken, such as the one that results go to.

    Yields:
        A `Prediction` per image, in order.

    Raises:
        UnknownNameError: The model has no such task, or a task's name doesn't tell what its
            labels are.
        ImageSizeError: The backbone can't take ``size`` or ``window``; the nearest is named.
        HyperparameterError: Another argument has a wrong value.
        DataError: There is no image; or one can't be read, has other channels than the model takes
            or doesn't fit into the memory.

    Example:
        >>> import timm
        >>> from peft_dense import DenseModel, inject
        >>> encoder = inject(timm.create_model("pvt_v2_b0"), "vmt_lite", tasks=["semseg", "depth"])
        >>> model = DenseModel(encoder, {"semseg": 21, "depth": 1}, width=8)
        >>> for found in predict(model, torch.rand(2, 3, 50, 70)):
        ...     found.name, found.labels["semseg"].shape, found.labels["depth"].dtype
        ('image-0001', torch.Size([50, 70]), torch.float32)
        ('image-0002', torch.Size([50, 70]), torch.float32)
    """
    check_overlap(overlap)
    for name, value in (("batch", batch), ("every", every)):
        check_whole(name, value)
    sizes: dict[str, tuple[int, int]] = {}
    for name, shape in (("size", size), ("window", window)):
        if shape is not None:
            sizes[name] = checked_size(shape, name)
            model.encoder.info.check_size(*sizes[name])
    how = _How(
        model=model,
        tasks=chosen_tasks(model, tasks),
        size=sizes.get("size"),
        window=sizes.get("window"),
        overlap=overlap,
        flip=flip,
        batch=batch,
        bf16=bf16,
    )
    sources, number = find_images(images, every=every, leave_out=leave_out)
    return _predict(how, sources, number, white, skipped, progress)


@dataclass(frozen=True, kw_only=True)
class _How:
    """The arguments that hold for all images of a call."""

    model: DenseModel
    tasks: dict[str, Task]
    size: tuple[int, int] | None
    window: tuple[int, int] | None
    overlap: float
    flip: bool
    batch: int
    bf16: bool

    def size_of(self, picture: Picture) -> tuple[int, int]:
        """Height and width at which the model sees an image."""
        own = (picture.size[0], picture.size[1])
        if self.size is not None:
            return self.size
        return own if self.window is not None else self.model.encoder.info.nearest_size(*own)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def needed(self, size: tuple[int, int]) -> int:
        channels = (self.model.encoder.info.in_channels, *(t.channels for t in self.tasks.values()))
        return needed_memory(channels, size)

    def at_once(self, pixels: Tensor) -> int:
        """How many images of a size the model may see together."""
        if self.window is not None:
            return 1
        free = free_memory(self.device)
        needed = self.needed((pixels.shape[-2], pixels.shape[-1]))
        return self.batch if free is None else max(1, min(self.batch, free // needed))

    def see(self, shown: Tensor) -> dict[str, Tensor]:
        """Predict a batch of bytes."""
        images = on_device({"image": shown}, self.device)["image"]
        return averaged_maps(self.model, images, self.tasks, bf16=self.bf16, mirrored=self.flip)


@dataclass(frozen=True)
class _Shown:
    """An image that was read, as the model sees it."""

    source: Source
    picture: Picture
    pixels: Tensor


def _predict(
    how: _How,
    sources: Iterator[Source],
    number: int | None,
    white: float,
    skipped: list[str] | None,
    progress: bool,
) -> Iterator[Prediction]:
    """Read images, and predict those of one size together; leave out bad ones, or raise."""
    shown = _with_bar(sources, number) if progress else sources
    for images in _batches(how, shown, white, skipped):
        try:
            found = _pass(how, images)
        except DataError:
            found = [each for one in images for each in _alone(how, one, skipped)]
        yield from found


def _with_bar(sources: Iterable[Source], number: int | None) -> Iterable[Source]:
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise MissingPackageError.of("a progress bar", "tqdm", "train") from error
    bar: Iterable[Source] = tqdm(sources, "predicting", number, unit="image", leave=False)
    return bar


def _alone(how: _How, image: _Shown, skipped: list[str] | None) -> list[Prediction]:
    """Predict one image of a batch that failed."""
    try:
        return _pass(how, [image])
    except DataError as error:
        _leave_out(error, skipped)
        return []


def _batches(
    how: _How, sources: Iterable[Source], white: float, skipped: list[str] | None
) -> Iterator[list[_Shown]]:
    """Gather images of one size, as many as there may be at a time."""
    waiting: list[_Shown] = []
    for source in sources:
        try:
            image = _read(how, source, white)
        except DataError as error:
            _leave_out(error, skipped)
            continue
        if waiting and image.pixels.shape != waiting[0].pixels.shape:
            yield waiting
            waiting = []
        waiting.append(image)
        if len(waiting) >= how.at_once(image.pixels):
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def _read(how: _How, source: Source, white: float) -> _Shown:
    try:
        picture = source.read(white)
    except DataError as error:
        if not isinstance(error.__cause__, (MemoryError, Image.DecompressionBombError)):
            raise
        raise DataError(
            f"{source.place} is too large to be read ({error.__cause__}). Cut it into parts, or "
            "save it smaller."
        ) from error
    check_channels(picture, source.place, how.model)
    size = how.size_of(picture)
    free = free_memory(how.device)
    if free is not None:
        windows = how.window is not None
        check_memory(source.place, size, how.needed(size), free, windows)
    return _Shown(source, picture, prepare(picture, size))


def _pass(how: _How, images: Sequence[_Shown]) -> list[Prediction]:
    """Predict images of one size."""
    shown = torch.stack([image.pixels for image in images])
    start = time.perf_counter()
    size = (shown.shape[-2], shown.shape[-1])
    with memory_errors(images[0].source.place, size, how.window is not None):
        if how.window is None:
            raw = how.see(shown)
        else:
            (image,) = shown
            seen = slide(
                image, how.window, how.overlap, how.batch, how.see, partial(votes, how.tasks)
            )
            raw = {name: maps[None] for name, maps in seen.items()}
    if how.device.type == "cuda":
        torch.cuda.synchronize(how.device)
    seconds = (time.perf_counter() - start) / len(images)
    return [
        Prediction(
            name=image.source.name,
            place=image.source.place,
            image=image.picture.pixels,
            labels={
                name: decide_at(each, raw[name][index], image.picture.size)
                for name, each in how.tasks.items()
            },
            tasks=how.tasks,
            seconds=seconds,
        )
        for index, image in enumerate(images)
    ]


def _leave_out(error: DataError, skipped: list[str] | None) -> None:
    if skipped is None:
        raise error
    skipped.append(str(error))
