"""What made scenes hold and look like: cameras, things, textures and light, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["LOOKS", "Look"]

_Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Look:
    """The distributions from which scenes are drawn; the defaults are the look ``mixed``.

    Args:
        tilt: How far the camera looks down, least and most, in degrees.
        eye: Its height in metres.
        view: Half its vertical field of view, in degrees.
        kinds: Classes of the things that may stand there.
        things: How many of them, from the first number to below the second.
        people: Probability of no, one, two ... people, in addition to those among ``kinds``.
        far: How far things stand from the camera, in metres.
        aside: Largest share of the way from the middle to the picture's border.
        patterns: Probability of each pattern of a texture.
        waves: Spatial frequency of patterns on things.
        large_waves: The same on the wall and the ground.
        across: Direction of the light, to the right.
        above: The same, from above.
        behind: The same, from the viewer's side.
        ambient: Share of the light that comes from everywhere.
        tint: Smallest and largest factor of a colour channel.
        noise: Deviation of the sensor's noise.

    Example:
        >>> Look(people=(1.0,)).kinds
        ('box', 'sphere', 'cylinder', 'cone')
    """

    tilt: _Range = (4, 16)
    eye: _Range = (1.2, 2.0)
    view: _Range = (24, 29)
    kinds: tuple[str, ...] = ("box", "sphere", "cylinder", "cone")
    things: tuple[int, int] = (3, 6)
    people: tuple[float, ...] = (0.2, 0.5, 0.3)
    far: _Range = (2.3, 4.6)
    aside: float = 0.8
    patterns: Mapping[str, float] = field(
        default_factory=lambda: {"plain": 0.3, "stripes": 0.2, "checker": 0.2, "noise": 0.3}
    )
    waves: _Range = (8, 20)
    large_waves: _Range = (2, 5)
    across: _Range = (-1, 1)
    above: _Range = (0.3, 1)
    behind: _Range = (0.2, 1)
    ambient: _Range = (0.25, 0.5)
    tint: _Range = (0.85, 1)
    noise: _Range = (0.005, 0.03)


LOOKS = {
    "mixed": Look(),
    "demo": Look(
        view=(20, 25),
        people=(0.1, 0.5, 0.4),
        patterns={"plain": 0.45, "stripes": 0.2, "checker": 0.2, "noise": 0.15},
        waves=(6, 14),
        large_waves=(1.5, 4),
        ambient=(0.35, 0.6),
        noise=(0, 0.012),
    ),
    "pretraining": Look(
        tilt=(8, 22),
        eye=(1.0, 1.9),
        view=(14, 22),
        kinds=("box", "sphere", "cylinder", "person"),
        things=(1, 3),
        people=(1.0,),
        far=(2.3, 4),
        aside=0.5,
        patterns={"plain": 0.4, "dots": 0.2, "zigzag": 0.2, "grid": 0.2},
        waves=(6, 16),
        large_waves=(1.5, 5),
        above=(0.7, 1),
        behind=(-0.2, 0.3),
        ambient=(0.4, 0.7),
        tint=(0.7, 1),
        noise=(0, 0.02),
    ),
}
"""By name: ``mixed`` is the default; ``demo``, quieter, is what ``--data made`` trains on;
``pretraining`` is what the demo's backbone has seen: one thing or two, near the camera, in other
textures and light, and no cones."""
