"""The BSDS boundary benchmark: edges thinned, matched one to one within a tolerance, and scored.

Each step is a function of its own: :func:`non_maximum_suppression` and :func:`thin` make lines one
pixel wide, :class:`PixelMatcher` pairs pixels, :func:`boundary_counts` does both at every threshold
of an image, and :class:`BoundaryMeter` sums images and scores them.
"""

from peft_dense.tasks.boundaries.counting import boundary_counts
from peft_dense.tasks.boundaries.matching import PixelMatcher
from peft_dense.tasks.boundaries.meter import BoundaryMeter
from peft_dense.tasks.boundaries.suppression import non_maximum_suppression
from peft_dense.tasks.boundaries.thinning import thin

__all__ = ["BoundaryMeter", "PixelMatcher", "boundary_counts", "non_maximum_suppression", "thin"]
