"""Write the first draft of a description, for a person to correct."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peft_dense.data.described.ready import FILE, read_description, recognise
from peft_dense.data.described.toml import quoted
from peft_dense.data.describing.groups import Group, find_groups
from peft_dense.data.describing.looking import Look, hint_of, look_at
from peft_dense.data.describing.splits import draft_splits
from peft_dense.data.describing.writing import given_names, toml_key, toml_value
from peft_dense.data.sources.finding import holds
from peft_dense.data.sources.layouts import own_layout
from peft_dense.errors import DataError
from peft_dense.tasks import tasks as known_tasks
from peft_dense.tasks.registry import kind_of_labels

__all__ = ["Draft", "describe", "write_draft"]

_MOST = 60


@dataclass
class Draft:
    """A draft of a description, and how far it can be relied on.

    Args:
        text: The draft, in the form of a ``dense.toml``.
        guessed: What was guessed, one line each.
        doubts: What a person has to check, one line each.

    Example:
        >>> Draft("images = 'photos/{id}.jpg'", doubts=["are these all?"]).doubts
        ['are these all?']
    """

    text: str
    guessed: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


def describe(root: str | Path) -> Draft:
    """Look at a folder, and draft a description of the data set in it.

    Patterns come from names alone; what files hold is guessed from up to 24 of each kind. So a
    draft is a start: `check_data` reads everything, and says where it is wrong.

    Args:
        root: The folder.

    Raises:
        DataError: If there is no such folder, or nothing in it looks like images with labels.

    Example:
        >>> import tempfile
        >>> from peft_dense.data import make_archive
        >>> root = tempfile.mkdtemp()
        >>> made = make_archive(root, layout="folder", train=1, val=1, size=(32, 48))
        >>> "images" in describe(root).text
        True
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise DataError(f"no folder {root}; pass the one that holds the data set.")
    own = own_layout(root)
    if own in ("pascal", "nyud"):
        raise DataError(
            f"{root} is a multi-task archive ({own}), which is read as it is; it needs no "
            "description. Pass the folder itself as data."
        )
    ready = recognise(root)
    if ready is not None and ready != "folder":
        return _like(ready)
    groups = find_groups(root)[:_MOST]
    looks = [(group, look_at(group)) for group in groups]
    image = _images_of(looks)
    if image is None:
        seen = "; ".join(f"{group.pattern} ({look.saw})" for group, look in looks[:5])
        raise DataError(
            f"nothing in {root} looks like a folder of images: it {holds(root)}"
            f"{f', in which were seen: {seen}' if seen else ''}. Write {FILE} by hand, or pass the "
            "folder that holds images and labels."
        )
    return _draft(root, looks, *image)


def write_draft(
    root: str | Path, draft: Draft, *, out: str | Path | None = None, overwrite: bool = False
) -> Path:
    """Write a draft to ``dense.toml`` in the set's folder, or elsewhere.

    Args:
        root: The folder.
        draft: What to write.
        out: Another file; it then says where the set is.
        overwrite: Whether to replace a file that is there.

    Returns:
        The file.

    Raises:
        DataError: If there is one already, or it can't be written.
    """
    path = Path(root).expanduser() / FILE if out is None else Path(out).expanduser()
    text = draft.text
    if out is not None:
        text = _with_root(text, Path(root).expanduser().resolve())
    if path.exists() and not overwrite:
        raise DataError(
            f"{path} is there already and stays as it is; pass --overwrite to replace it, or "
            "--out FILE to write elsewhere."
        )
    try:
        beside = path.with_name(f".{path.name}.part")
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)  # whole or not at all
    except OSError as error:
        raise DataError(
            f"can't write {path}: {error}. Pass --out FILE to write elsewhere."
        ) from error
    return path


def _with_root(text: str, root: Path) -> str:
    """Add the set's root above the first line that isn't a comment."""
    lines = text.split("\n")
    at = next(at for at, line in enumerate(lines) if line and not line.startswith("#"))
    return "\n".join([*lines[:at], f"root = {quoted(root.as_posix())}", *lines[at:]])


def _like(ready: str) -> Draft:
    """Refer to a ready description."""
    how = read_description(ready)
    text = (
        f"# {how.about}\nlike = {quoted(ready)}\n\n"
        "# What is written here overrides the ready description, for instance\n"
        '# [tasks.semseg]\n# labels = "another/{id}.png"\n'
    )
    return Draft(
        text,
        [f"layout: {ready} ({how.about})", f"recognised by {', '.join(how.marks)}"],
        ["that it is this set, not another one with the same folders"],
    )


def _images_of(looks: list[tuple[Group, Look]]) -> tuple[Group, Look] | None:
    """Choose the group that holds the images: by name, by what is seen, by whose ids fit it."""
    best: tuple[float, tuple[Group, Look]] | None = None
    for group, look in looks:
        if look.what != "image":
            continue
        hint = hint_of(group.pattern)
        partners = sum(
            1
            for other, seen in looks
            if seen.what not in ("image", "unknown") and _shared(group, other) > 0.5
        )
        score = 3.0 * (hint == "image") - 3.0 * (hint not in (None, "image")) + min(partners, 3)
        score += len(group.files) / max(len(g.files) for g, _ in looks)
        if best is None or score > best[0]:
            best = score, (group, look)
    return best[1] if best else None


def _shared(images: Group, labels: Group) -> float:
    """Give the share of a group's ids that images have too."""
    if "{split}" in labels.pattern and "{split}" in images.pattern:
        there, wanted = images.ids, labels.ids
        return len(there & wanted) / len(wanted)
    names = {name for _, name in images.files}
    own = {name for _, name in labels.files}
    return len(names & own) / len(own)


def _draft(root: Path, looks: list[tuple[Group, Look]], images: Group, look: Look) -> Draft:
    """Compose the draft around the images."""
    draft = Draft("")
    draft.guessed.append(f"images: {images.pattern} ({len(images.files):,} files; {look.saw})")
    names = set(re.findall(r"\{(\w+)\}", images.pattern))
    parts: list[str] = []
    taken: set[str] = set()
    given = given_names(root)
    for group, seen in looks:
        if group is images:
            continue
        share = _shared(images, group)
        own = set(re.findall(r"\{(\w+)\}", group.pattern))
        reason = (
            f"only {share:.0%} of its ids are those of images"
            if share <= 0.5
            else f"{seen.saw}, of unknown meaning"
            if seen.what in ("image", "unknown")
            else "its folders vary otherwise than those of the images"
            if not own <= names
            else ""
        )
        if reason:
            draft.guessed.append(
                f"left out: {group.pattern} ({len(group.files):,} files; {reason})"
            )
            continue
        task = _task_name(group, seen, taken)
        taken.add(task)
        parts.append(_task_text(task, group, seen, given.get(task), draft))
        if seen.size != look.size:
            draft.doubts.append(
                f"{task}: labels of {seen.size[0]} x {seen.size[1]}, images of {look.size[0]} x "
                f"{look.size[1]}; a label has the size of its image"
            )
    if not parts:
        draft.doubts.append("tasks: no labels were found; describe them by hand")
        parts.append('# [tasks.NAME]\n# labels = "labels/{id}.png"\n# kind = "segmentation"\n')
    splits = draft_splits(root, images)
    draft.guessed += splits.guessed
    draft.doubts += splits.doubts
    head = [
        "# A draft by `peft-dense data describe`: correct it, then run `peft-dense data check`.",
        *(f"# To check: {doubt}." for doubt in draft.doubts),
        "",
        f"name = {quoted(root.resolve().name)}",
        f"images = {quoted(images.pattern)}",
        "",
    ]
    draft.text = "\n".join(head) + "\n" + splits.text + "\n" + "\n".join(parts)
    return draft


def _task_name(group: Group, look: Look, taken: set[str]) -> str:
    """Call a task as its folder or its files are called, or as such labels usually are."""
    parts = [re.sub(r"\{\w+\}", "", part) for part in group.pattern.split("/")]
    words = [
        re.sub(r"\W+", "_", part.replace(".*", "").rsplit(".", 1)[0]).strip("_") for part in parts
    ]
    for word in words:
        if word in known_tasks() and word not in taken:
            return word
    usual = {"segmentation": "semseg", "depth": "depth", "normals": "normals", "edge": "edge"}
    hint = hint_of(group.pattern)
    name = usual.get(look.what, "sal" if hint == "sal" else "")
    if look.what == "segmentation" and hint == "human_parts":
        name = "human_parts"
    if name and name not in taken:
        return name
    own = next((word.lower() for word in [words[-1], *words[::-1]] if word), "labels")
    own = own if own.isidentifier() else f"task_{own}"
    number = 2
    while own in taken or own in known_tasks():
        own, number = f"{own.rstrip('0123456789_')}_{number}", number + 1
    return own


def _task_text(task: str, group: Group, look: Look, names: list[str] | None, draft: Draft) -> str:
    """Write a task's table, and note what was guessed of it."""
    keys: dict[str, Any] = dict(look.keys)
    kind = look.what
    if task in known_tasks() and kind_of_labels(task).name != kind:
        kind, keys = kind_of_labels(task).name, {}
    doubts = look.doubts
    if kind == "segmentation" and names and "palette" not in keys:
        keys, doubts = {"classes": names}, []
        if len(names) < look.keys.get("classes", 0):
            doubts = [f"{len(names)} names, but values up to {look.keys['classes'] - 1} were seen"]
    elif kind == "segmentation" and not keys:
        keys = {"classes": 2}
    draft.guessed.append(
        f"{task}: {kind}, {group.pattern} ({len(group.files):,} files; {look.saw})"
    )
    draft.doubts += [f"{task}: {doubt}" for doubt in doubts]
    lines = [f"[tasks.{task}]", f"labels = {quoted(group.pattern)}"]
    if task not in known_tasks():
        lines.append(f"kind = {quoted(kind)}")
    tables = []
    for key, value in keys.items():
        if isinstance(value, dict):
            rows = [f"{toml_key(name)} = {toml_value(each)}" for name, each in value.items()]
            tables.append("\n".join([f"\n[tasks.{task}.{key}]", *rows]))
        else:
            lines.append(f"{key} = {toml_value(value)}")
    return "\n".join([*lines, *tables]) + "\n"
