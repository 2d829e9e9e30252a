"""Stick people: bodies of capsules in random poses, part by part."""

from __future__ import annotations

import math

import numpy as np

from peft_dense.data.made.solids import Array, Solid, capsule

__all__ = ["PARTS", "stick_person"]

PARTS = ("background", "head", "torso", "upper arm", "lower arm", "upper leg", "lower leg")
"""Names of the part classes: background and six parts, as multi-task work groups PASCAL-Part's."""

_SKIN, _SHIRT, _TROUSERS = range(3)


def stick_person(rng: np.random.Generator, place: Array) -> list[tuple[int, Solid, int]]:
    """Pose a person of ten capsules, standing or crouching with its lowest point on the ground.

    Args:
        rng: Source of the pose, the height and the heading.
        place: Where it stands, ``(x, 0, z)`` in metres, y up.

    Returns:
        Triples of part (index into `PARTS`), solid and coat: solids of a coat share a texture.

    Example:
        >>> body = stick_person(np.random.default_rng(0), np.zeros(3))
        >>> sorted({PARTS[part] for part, _, _ in body})
        ['head', 'lower arm', 'lower leg', 'torso', 'upper arm', 'upper leg']
    """
    lean = _direction(rng.uniform(-12, 12), rng.uniform(-10, 25), down=False)
    neck = 0.5 * lean
    limbs: list[tuple[int, Array, Array, float, int]] = [
        (1, neck + 0.17 * lean, neck + 0.24 * lean, 0.13, _SKIN),
        (2, 0.03 * lean, neck - 0.03 * lean, 0.16, _SHIRT),
    ]
    bare_arms, bare_legs = rng.random(2) < 0.5
    for side in (-1, 1):
        shoulder = neck + np.array([side * 0.21, -0.03, 0])
        out, swing = rng.uniform(5, 130), rng.uniform(-50, 60)
        elbow = shoulder + 0.30 * _direction(side * out, swing)
        hand = elbow + 0.29 * _direction(
            side * (out + rng.uniform(-50, 50)), swing + rng.uniform(0, 90)
        )
        limbs.append((3, shoulder, elbow, 0.075, _SHIRT))
        limbs.append((4, elbow, hand, 0.065, _SKIN if bare_arms else _SHIRT))

        hip = np.array([side * 0.1, -0.05, 0])
        out, swing = rng.uniform(0, 28), rng.uniform(-30, 45)
        knee = hip + 0.43 * _direction(side * out, swing)
        foot = knee + 0.43 * _direction(side * out * 0.7, swing - rng.uniform(0, 60))
        limbs.append((5, hip, knee, 0.10, _TROUSERS))
        limbs.append((6, knee, foot, 0.08, _SKIN if bare_legs else _TROUSERS))

    scale, heading = rng.uniform(0.7, 1.1), rng.uniform(0, 2 * math.pi)
    cos, sin = math.cos(heading), math.sin(heading)
    turn = scale * np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
    lowest = min(min(start[1], end[1]) - radius for _, start, end, radius, _ in limbs)
    base = place - np.array([0, scale * lowest, 0])
    return [
        (part, capsule(base + turn @ start, base + turn @ end, scale * radius), coat)
        for part, start, end, radius, coat in limbs
    ]


def _direction(out: float, swing: float, *, down: bool = True) -> Array:
    """Tilt a vertical unit vector sideways by ``out`` and forwards by ``swing`` degrees."""
    a, b = math.radians(out), math.radians(swing)
    sign = -1 if down else 1
    return np.array([math.sin(a), sign * math.cos(a) * math.cos(b), math.cos(a) * math.sin(b)])
