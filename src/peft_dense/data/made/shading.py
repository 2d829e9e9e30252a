"""Random textures of solids, and one random light."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from peft_dense.data.made.looks import Look
from peft_dense.data.made.solids import Array, rotation

__all__ = ["light", "texture"]


def texture(rng: np.random.Generator, look: Look, *, large: bool) -> Callable[[Array], Array]:
    """Draw a texture in two random colours.

    Patterns are ``plain``, ``stripes``, ``checker`` and ``noise`` (clouds), ``dots``, ``zigzag``
    and ``grid`` (lines).

    Args:
        rng: Source of the pattern, its scale, its orientation and the colours.
        look: Says how probable each pattern is, and how fine.
        large: Whether it is for a wall or the ground, whose patterns are larger.

    Returns:
        A function from points of the solid ``(N, 3)`` to colours ``(N, 3)`` in 0..1.

    Example:
        >>> paint = texture(np.random.default_rng(0), Look(), large=False)
        >>> paint(np.zeros((5, 3))).shape
        (5, 3)
    """
    first, second = rng.uniform(0.05, 0.95, (2, 3))
    second = first + rng.uniform(0.3, 1) * (second - first)
    pattern = rng.choice(list(look.patterns), p=list(look.patterns.values()))
    scale = rng.uniform(*(look.large_waves if large else look.waves))
    waves = rotation(rng.normal(size=3), rng.uniform(0, 7)) * scale
    if large and pattern == "checker":  # in a plane's own frame y is its normal: tiles
        waves = rotation(np.array([0.0, 1, 0]), rng.uniform(0, 7)) * scale
    phases = rng.uniform(0.5, 2, 3)
    fine = rng.normal(size=(3, 6)) * scale * 1.5

    def colours(points: Array) -> Array:
        angles = points @ waves + phases
        if pattern == "plain":
            mix = np.zeros(len(points))
        elif pattern == "stripes":
            mix = (np.sin(angles[:, 0]) > 0).astype(float)
        elif pattern == "checker":
            mix = (np.sin(angles[:, [0, 2]]).prod(1) > 0).astype(float)
        elif pattern == "dots":
            mix = (np.cos(angles).sum(1) > 1.5).astype(float)
        elif pattern == "zigzag":
            mix = (np.sin(angles[:, 0] + 1.5 * np.sin(angles[:, 1])) > 0).astype(float)
        elif pattern == "grid":
            mix = (np.cos(angles).max(1) > 0.9).astype(float)
        else:
            mix = 0.5 + 0.5 * np.tanh(np.sin(points @ fine + phases[0]).sum(1))
        return np.asarray(first + mix[:, None] * (second - first))

    return colours


def light(rng: np.random.Generator, look: Look, albedo: Array, normals: Array) -> Array:
    """Shade by Lambert's law under one random distant light, and add sensor noise.

    Args:
        rng: Source of direction, power and tint of the light, and of the noise.
        look: Says where the light may come from, its tint, and how much noise there is.
        albedo: Colours of the surfaces.
        normals: Unit normals in the camera's frame.

    Shape:
        ``(H, W, 3), (H, W, 3) -> (H, W, 3)`` float32 in 0..1
    """
    direction = np.array([rng.uniform(*side) for side in (look.across, look.above, look.behind)])
    direction /= np.linalg.norm(direction)
    ambient, power = rng.uniform(*look.ambient), rng.uniform(0.8, 1.2)
    tint = rng.uniform(*look.tint, 3)
    lambert = np.maximum(normals @ direction, 0)[..., None]
    image = albedo * (ambient + (1 - ambient) * lambert) * power * tint
    noisy = image + rng.normal(scale=rng.uniform(*look.noise), size=image.shape)
    return np.asarray(noisy.clip(0, 1), np.float32)
