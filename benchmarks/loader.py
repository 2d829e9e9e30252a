#!/usr/bin/env python
"""Measure how many images a second one core reads and augments, beside other ways to do the same.

    python benchmarks/loader.py                # rendered scenes of 375 x 500, written to a folder
    python benchmarks/loader.py --colour 0.4 --data FOLDER --tasks semseg,sal    # a DenseFolder
    git worktree add ../before b91ec58 && python benchmarks/loader.py --former ../before/src

The pipelines rotate by up to 15 degrees, scale by 0.75 to 1.25, crop to 448 x 448 and mirror:

- *fused*: ``augmentation(..., as_bytes=True)``: bytes, one resampling;
- *floats*: ``augmentation(...)``: the same, with images as floats and classes as int64 at the end;
- *three moves*: `RandomRotation`, `RandomScaleCrop`, `RandomFlip`, one after another on floats;
- *torchvision*: its decoders and v2 transforms on uint8. All labels are its masks, so normals don't
  turn and depth doesn't scale; it is the time that counts here;
- *former*: ``augmentation(...)`` of an earlier state of this library, with ``--former``.

Time is the processor's, of one thread, so that other processes disturb little. The pipelines take
turns, each in a process of its own; a rate is the median of the turns, and the last column that of
the turn's time by the fused pipeline's. Ratios are what carries over to other machines.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from peft_dense import data

sys.path.insert(0, str(Path(__file__).parent))  # also where a test loads this file by its path
from timing import in_turn, processes, ratios, spread

PIPELINES = ("fused", "floats", "three moves", "torchvision")
TASKS = "semseg,human_parts,sal,normals"


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--data", type=Path, help="a DenseFolder; by default scenes are written")
    parser.add_argument("--tasks", default=TASKS, help=f"its tasks ({TASKS})")
    parser.add_argument("--images", type=int, default=24, help="images a turn (24)")
    parser.add_argument("--size", type=int, default=448, help="height and width (448)")
    parser.add_argument("--rotation", type=float, default=15, help="degrees (15)")
    parser.add_argument("--colour", type=float, default=0.0, help="strength of the jitter (0)")
    parser.add_argument("--turns", type=int, default=3, help="processes a pipeline (3)")
    parser.add_argument("--former", type=Path, help="folder of an earlier state's package")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def pipeline(args: argparse.Namespace) -> Callable[[int], Any]:
    """Give one pipeline as a function of the image's number."""
    size, tasks, colour = (args.size, args.size), args.tasks.split(","), args.colour
    options = {"rotation": args.rotation, "colour": colour}
    if args.one == "torchvision":
        return torchvision_pipeline(args, tasks)
    if args.one == "three moves":
        transform = data.Compose(
            data.RandomRotation(args.rotation),
            data.RandomScaleCrop(size),
            data.RandomFlip(),
            data.ColorJitter(colour, colour, colour, colour / 4),
        )
    elif args.one == "fused":
        transform = data.augmentation(size, as_bytes=True, **options)
    else:
        transform = data.augmentation(size, **options)
    return data.DenseFolder(args.data, "train", tasks, transform).__getitem__


def torchvision_pipeline(args: argparse.Namespace, tasks: list[str]) -> Callable[[int], Any]:
    from torchvision import tv_tensors
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms import v2

    size, colour = (args.size, args.size), args.colour
    files = data.DenseFolder(args.data, "train", tasks)
    steps = v2.Compose(
        [
            v2.RandomRotation(args.rotation, v2.InterpolationMode.BILINEAR),
            v2.Resize(size),
            v2.ScaleJitter(size, (0.75, 1.25)),
            v2.RandomCrop(size, pad_if_needed=True),
            v2.RandomHorizontalFlip(),
            *([v2.ColorJitter(colour, colour, colour, colour / 4)] if colour else []),
        ]
    )

    def load(index: int) -> Any:
        paths = files.files(files.ids[index])
        image = decode_image(str(paths.pop("image")), ImageReadMode.RGB)
        labels = {
            name: tv_tensors.Mask(decode_image(str(path), ImageReadMode.UNCHANGED))
            for name, path in paths.items()
        }
        return steps({"image": tv_tensors.Image(image), **labels})

    return load


def measure(args: argparse.Namespace) -> float:
    """Give images per second of processor time."""
    torch.set_num_threads(1)
    load = pipeline(args)
    load(0)

    def every() -> None:
        for index in range(args.images):
            load(index)

    (seconds,) = in_turn({args.one: every}, 1, warm=0)[args.one]["process"]
    return args.images / seconds


def commands(args: argparse.Namespace, root: Path) -> dict[str, list[str]]:
    """Give the words that measure each pipeline in a process of its own."""
    given = ("tasks", "images", "size", "rotation", "colour")
    options = [word for key in given for word in (f"--{key}", str(getattr(args, key)))]
    names = (*PIPELINES, "former") if args.former else PIPELINES
    python = [sys.executable, __file__]
    return {name: [*python, "--one", name, "--data", str(root), *options] for name in names}


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    if args.one:
        print(measure(args))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = args.data
        if root is None:
            shape = (375, 500)
            root = Path(folder, "scenes")
            data.make_archive(root, train=args.images, val=1, size=shape, layout="folder")
        words = commands(args, root)
        places = {name: {"OMP_NUM_THREADS": "1"} for name in words}
        if args.former:
            places["former"]["PYTHONPATH"] = str(args.former)
        rates: dict[str, list[float]] = {name: [] for name in words}
        for name, done in processes(words, args.turns, environments=places):
            done.check_returncode()
            rates[name].append(float(done.stdout))
    for name, each in rates.items():
        rate, time = spread(each)["median"], ratios(rates["fused"], each)["median"]
        print(f"{name:<12}{rate:7.1f} images/s of one core{time:7.2f} x")


if __name__ == "__main__":
    main()
