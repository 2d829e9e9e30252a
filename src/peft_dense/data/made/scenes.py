"""Rendered scenes: solids and stick people, with exact labels for six tasks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from peft_dense.data.labels import IGNORE, Item
from peft_dense.data.made.furniture import furnish
from peft_dense.data.made.looks import LOOKS, Look
from peft_dense.data.made.people import PARTS
from peft_dense.data.made.shading import light, texture
from peft_dense.data.made.solids import Array, Solid
from peft_dense.errors import DataError, UnknownNameError

__all__ = ["CLASSES", "PARTS", "Scenes"]

CLASSES = ("background", "ground", "box", "sphere", "cylinder", "cone", "person")
"""Names of the semantic classes; the background is the wall behind."""

_CHANNELS = {"semseg": 7, "human_parts": 7, "sal": 1, "normals": 3, "edge": 1, "depth": 1}


class Scenes(Dataset[Item]):
    """Render rooms with solids and stick people by casting rays, with labels that are exact.

    A pinhole camera sees a ground, a wall, 3 to 5 solids (box, sphere, cylinder, cone) and 0 to 2
    people of capsules, all with random poses, colours, textures and one random light (Lambert).
    Item ``i`` depends on ``i``, ``seed``, ``size`` and ``look`` alone. Items are those of
    `DenseFolder`:

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
        seed: Seed of the scenes.
        transform: Callable from item to item.
        look: What scenes hold and look like, or its name in `LOOKS`.

    Shape:
        ``image``: ``(C, H, W)``; labels: ``(H, W)``, and ``(C, H, W)`` of normals and depth

    Raises:
        DataError: If length or size isn't positive.
        UnknownNameError: If a task isn't one of the six, or there is no such look.

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
        look: str | Look = "mixed",
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
        if isinstance(look, str) and look not in LOOKS:
            raise UnknownNameError.of("look of made scenes", look, LOOKS)
        self.look = LOOKS[look] if isinstance(look, str) else look

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
        """Render an item, without the transform."""
        index = self._inside(index)
        everything = _render(np.random.default_rng([self.seed, index]), *self.size, self.look)
        item = {name: everything[name] for name in ("image", *self.tasks)}
        item["meta"] = {"id": f"{self.seed}-{index}", "size": self.size}
        return item

    def views(self, index: int, count: int = 2) -> tuple[list[Tensor], dict[str, int]]:
        """Render a scene without labels, each time in other colours, textures and light.

        Args:
            index: Which scene.
            count: How many pictures; the first is the item's image.

        Returns:
            The pictures ``(3, H, W)``, and how many things of each kind stand in the scene.

        Example:
            >>> views, things = Scenes(10, size=(48, 64)).views(3)
            >>> [view.shape for view in views], sorted(things)[:2]
            ([torch.Size([3, 48, 64]), torch.Size([3, 48, 64])], ['box', 'cone'])
        """
        index = self._inside(index)
        rng = np.random.default_rng([self.seed, index])
        cast = _cast(rng, *self.size, self.look)
        draws = [rng, *(np.random.default_rng([self.seed, index, k]) for k in range(1, count))]
        things = {kind: cast.kinds.count(kind) for kind in CLASSES[2:]}
        return [_paint(each, cast, self.look)[0] for each in draws], things

    def _inside(self, index: int) -> int:
        if not -self.length <= index < self.length:
            raise IndexError(f"scene {index} of {self.length}")
        return index % self.length


@dataclass(frozen=True)
class _Cast:
    """What the rays of a picture met: everything but colours and light.

    Args:
        kinds: Class of each body, from the wall on.
        solids: In the camera's frame.
        bodies: Number of the body that each solid belongs to.
        parts: Part of a person that each solid is.
        coats: Of each solid; solids of a body that share a coat share a texture.
        rays: One per pixel.
        depth: Along the optical axis.
        owner: Index of the solid that is seen.
        surface: Index of its surface.
    """

    kinds: tuple[str, ...]
    solids: list[Solid]
    bodies: list[int]
    parts: list[int]
    coats: list[int]
    rays: Array
    depth: Array
    owner: Array
    surface: Array


def _cast(rng: np.random.Generator, height: int, width: int, look: Look) -> _Cast:
    """Draw a scene and cast its rays."""
    tilt = math.radians(rng.uniform(*look.tilt))
    to_camera = np.array(
        [[1, 0, 0], [0, math.cos(tilt), -math.sin(tilt)], [0, math.sin(tilt), math.cos(tilt)]]
    )
    eye = np.array([0, rng.uniform(*look.eye), 0])
    focal = height / 2 / math.tan(math.radians(rng.uniform(*look.view)))
    furniture = furnish(rng, half_width=width / 2 / focal, look=look)

    solids: list[Solid] = []
    bodies, parts, coats = [], [], []
    for number, (_, body) in enumerate(furniture):
        for part, solid, coat in body:
            frame, origin = to_camera @ solid.frame, to_camera @ (solid.origin - eye)
            solids.append(Solid(solid.surfaces, solid.reach, frame, origin))
            bodies.append(number)
            parts.append(part)
            coats.append(coat)

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
    kinds = tuple(kind for kind, _ in furniture)
    return _Cast(kinds, solids, bodies, parts, coats, rays, depth, owner, surface)


def _paint(rng: np.random.Generator, cast: _Cast, look: Look) -> tuple[Tensor, Array]:
    """Give what was met textures and a light: the image ``(3, H, W)``, and the normals."""
    paints: dict[tuple[int, int], Callable[[Array], Array]] = {}
    for body, coat in zip(cast.bodies, cast.coats, strict=True):
        if (body, coat) not in paints:
            paints[body, coat] = texture(rng, look, large=body < 2)
    albedo, normals = np.zeros_like(cast.rays), np.zeros_like(cast.rays)
    for index, solid in enumerate(cast.solids):
        here = cast.owner == index
        normals[here], points = solid.touch(cast.rays[here], cast.depth[here], cast.surface[here])
        albedo[here] = paints[cast.bodies[index], cast.coats[index]](points)
    image = light(rng, look, albedo, normals)
    # On the grid of 8-bit files, so that writing and reading it changes nothing.
    return torch.from_numpy((image * 255).round() / 255).movedim(-1, 0).contiguous(), normals


def _render(rng: np.random.Generator, height: int, width: int, look: Look) -> Item:
    """Draw a scene, and read every label off what its rays met."""
    cast = _cast(rng, height, width, look)
    image, normals = _paint(rng, cast, look)
    instance, depth = np.array(cast.bodies)[cast.owner], cast.depth
    semseg = np.array([CLASSES.index(kind) for kind in cast.kinds])[instance]
    person = semseg == CLASSES.index("person")
    parts_map = np.array(cast.parts)[cast.owner]
    thing = (semseg > CLASSES.index("ground")) & ~person
    nearest = instance[np.unravel_index(np.where(thing, depth, np.inf).argmin(), depth.shape)]
    return {
        "image": image,
        "semseg": torch.from_numpy(semseg),
        "human_parts": torch.from_numpy(
            parts_map if person.any() else np.full_like(parts_map, IGNORE)
        ),
        "sal": torch.from_numpy((person | (thing & (instance == nearest))).astype(np.int64)),
        "normals": torch.from_numpy(normals).float().movedim(-1, 0).contiguous(),
        "edge": torch.from_numpy(_borders(instance).astype(np.int64)),
        "depth": torch.from_numpy(depth).float()[None],
    }


def _borders(instance: Array) -> Array:
    """Mark pixels one of whose four neighbours belongs to another instance."""
    edge = np.zeros(instance.shape, bool)
    down, right = instance[1:] != instance[:-1], instance[:, 1:] != instance[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    return edge
