"""Scenes made by the computer: solids and stick people, with exact labels for six tasks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from peft_dense.data.labels import IGNORE, Item
from peft_dense.data.made.people import PARTS, stick_person
from peft_dense.data.made.shading import light, texture
from peft_dense.data.made.solids import (
    Array,
    Solid,
    box,
    cone,
    cylinder,
    plane,
    rotation,
    sphere,
)
from peft_dense.errors import DataError, UnknownNameError

__all__ = ["CLASSES", "PARTS", "Scenes"]

CLASSES = ("background", "ground", "box", "sphere", "cylinder", "cone", "person")
"""Names of the semantic classes; the background is the wall behind."""

_CHANNELS = {"semseg": 7, "human_parts": 7, "sal": 1, "normals": 3, "edge": 1, "depth": 1}


class Scenes(Dataset[Item]):
    """Render rooms with solids and stick people by casting rays, with labels that are exact.

    A pinhole camera sees a ground, a wall, 3 to 5 solids (box, sphere, cylinder, cone) and 0 to 2
    people of capsules, all with random poses, colours, textures and one random light (Lambert).
    Item ``i`` depends on ``i``, ``seed`` and ``size`` alone. Items are those of `DenseFolder`:

    - ``semseg``: the classes of `CLASSES`.
    - ``human_parts``: the seven parts of PASCAL (`PARTS`); 255 everywhere in a scene that shows no
      person.
    - ``normals``: unit vectors in the camera's frame: x right, y up, z towards the viewer.
    - ``depth``: metres along the optical axis.
    - ``sal``: 1 on people and on the solid that comes nearest to the camera.
    - ``edge``: 1 on a pixel one of whose four neighbours shows another thing (instance).

    Args:
        length: Number of scenes.
        size: Height and width in pixels.
        tasks: The labels wanted.
        seed: Scenes of different seeds are different.
        transform: Callable from item to item.

    Raises:
        DataError: If length or size isn't positive.
        UnknownNameError: If a task isn't one of the six.

    Example:
        >>> item = Scenes(10, size=(48, 64), tasks=("semseg", "normals"))[3]
        >>> item["image"].shape, item["semseg"].shape, item["normals"].shape
        (torch.Size([3, 48, 64]), torch.Size([48, 64]), torch.Size([3, 48, 64]))
    """

    def __init__(
        self,
        length: int,
        size: Sequence[int] = (96, 128),
        tasks: Sequence[str] = tuple(_CHANNELS),
        seed: int = 0,
        transform: Callable[[Item], Item] | None = None,
    ) -> None:
        if length < 1 or len(size) != 2 or min(size) < 1:
            raise DataError(
                f"length={length}, size={tuple(size)}: expected at least one scene and a positive "
                "(height, width)."
            )
        for task in tasks:
            if task not in _CHANNELS:
                raise UnknownNameError.of("task of made scenes", task, _CHANNELS)
        self.length = length
        self.size = (int(size[0]), int(size[1]))
        self.tasks = tuple(tasks)
        self.seed = seed
        self.transform = transform

    @property
    def channels(self) -> dict[str, int]:
        """Output channels a head needs, by task."""
        return {task: _CHANNELS[task] for task in self.tasks}

    @property
    def classes(self) -> dict[str, list[str]]:
        """Class names by task, for the tasks that have classes."""
        names = {"semseg": CLASSES, "human_parts": PARTS}
        return {task: list(names[task]) for task in self.tasks if task in names}

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Item:
        item = self.labels(index)
        return self.transform(item) if self.transform else item

    def labels(self, index: int) -> Item:
        """Render an item, and leave the transform out."""
        if not -self.length <= index < self.length:
            raise IndexError(f"scene {index} of {self.length}")
        index %= self.length
        everything = _render(np.random.default_rng([self.seed, index]), *self.size)
        item = {name: everything[name] for name in ("image", *self.tasks)}
        item["meta"] = {"id": f"{self.seed}-{index}", "size": self.size}
        return item


def _render(rng: np.random.Generator, height: int, width: int) -> Item:
    """Draw a scene, cast its rays, and read every label off what they met."""
    tilt = math.radians(rng.uniform(4, 16))
    to_camera = np.array(
        [[1, 0, 0], [0, math.cos(tilt), -math.sin(tilt)], [0, math.sin(tilt), math.cos(tilt)]]
    )
    eye = np.array([0, rng.uniform(1.2, 2.0), 0])
    focal = height / 2 / math.tan(math.radians(rng.uniform(24, 29)))
    bodies = _furnish(rng, half_width=width / 2 / focal)

    solids: list[Solid] = []
    classes, parts, instances, paints = [], [], [], []
    for number, (kind, body) in enumerate(bodies):
        coats: dict[int, Callable[[Array], Array]] = {}
        for part, solid, coat in body:
            solids.append(
                Solid(
                    solid.surfaces,
                    solid.reach,
                    to_camera @ solid.frame,
                    to_camera @ (solid.origin - eye),
                )
            )
            classes.append(CLASSES.index(kind))
            parts.append(part)
            instances.append(number)
            if coat not in coats:
                coats[coat] = texture(rng, large=number < 2)
            paints.append(coats[coat])

    x = (np.arange(width) + 0.5 - width / 2) / focal
    y = (height / 2 - np.arange(height) - 0.5) / focal
    rays = np.stack(np.broadcast_arrays(x, y[:, None], np.float64(-1)), -1)
    depth = np.full((height, width), np.inf)
    owner, surface = np.zeros((height, width), np.int64), np.zeros((height, width), np.int64)
    for index, solid in enumerate(solids):
        window = solid.window(focal, height, width)
        if depth[window].size == 0:
            continue
        near, piece = solid.hit(rays[window])
        closer = near < depth[window]
        depth[window][closer] = near[closer]
        surface[window][closer] = piece[closer]
        owner[window][closer] = index

    albedo, normals = np.zeros_like(rays), np.zeros_like(rays)
    for index, (solid, paint) in enumerate(zip(solids, paints, strict=True)):
        here = owner == index
        normals[here], points = solid.touch(rays[here], depth[here], surface[here])
        albedo[here] = paint(points)
    image = light(rng, albedo, normals)

    semseg, instance = np.array(classes)[owner], np.array(instances)[owner]
    person = semseg == CLASSES.index("person")
    parts_map = np.array(parts)[owner] if person.any() else np.full_like(owner, IGNORE)
    thing = (semseg > CLASSES.index("ground")) & ~person
    nearest = instance[np.unravel_index(np.where(thing, depth, np.inf).argmin(), depth.shape)]
    return {
        # On the grid of 8-bit files, so that writing and reading it changes nothing.
        "image": torch.from_numpy((image * 255).round() / 255).movedim(-1, 0).contiguous(),
        "semseg": torch.from_numpy(semseg),
        "human_parts": torch.from_numpy(parts_map),
        "sal": torch.from_numpy((person | (thing & (instance == nearest))).astype(np.int64)),
        "normals": torch.from_numpy(normals).float().movedim(-1, 0).contiguous(),
        "edge": torch.from_numpy(_borders(instance).astype(np.int64)),
        "depth": torch.from_numpy(depth).float()[None],
    }


_Body = tuple[str, list[tuple[int, Solid, int]]]
"""Class, and its solids with the part and the coat (one texture each) they have."""


def _furnish(rng: np.random.Generator, half_width: float) -> list[_Body]:
    """Set a wall, the ground, solids and people so that no two footprints overlap.

    Args:
        rng: Source of all of it.
        half_width: Tangent of half the horizontal field of view; things stand within 0.8 of it.
    """
    # The wall turns by at most 25 degrees, less in very wide pictures, so that every ray meets it.
    most = max(0.0, min(25, 75 - math.degrees(math.atan(half_width))))
    facing = math.radians(rng.uniform(-most, most))
    wall = plane(
        np.array([0, 0, -rng.uniform(6, 8)]), np.array([math.sin(facing), 0, math.cos(facing)])
    )
    ground = plane(np.zeros(3), np.array([0.0, 1, 0]))
    bodies: list[_Body] = [("background", [(0, wall, 0)]), ("ground", [(0, ground, 0)])]
    people = int(rng.choice(3, p=(0.2, 0.5, 0.3)))
    kinds = ["person"] * people + list(rng.choice(CLASSES[2:6], rng.integers(3, 6)))
    taken: list[tuple[float, float, float]] = []
    for kind in kinds:
        size = rng.uniform(0.25, 0.6)
        room = 0.45 if kind == "person" else 1.3 * size
        for _ in range(20):
            far = rng.uniform(2.3, 4.6)
            x, z = rng.uniform(-0.8, 0.8) * half_width * far, -far
            if all(math.hypot(x - u, z - v) > room + other for u, v, other in taken):
                break
        else:
            continue  # the room is full
        taken.append((x, z, room))
        place = np.array([x, 0, z])
        if kind == "person":
            bodies.append((kind, stick_person(rng, place)))
        else:
            bodies.append((kind, [(0, _solid(rng, str(kind), size, place), 0)]))
    return bodies


def _solid(rng: np.random.Generator, kind: str, size: float, place: Array) -> Solid:
    """Make a box, sphere, cylinder or cone that stands on the ground at ``place``."""
    tall = size * rng.uniform(0.6, 1.5)
    up = np.array([0.0, 1.0, 0.0])
    frame = rotation(up, rng.uniform(0, 2 * math.pi))
    if kind == "sphere":
        return sphere(place + size * up, size, rotation(rng.normal(size=3)))
    if kind == "box":
        return box(place + tall * up, (size * rng.uniform(0.6, 1), tall, 0.8 * size), frame)
    if kind == "cone":
        return cone(place + 1.2 * tall * up, size, 1.2 * tall, frame)
    if rng.random() < 0.4:  # a cylinder that lies
        turn = rng.uniform(0, 2 * math.pi)
        lying = rotation(np.array([math.cos(turn), 0, math.sin(turn)]))
        return cylinder(place + 0.6 * size * up, 0.6 * size, tall, lying)
    return cylinder(place + tall * up, 0.8 * size, tall, frame)


def _borders(instance: Array) -> Array:
    """Mark pixels one of whose four neighbours belongs to another instance."""
    edge = np.zeros(instance.shape, bool)
    down, right = instance[1:] != instance[:-1], instance[:, 1:] != instance[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    return edge
