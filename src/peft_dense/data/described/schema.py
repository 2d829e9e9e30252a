"""A description of a data set: its fields, read from TOML or a dict, and checked.

::

    name = "my street photographs"           # optional; so is all but images and tasks
    images = "photos/{split}/{id}.jpg"       # or [images] with pattern, reader, white, drawn_on
    root = "../disk"                         # where the files are, seen from dense.toml's folder
    inside = ["VOC2012"]                     # folders of root that the files may be in
    like = "voc"                             # a ready description that this one changes

    [splits]
    train = "train.txt"                      # a list of ids
    val = { folder = "validation" }          # what {split} stands for
    test = { list = "lists.txt", line = "*/{id}.png *" }   # what a line looks like
    more = { share = 0.2 }                   # a part of what is there, the same each time

    [splitting]
    order = "digest"                         # or "name": shares are stretches, for videos
    by = "scene"                             # what has the same {scene} stays together

    [tasks.semseg]
    labels = "masks/{split}/{id}.png"
    kind = "segmentation"                    # needless for names that the library knows
    classes = ["road", "tree"]               # or their number
    values = { 7 = "road", "21-22" = "tree" }        # what the files hold, or
    palette = { road = "#804080", tree = [107, 142, 35] }
    ignore = [0, "1-6"]                      # values or colours without a label
    others = "ignore"                        # what isn't named: an error, if this isn't said
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from peft_dense.data.described.checks import Checker
from peft_dense.errors import DataError, HyperparameterError, UnknownNameError
from peft_dense.tasks.kinds import LabelKind
from peft_dense.tasks.registry import kind_of_labels

__all__ = ["Description", "ImageDescription", "SplitDescription", "TaskDescription"]

Part = TypeVar("Part")


@dataclass(frozen=True, kw_only=True)
class ImageDescription:
    """Describe where images are, and how they are read.

    Args:
        pattern: Pattern of their paths.
        reader: One of `peft_dense.data.described.readers`, for containers that hold many images.
        variable: Name in such a container.
        white: What white is in images of 16 bits.
        drawn_on: What labels were drawn on, ``shown`` or ``stored`` pixels, of turned images.
    """

    pattern: str
    reader: str = "file"
    variable: str | None = None
    white: float | None = None
    drawn_on: str | None = None


@dataclass(frozen=True, kw_only=True)
class SplitDescription:
    """Describe which images belong to a split.

    Args:
        list: A file with one id per line, or a .mat file with their numbers.
        line: What a line looks like, where it isn't the id: ``*/{id}.png *``.
        variable: Name in a .mat file.
        folder: What ``{split}`` stands for in patterns.
        share: The part of all images that belong to it, above 0 and up to 1.
    """

    list: str | None = None
    line: str | None = None
    variable: str | None = None
    folder: str | None = None
    share: float | None = None


@dataclass(frozen=True, kw_only=True)
class TaskDescription:
    """Describe where the labels of a task are, and what the files hold.

    Args:
        labels: Pattern of their paths.
        kind: One of `peft_dense.tasks.kinds`; by default the kind that the task has by its name.
        reader: One of `peft_dense.data.described.readers`, for labels that aren't a file each.
        variable: Name in a container.
        json: Pattern of the JSON file that says what COCO's segments are.
        classes: Their names, or their number.
        values: From what the files hold to a class, by name or number, or to ``"ignore"``; ranges
            as ``"1-6"``. A list gives the classes of 0, 1, 2 and so on.
        palette: From a class's name to its colour, or its colours; a list has one per class.
        ignore: Values, ranges or colours of pixels without a label; by default 255 (65535 with
            more than 255 classes), of a palette none.
        others: What values and colours that nothing names are: a class, or ``"ignore"``.
        threshold: For soft masks and edges: larger values are marked.
        unit: Unit of depth, such as ``"mm"``.
        scale: Metres that 1 stands for, in place of a unit.
        offset: Added to the values of depth before scaling.
        inverse: Whether depth is ``scale / (value + offset)``, as of disparities.
        invalid: Values of depth that are none, and ranges; 0 and less are none anyway. Of normals,
            colours.
        axes: Where positive values of each channel of normals point: ``right`` or ``left``, ``up``
            or ``down``, ``viewer`` or ``away``.
        zero: Which value of whole-numbered normals is 0; by default the middle.
        optional: Whether sets of this layout may lack the task.
    """

    labels: str
    kind: str | None = None
    reader: str = "file"
    variable: str | None = None
    json: str | None = None
    classes: tuple[str, ...] | int | None = None
    values: Mapping[str, Any] | tuple[Any, ...] | None = None
    palette: Mapping[str, Any] | tuple[Any, ...] | None = None
    ignore: tuple[Any, ...] | None = None
    others: str | int | None = None
    threshold: float | None = None
    unit: str | None = None
    scale: float | None = None
    offset: float = 0.0
    inverse: bool = False
    invalid: tuple[Any, ...] = ()
    axes: tuple[str, ...] = ("right", "up", "viewer")
    zero: float | None = None
    optional: bool = False

    @property
    def names(self) -> tuple[str, ...] | None:
        """Names of the classes, where any are given: by themselves, or where values name them."""
        if isinstance(self.classes, tuple):
            return self.classes
        if self.classes is not None:
            return None
        if isinstance(self.palette, Mapping):
            return tuple(self.palette)
        given = self.values.values() if isinstance(self.values, Mapping) else self.values or ()
        named = [value for value in given if isinstance(value, str) and value != "ignore"]
        return tuple(dict.fromkeys(named)) or None

    @property
    def number(self) -> int | None:
        """The number of classes, where it is known."""
        return self.classes if isinstance(self.classes, int) else len(self.names or ()) or None

    def labels_of(self, task: str) -> LabelKind:
        """Give the kind of labels of a task that is described so."""
        return kind_of_labels(task, self.kind, self.number or 0)


_OF_KIND = {
    "classes": ("segmentation",),
    "values": ("segmentation", "binary", "edge"),
    "palette": ("segmentation", "binary", "edge"),
    "ignore": ("segmentation", "binary", "edge"),
    "others": ("segmentation", "binary", "edge"),
    "threshold": ("binary", "edge"),
    "unit": ("depth",),
    "scale": ("depth",),
    "offset": ("depth",),
    "inverse": ("depth",),
    "invalid": ("depth", "normals"),
    "axes": ("normals",),
    "zero": ("normals",),
}
"""What only some kinds of labels have."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """Describe a data set on disk: where images and labels are, and what the files hold.

    Args:
        images: Where images are.
        tasks: By name, where labels are and what they hold.
        splits: By name; without any they are the folders that ``{split}`` stands for.
        order: What shares are cut from: ids in the order of their ``digest``, or by ``name``.
        by: A name in the image pattern; images with the same value stay in one split.
        name: Name of the set or layout.
        about: One line on it, and where its facts are from.
        root: Where the files are, seen from the description's folder.
        inside: Folders of the root that the files may be in.
        marks: Files and folders that tell a set of this layout from others.
        source: The description's file, or another name for messages.

    Raises:
        DataError: :meth:`of` is given a wrong key or value; the message names the key.

    Example:
        >>> description = Description.of(
        ...     {
        ...         "images": "photos/{id}.jpg",
        ...         "tasks": {"roofs": {"labels": "roofs/{id}.png", "kind": "binary"}},
        ...     }
        ... )
        >>> description.tasks["roofs"].labels_of("roofs").name
        'binary'
        >>> Description.of({"imges": "photos/{id}.jpg"})
        Traceback (most recent call last):
            ...
        peft_dense.errors.DataError: the description has an unknown key 'imges'; did you mean ...
    """

    images: ImageDescription
    tasks: Mapping[str, TaskDescription]
    splits: Mapping[str, SplitDescription] = field(default_factory=dict)
    order: str = "digest"
    by: str | None = None
    name: str = "described"
    about: str = ""
    root: str | None = None
    inside: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    source: str = "the description"

    @property
    def digest(self) -> str:
        """Identify what the description says, wherever its file lies.

        Example:
            >>> tasks = {"sal": {"labels": "{id}.png"}}
            >>> one = Description.of({"images": "{id}.jpg", "tasks": tasks})
            >>> one.digest == replace(one, source="elsewhere", about="the same").digest
            True
        """
        same = replace(self, source="", about="", root=None)
        return hashlib.blake2b(repr(same).encode(), digest_size=8).hexdigest()

    @classmethod
    def of(cls, given: Mapping[str, Any], source: str = "the description") -> Description:
        """Read a description from a dict.

        Args:
            given: What `read_toml` gives, or the same written in Python.
            source: Where it is from, for messages.

        Raises:
            DataError: If a key is unknown, missing or of another type, or a value isn't allowed.
        """
        check = Checker(source)
        top = ("images", "tasks", "splits", "splitting", *_TEXTS)
        check.keys(given, top, needed=("images", "tasks"))
        images = given["images"]
        images = {"pattern": images} if isinstance(images, str) else images
        splitting = check.table(given.get("splitting", {}), "splitting")
        check.at("splitting").keys(splitting, ("order", "by"))
        tasks = check.table(given["tasks"], "tasks")
        if not tasks:
            raise DataError(f"{source} describes no task; write [tasks.NAME] with labels = '...'.")
        made = cls(
            images=_part(ImageDescription, images, check.at("images")),
            tasks={
                name: _task(name, each, check.at(f"tasks.{name}")) for name, each in tasks.items()
            },
            splits={
                name: _split(each, check.at(f"splits.{name}"))
                for name, each in check.table(given.get("splits", {}), "splits").items()
            },
            name=check.text(given.get("name", "described"), "name"),
            about=check.text(given.get("about", ""), "about"),
            root=check.text(given["root"], "root") if "root" in given else None,
            inside=check.texts(given.get("inside", ()), "inside"),
            marks=check.texts(given.get("marks", ()), "marks"),
            order=check.one_of(splitting.get("order", "digest"), "splitting.order", _ORDERS),
            by=splitting.get("by"),
            source=source,
        )
        check.one_of(made.images.drawn_on or "shown", "images.drawn_on", ("shown", "stored"))
        return made


_TEXTS = ("name", "about", "root", "inside", "marks")
_ORDERS = ("digest", "name")


def _part(cls: type[Part], given: Any, check: Checker) -> Part:
    """Read a table whose keys are the fields of a class."""
    known = {each.name: each for each in fields(cls)}  # type: ignore[arg-type]
    needed = ("labels",) if "labels" in known else ("pattern",) if "pattern" in known else ()
    table = check.table(given, "")
    check.keys(table, known, needed=needed)
    return cls(
        **{name: check.typed(value, name, str(known[name].type)) for name, value in table.items()}
    )


def _task(name: str, given: Any, check: Checker) -> TaskDescription:
    made = _part(TaskDescription, given, check)
    try:
        kind = made.labels_of(name).name
    except (UnknownNameError, HyperparameterError) as error:
        raise type(error)(f"{check.place}: {error}") from error
    for key in given:
        allowed = _OF_KIND.get(key, (kind,))
        if kind not in allowed:
            raise DataError(
                f"{check.place} has {key!r}, which labels of kind {kind} don't have; it is of "
                f"{' and '.join(allowed)}. Leave it out, or give kind = '{allowed[0]}'."
            )
    return made


def _split(given: Any, check: Checker) -> SplitDescription:
    made = _part(SplitDescription, {"list": given} if isinstance(given, str) else given, check)
    if made.share is not None and not 0 < made.share <= 1:
        raise DataError(f"{check.place} has share = {made.share}; expected above 0, up to 1.")
    if (made.line or made.variable) and not made.list:
        raise DataError(f"{check.place} has no list that a line or a variable could be of.")
    return made
