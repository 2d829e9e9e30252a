"""Check a data set on disk: every file is read, every problem is named, every label is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from peft_dense.data.checking.tally import Tally
from peft_dense.data.checking.tolerant import ProblemKind, ReadImage, ReadImages
from peft_dense.data.labels import Item
from peft_dense.data.sources.layouts import Place, find_place
from peft_dense.errors import DataError, MissingPackageError, ShapeError, UnknownNameError

__all__ = ["Problem", "Report", "check_data"]


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a data set.

    Args:
        kind: Its kind.
        split: The list in which it was found.
        id: The image's id; empty where it isn't about one image.
        about: The task whose label it is, ``image`` or ``list``.
        reason: What is wrong, naming the file.
    """

    kind: ProblemKind
    split: str
    id: str
    about: str
    reason: str


@dataclass
class Report:
    """What `check_data` found.

    Args:
        root: The folder.
        layout: ``pascal``, ``nyud`` or ``folder``, or the name of a description.
        title: What the set is, in a few words.
        images: Number of images listed, by split.
        tallies: Counts over labels, by split and task.
        problems: All of them.
        notes: Remarks that aren't problems.
        samples: Split and item of some images, spread over the lists, to draw.
    """

    root: Path
    layout: str
    title: str = ""
    images: dict[str, int] = field(default_factory=dict)
    tallies: dict[str, dict[str, Tally]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    samples: list[tuple[str, Item]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Give everything but the samples, ready for JSON."""
        return {
            "root": str(self.root),
            "layout": self.layout,
            "sound": not self.problems,
            "images": self.images,
            "labels": {
                split: {task: tally.as_dict() for task, tally in tallies.items()}
                for split, tallies in self.tallies.items()
            },
            "problems": [asdict(problem) for problem in self.problems],
            "notes": self.notes,
        }


def check_data(
    root: str | Path,
    *,
    splits: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    samples: int = 0,
    workers: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
    kinds: Mapping[str, str] | None = None,
) -> Report:
    """Read every image and label of a data set, and report problems and counts.

    The files are read as in training, by the same classes, and nothing is written. A problem stops
    nothing: the other labels of the same image are still read and counted.

    Args:
        root: What `open_data` opens: a folder, a description's file, or ``cityscapes:ROOT``.
        splits: Names of the lists; by default train and val, of a `DenseFolder` and of described
            sets those of train, val and test that they have.
        tasks: The labels to read; by default all.
        samples: Number of items to keep for a picture.
        workers: Processes that read; 0 for this one.
        progress: Called after each image with the split, the number done and the number in all.
        kinds: What kind of labels a folder's own tasks have, if its classes.json doesn't say.

    Raises:
        DataError: If ``root`` is no data set, or a list that was asked for can't be read.
        MissingPackageError: If its .mat files need scipy, which isn't installed.
        UnknownNameError: If the data set has no such task.

    Example:
        >>> import tempfile
        >>> from peft_dense.data import make_archive
        >>> root = tempfile.mkdtemp()
        >>> made = make_archive(root, layout="folder", train=1, val=1, size=(32, 48))
        >>> check_data(root, tasks=["depth"]).problems
        []
    """
    place = find_place(root)
    report = Report(place.root, place.layout, place.title)
    if report.layout == "pascal":
        _needs_scipy()
    tasks = _tasks(report, place, tasks)
    listed = _lists(report, place, splits)
    for split in listed:
        usable = [task for task in tasks if _has_folder(report, place, split, task, kinds)]
        images = ReadImages(partial(place.open, split, kinds=kinds, late=True), usable)
        classes = images.whole.classes
        kinds_of, declared = images.whole.kinds, getattr(images.whole, "declared", None)
        tallies = {
            task: Tally(
                task,
                classes.get(task),
                kinds_of[task],
                declared.number(task) if declared else None,
                declared,
            )
            for task in usable
        }
        report.tallies[split] = tallies
        total = len(images)
        kept: dict[int, tuple[int, Item]] = {}
        stretches = -(-samples // len(listed))  # each gives the sample with the most labels
        loader = DataLoader(images, batch_size=None, num_workers=workers)
        for index, image in enumerate(loader):
            labelled = _count(report, split, image, tallies)
            stretch = index * stretches // total
            if stretches and "image" in image.item:
                best = kept.get(stretch, (-1, {}))
                kept[stretch] = best if best[0] >= labelled else (labelled, image.item)
            if progress:
                progress(split, index + 1, total)
        report.samples += [(split, item) for _, item in kept.values()]
        _doubt(report, split, tallies)
    return report


def _needs_scipy() -> None:
    """Raise once, not for every .mat file."""
    if find_spec("scipy") is None:
        raise MissingPackageError.of("reading PASCAL-Context's .mat files", "scipy", "train")


def _tasks(report: Report, place: Place, tasks: Sequence[str] | None) -> tuple[str, ...]:
    """Give the tasks to check."""
    known = place.tasks()
    for task in tasks or ():
        if task not in known:
            raise UnknownNameError.of(f"task of {report.root}", task, known)
    return known if tasks is None else tuple(tasks)


def _lists(report: Report, place: Place, splits: Sequence[str] | None) -> list[str]:
    """Read the lists, and note ids that occur twice."""
    found: dict[str, list[str]] = {}
    known: dict[str, dict[str, str]] = {}
    for split in splits or place.splits():
        try:
            data = place.open(split, (), late=True)
            found[split] = data.ids
            known[split] = {name: data.identity(name) for name in data.ids}
        except DataError as error:  # noqa: PERF203
            if splits:
                raise
            report.problems.append(Problem("list", split, "", "list", str(error)))
    first: dict[str, str] = {}
    for split, ids in found.items():
        report.images[split] = len(ids)
        for name, times in Counter(ids).items():
            if times > 1:
                text = f"{name} stands in the list {split!r} {times} times; it counts as often."
                report.problems.append(Problem("list", split, name, "list", text))
            image = known[split][name]
            if first.setdefault(image, split) != split:
                text = f"{name} stands in the lists {first[image]!r} and {split!r}."
                report.problems.append(Problem("list", split, name, "list", text))
    return list(found)


def _has_folder(
    report: Report, place: Place, split: str, task: str, kinds: Mapping[str, str] | None
) -> bool:
    """Whether there is a folder for a task's labels."""
    try:
        place.open(split, (task,), kinds=kinds, late=True)
    except DataError as error:
        problem = Problem("missing", "", "", task, str(error))
        if problem not in report.problems:  # once is enough for all lists
            report.problems.append(problem)
        return False
    return True


def _count(report: Report, split: str, image: ReadImage, tallies: dict[str, Tally]) -> int:
    """Count the labels of an image, note its problems, and give its number of labels."""
    labelled = 0
    for task, tally in tallies.items():
        tally.absent += task in image.absent
        if task not in image.item:
            continue
        try:
            labelled += tally.add(image.item[task], image.files.get(task))
        except ShapeError as error:
            del image.item[task]
            image.troubles[task] = "values", f"{task} of {image.name}: {error}"
    report.problems += [
        Problem(kind, split, image.name, about, reason)
        for about, (kind, reason) in image.troubles.items()
    ]
    return labelled


def _doubt(report: Report, split: str, tallies: Mapping[str, Tally]) -> None:
    """Note where the labels of a list look wrong as a whole."""
    for task, tally in tallies.items():
        for finding in tally.findings():
            if finding.what == "no label" and not tally.images:
                continue  # labels may be missing; the table of counts says so
            if finding.what == "undeclared":
                report.notes.append(f"{split}: {finding}")
                continue
            report.problems.append(Problem("labels", split, "", task, str(finding)))
