"""What stands in a made scene, and where: a wall, the ground, solids and people."""

from __future__ import annotations

import math

import numpy as np

from peft_dense.data.made.looks import Look
from peft_dense.data.made.people import stick_person
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

__all__ = ["Body", "furnish"]

Body = tuple[str, list[tuple[int, Solid, int]]]
"""Class, and its solids, each with its part and its coat (solids of one coat share a texture)."""


def furnish(rng: np.random.Generator, half_width: float, look: Look) -> list[Body]:
    """Set a wall, the ground, solids and people so that no two footprints overlap.

    Args:
        rng: Source of all of it.
        half_width: Tangent of half the horizontal field of view; things stand within a share of it.
        look: Says which things, and how many.
    """
    # The wall turns by at most 25 degrees, less in very wide pictures, so that every ray meets it.
    most = max(0.0, min(25, 75 - math.degrees(math.atan(half_width))))
    facing = math.radians(rng.uniform(-most, most))
    wall = plane(
        np.array([0, 0, -rng.uniform(6, 8)]), np.array([math.sin(facing), 0, math.cos(facing)])
    )
    ground = plane(np.zeros(3), np.array([0.0, 1, 0]))
    bodies: list[Body] = [("background", [(0, wall, 0)]), ("ground", [(0, ground, 0)])]
    people = int(rng.choice(len(look.people), p=look.people))
    kinds = ["person"] * people + list(rng.choice(look.kinds, rng.integers(*look.things)))
    taken: list[tuple[float, float, float]] = []
    for kind in kinds:
        size = rng.uniform(0.25, 0.6)
        room = 0.45 if kind == "person" else 1.3 * size
        for _ in range(20):
            far = rng.uniform(*look.far)
            x, z = rng.uniform(-look.aside, look.aside) * half_width * far, -far
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
