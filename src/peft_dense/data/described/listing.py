"""The ids of a split: from a list, from the files that are there, or a share of these."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from peft_dense.data.described.patterns import SPLIT, Pattern, line_regex
from peft_dense.data.described.schema import Description, SplitDescription
from peft_dense.data.sources.finding import holds
from peft_dense.data.sources.matfile import load_mat
from peft_dense.errors import DataError

__all__ = ["Ids", "split_names"]


class Ids:
    """Find the ids of splits, and what the names in patterns stand for in them.

    Args:
        description: The set's description.
        root: Its folder.
        images: The pattern of its images.
        reader: The reader of its images.
    """

    def __init__(self, description: Description, root: Path, images: Pattern, reader: Any) -> None:
        self.description, self.root = description, root
        self.images, self.reader = images, reader
        self.names = images.id_names or ("id",)
        parts = (f"(?P<{n}>{'.+' if n == 'id' else '[^/]+'})" for n in self.names)
        self._id = re.compile("/".join(parts))

    def values(self, name: str, split: str) -> dict[str, str]:
        """Give what the names in patterns stand for in an id.

        Raises:
            DataError: If the id has another form.
        """
        found = self._id.fullmatch(name)
        if found is None:
            raise DataError(
                f"the id {name!r} isn't of the form {self.form} that "
                f"the pattern {self.images.text!r} needs."
            )
        return {**found.groupdict(), SPLIT: self.folder(split)}

    @property
    def form(self) -> str:
        """The form of an id, such as ``{scene}/{id}``."""
        return "/".join(f"{{{name}}}" for name in self.names)

    def folder(self, split: str) -> str:
        """Give what ``{split}`` stands for."""
        how = self.description.splits.get(split)
        return how.folder if how and how.folder is not None else split

    def of(self, split: str) -> list[str]:
        """List the ids of a split.

        Raises:
            DataError: If there is no such split, a list can't be read, or nothing belongs to it.
        """
        known = self.description.splits
        if known and split not in known:
            raise DataError(
                f"{self.description.source} has no split {split!r}; it has: {', '.join(known)}. "
                f"Write it under [splits]."
            )
        how = known.get(split, SplitDescription())
        if not known and SPLIT not in self.images.names:
            raise DataError(
                f"{self.description.source} doesn't say what belongs to {split!r}: it has no "
                "[splits], and images have no {split}. Write lists, as train = 'train.txt', or "
                "shares, as train = { share = 0.8 } and val = { share = 0.2 }."
            )
        ids = self._listed(how, split) if how.list else self._there(split)
        if not ids:
            raise self._nothing(split)
        if how.share is not None:
            kept = self._share(ids, split, how.share)
            if not kept:
                what = f"{{{self.description.by}}}" if self.description.by else "images"
                raise DataError(
                    f"the share {how.share:g} of split {split!r} in {self.description.source} is "
                    f"none of the {len(ids)} images there; expected at least one of {what} in "
                    "each. Raise the share, or write lists."
                )
            ids = kept
        return ids

    # ------------------------------------------------------------------ what is there

    def _there(self, split: str) -> list[str]:
        """List the ids of files that are there, in the order of their names."""
        text = self.images.text.replace(f"{{{SPLIT}}}", self.folder(split))
        pattern = Pattern(text, self.images.endings)
        found: dict[str, None] = {}
        for path in pattern.scan(self.root):
            inside: list[str] | None = self.reader.ids(path)
            if inside is not None:
                return inside
            found[self._name(pattern.values_of(self.root, path))] = None
        return list(found)

    def _name(self, values: Mapping[str, str]) -> str:
        return "/".join(values[name] for name in self.names)

    def _nothing(self, split: str) -> DataError:
        text = self.images.text.replace(f"{{{SPLIT}}}", self.folder(split))
        before = "/".join(text.split("{")[0].split("/")[:-1])
        place = self.root / before
        while place != self.root and not place.is_dir():
            place = place.parent
        return DataError(
            f"no file is {self.root / text}, the pattern of images in {self.description.source} "
            f"for split {split!r}; {place} {holds(place)}. Correct the pattern, or the folder of "
            "the split."
        )

    # ------------------------------------------------------------------ shares

    def _share(self, ids: list[str], split: str, share: float) -> list[str]:
        """Cut a stretch out of all ids; splits with shares of the same images lie end to end."""
        groups: dict[str, list[str]] = {}
        by = self.description.by
        if by is not None and by not in self.names:
            raise DataError(
                f"[splitting] of {self.description.source} has by = {by!r}, which isn't in "
                f"{self.images.text!r}; expected one of {', '.join(self.names)}."
            )
        for name in ids:
            key = name if by is None else self.values(name, split)[by]
            groups.setdefault(key, []).append(name)
        digest = self.description.order == "digest"
        order = sorted(groups, key=lambda key: (_digest(key) if digest else _natural(key), key))
        start = 0.0
        for other, how in self.description.splits.items():
            if other == split:
                break
            same = self.folder(other) == self.folder(split) or SPLIT not in self.images.names
            start += (how.share or 0.0) if same else 0.0
        if start + share > 1 + 1e-9:
            raise DataError(
                f"the shares in [splits] of {self.description.source} add up to "
                f"{start + share:g} at {split!r}; expected at most 1."
            )
        low, high = (round(at * len(order)) for at in (start, start + share))
        kept = {name for key in order[low:high] for name in groups[key]}
        return [name for name in ids if name in kept]

    # ------------------------------------------------------------------ lists

    def _listed(self, how: SplitDescription, split: str) -> list[str]:
        """Read ids from a list; lines that say less than an id choose among what is there."""
        pattern = Pattern(str(how.list))
        files = list(pattern.scan(self.root, {SPLIT: self.folder(split)}))
        if not files:
            where = self.root / pattern.text.replace(f"{{{SPLIT}}}", self.folder(split))
            raise DataError(
                f"no list {where} for split {split!r}, which {self.description.source} names; "
                f"{self.root} {holds(self.root)}."
            )
        ids: list[str] = []
        chosen: list[dict[str, str]] = []
        for file in files:
            above = {n: v for n, v in pattern.values_of(self.root, file).items() if n != SPLIT}
            if file.suffix == ".mat":
                ids += _numbers(file, how.variable)
                continue
            line = line_regex(how.line) if how.line else self._id
            for text in _lines(file):
                found = line.fullmatch(text)
                if found is None:
                    form = how.line or self.form
                    raise DataError(
                        f"{file} has the line {text!r}, which isn't of the form {form!r}; say what "
                        "a line looks like by line = '...' ('*' stands for anything)."
                    )
                values = {**above, **{n: v for n, v in found.groupdict().items() if v is not None}}
                if all(name in values for name in self.names):
                    ids.append(self._name(values))
                else:
                    chosen.append(values)
        if chosen:
            ids += [
                name
                for name in self._there(split)
                if any(_agree(values, self.values(name, split)) for values in chosen)
            ]
        return ids


def split_names(description: Description, root: Path, images: Pattern) -> list[str]:
    """List the splits that a set has: those described, or the folders that ``{split}`` is."""
    if description.splits:
        return list(description.splits)
    found = {images.values_of(root, path).get(SPLIT, "") for path in images.scan(root)}
    usual = ("train", "val", "test")
    return sorted(found - {""}, key=lambda name: (usual.index(name) if name in usual else 3, name))


def _agree(wanted: Mapping[str, str], values: Mapping[str, str]) -> bool:
    """Whether an id has the values that a line names; 1 and 01 are the same."""
    return all(
        values.get(name) == value
        or (value.isdigit() and values.get(name, "").isdigit() and int(value) == int(values[name]))
        for name, value in wanted.items()
    )


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"can't read {path}: {error}. It lists one image id per line.") from error
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise DataError(f"{path} is empty; it lists one image id per line.")
    return found


def _numbers(path: Path, variable: str | None) -> list[str]:
    if variable is None:
        raise DataError(f"the list {path} needs variable = '...', the one with the numbers.")
    return [str(int(number)) for number in np.asarray(load_mat(path, variable)).ravel()]


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _natural(key: str) -> str:
    """Pad numbers, so that 10 comes after 9."""
    return re.sub(r"\d+", lambda found: found[0].zfill(20), key)
