r"""Solids and the rays that meet them: depth and normals in closed form, in NumPy.

The camera sits at the origin and looks along -z, x to the right and y up. A ray is ``(x, y, -1)``,
so its parameter *is* the depth along the optical axis. Each solid has a frame of its own, in which
its surfaces are simple: every round one is a piece of a quadric of revolution about y,

.. math:: x^2 + z^2 = c_0 + c_1 y + c_2 y^2, \qquad lo \le y \le hi.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

__all__ = ["Array", "Solid", "box", "capsule", "cone", "cylinder", "plane", "rotation", "sphere"]

Array = np.ndarray[Any, Any]
_NEAR = 1e-3


class Surface(Protocol):
    """A surface in the frame of its solid."""

    def hit(self, origin: Array, rays: Array) -> Array:
        """Give the first positive ray parameter on the surface, infinity where missed."""

    def normal(self, points: Array) -> Array:
        """Give the outward normal at points of the surface, of any length."""


@dataclass(frozen=True)
class Revolved:
    """A piece of the quadric ``x^2 + z^2 = c0 + c1 y + c2 y^2`` between two heights."""

    c0: float
    c1: float
    c2: float
    low: float
    high: float

    def hit(self, origin: Array, rays: Array) -> Array:
        (ox, oy, oz), (dx, dy, dz) = origin, _xyz(rays)
        a = dx * dx + dz * dz - self.c2 * dy * dy
        b = ox * dx + oz * dz - (self.c2 * oy + self.c1 / 2) * dy
        c = ox * ox + oz * oz - (self.c2 * oy + self.c1) * oy - self.c0
        root = np.sqrt(np.maximum(b * b - a * c, 0))
        a = np.where(np.abs(a) < 1e-9, 1e-9, a)
        best = np.full(a.shape, np.inf, a.dtype)
        for t in ((-b - root) / a, (-b + root) / a):
            y = oy + t * dy
            met = (root > 0) & (t > _NEAR) & (y >= self.low) & (y <= self.high)
            best = np.where(met, np.minimum(best, t), best)
        return best

    def normal(self, points: Array) -> Array:
        x, y, z = _xyz(points)
        return np.stack([x, -(self.c1 / 2 + self.c2 * y), z], -1)


@dataclass(frozen=True)
class Disc:
    """A horizontal disc; with an infinite radius, a plane. ``up`` is +1 or -1."""

    height: float
    radius: float
    up: float = 1.0

    def hit(self, origin: Array, rays: Array) -> Array:
        dy = np.where(np.abs(rays[..., 1]) < 1e-9, 1e-9, rays[..., 1])
        t = (self.height - origin[1]) / dy
        x, z = origin[0] + t * rays[..., 0], origin[2] + t * rays[..., 2]
        return np.where((t > _NEAR) & (x * x + z * z <= self.radius**2), t, np.inf)

    def normal(self, points: Array) -> Array:
        return np.broadcast_to(np.array([0, self.up, 0], points.dtype), points.shape)


@dataclass(frozen=True)
class Block:
    """A box about the origin with these half edges."""

    half: tuple[float, float, float]

    def hit(self, origin: Array, rays: Array) -> Array:
        rays = np.where(np.abs(rays) < 1e-9, 1e-9, rays)
        half = np.array(self.half, rays.dtype)
        ends = np.stack([(-half - origin) / rays, (half - origin) / rays])
        enter, leave = ends.min(0).max(-1), ends.max(0).min(-1)
        return np.where((enter <= leave) & (enter > _NEAR), enter, np.inf)

    def normal(self, points: Array) -> Array:
        part = points / np.array(self.half, points.dtype)
        face = np.abs(part).argmax(-1)
        normals: Array = np.eye(3, dtype=points.dtype)[face] * np.sign(part)
        return normals


@dataclass(frozen=True)
class Solid:
    """Surfaces that close a body, and where it stands.

    Args:
        surfaces: In the solid's own frame.
        reach: Radius of a ball about its origin that holds it; infinite for a plane.
        frame: Its axes in the camera's frame, as the columns of a rotation.
        origin: Its origin in the camera's frame, metres.
    """

    surfaces: tuple[Surface, ...]
    reach: float
    frame: Array
    origin: Array

    def hit(self, rays: Array) -> tuple[Array, Array]:
        """Meet rays from the camera with the solid.

        Shape:
            ``(..., 3) -> (...), (...)``: depth (infinite where missed) and index of the surface
        """
        local = rays @ self.frame.astype(rays.dtype)
        eye = self._eye(rays.dtype)
        depths = np.stack([surface.hit(eye, local) for surface in self.surfaces])
        first = depths.argmin(0)
        return np.take_along_axis(depths, first[None], 0)[0], first

    def touch(self, rays: Array, depth: Array, surface: Array) -> tuple[Array, Array]:
        """Give what rays find where they hit: unit normals and places on the solid.

        Shape:
            ``(N, 3), (N), (N) -> (N, 3), (N, 3)``: normals in the camera's frame, and points in
            the solid's frame
        """
        frame = self.frame.astype(rays.dtype)
        points = self._eye(rays.dtype) + depth[:, None] * (rays @ frame)
        normals = np.empty_like(points)
        for index, piece in enumerate(self.surfaces):
            here = surface == index
            normals[here] = piece.normal(points[here])
        normals /= np.sqrt((normals * normals).sum(-1, keepdims=True))
        return normals @ frame.T, points

    def _eye(self, dtype: Any) -> Array:
        """Where the camera is, in the solid's frame."""
        return (-self.origin @ self.frame).astype(dtype)

    def window(self, focal: float, height: int, width: int) -> tuple[slice, slice]:
        """Bound the pixels in which the solid can appear, as rows and columns.

        Args:
            focal: Focal length in pixels.
            height: Rows of the image.
            width: Columns of the image.
        """
        x, y, z = (float(v) for v in self.origin)
        rows = _interval(-y, -z, self.reach, focal, height)
        columns = _interval(x, -z, self.reach, focal, width)
        return rows, columns


def _xyz(vectors: Array) -> tuple[Array, Array, Array]:
    return vectors[..., 0], vectors[..., 1], vectors[..., 2]


def _interval(offset: float, depth: float, reach: float, focal: float, pixels: int) -> slice:
    """Project a ball on one image axis; everything if the ball is about the camera."""
    distance = math.hypot(offset, depth)
    if distance <= reach:
        return slice(0, pixels)
    middle, spread = math.atan2(offset, depth), math.asin(reach / distance)
    limit = math.pi / 2 - 1e-3
    low, high = (math.tan(max(-limit, min(limit, middle + s))) for s in (-spread, spread))
    first, last = math.floor(low * focal + pixels / 2), math.ceil(high * focal + pixels / 2)
    return slice(min(max(first, 0), pixels), min(max(last, 0), pixels))


def rotation(axis: Array, turn: float = 0.0) -> Array:
    """Make a rotation whose second column is ``axis``, turned about it.

    Example:
        >>> rotation(np.array([3.0, 0.0, 4.0]))[:, 1].tolist()
        [0.6, 0.0, 0.8]
    """
    a, b, c = (axis / np.linalg.norm(axis)).tolist()
    y = np.array([a, b, c])
    x = np.array([b, -a, 0.0] if abs(c) < 0.9 else [0.0, c, -b])  # y x e_z, or y x e_x
    x /= np.linalg.norm(x)
    z = np.array([x[1] * c - x[2] * b, x[2] * a - x[0] * c, x[0] * b - x[1] * a])
    cos, sin = math.cos(turn), math.sin(turn)
    return np.stack([cos * x - sin * z, y, sin * x + cos * z], -1)


def plane(point: Array, normal: Array) -> Solid:
    """The plane through a point."""
    return Solid((Disc(0, math.inf),), math.inf, rotation(normal), point)


def sphere(centre: Array, radius: float, frame: Array | None = None) -> Solid:
    """A ball."""
    frame = np.eye(3) if frame is None else frame
    return Solid((Revolved(radius**2, 0, -1, -radius, radius),), radius, frame, centre)


def box(centre: Array, half: tuple[float, float, float], frame: Array) -> Solid:
    """A box by its half edges along the axes of ``frame``."""
    return Solid((Block(half),), math.hypot(*half), frame, centre)


def cylinder(centre: Array, radius: float, half: float, frame: Array) -> Solid:
    """A cylinder about the y of ``frame``, ``2 half`` long."""
    caps = (Disc(half, radius), Disc(-half, radius, -1))
    return Solid(
        (Revolved(radius**2, 0, 0, -half, half), *caps), math.hypot(radius, half), frame, centre
    )


def cone(centre: Array, radius: float, half: float, frame: Array) -> Solid:
    """A cone about the y of ``frame``: base ``radius`` at -half, apex at half."""
    slope = (radius / (2 * half)) ** 2  # radius at y: slope * (half - y)^2, squared
    side = Revolved(slope * half**2, -2 * slope * half, slope, -half, half)
    return Solid((side, Disc(-half, radius, -1)), math.hypot(radius, half), frame, centre)


def capsule(start: Array, end: Array, radius: float) -> Solid:
    """All points within ``radius`` of the line from ``start`` to ``end``."""
    half = float(np.linalg.norm(end - start)) / 2
    balls = (
        Revolved(radius**2 - half**2, 2 * y, -1, y - radius, y + radius) for y in (-half, half)
    )
    return Solid(
        (Revolved(radius**2, 0, 0, -half, half), *balls),
        half + radius,
        rotation(end - start),
        (start + end) / 2,
    )
