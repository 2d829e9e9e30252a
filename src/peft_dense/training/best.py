"""Which of a run's models is the best: a fixed rule over the scores alone.

The rule, in words: *of two models, better is the one that more tasks have a score of; among those,
the one whose tasks are better by the geometric mean; among equals, the later one.*

For a task whose metric grows as it gets better, such as an mIoU in percent, its factor in the mean
is one plus the score, so that a score of 0 is one like any other. For a task whose metric is an
error, its factor is one over the error. So a task counts by the ratio of its scores, as in the
field's mean relative gain, but nothing is relative to a reference: no validation, and no order of
validations, can change which of two models is the better one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from peft_dense.tasks import Task

__all__ = ["Quality", "quality"]

Quality = tuple[int, float, int]
"""What is compared, in this order: tasks with a score, their mean logarithm, the step."""

_NO_ERROR = 1e-6
"""An error below this is no better than this: perfection in one task mustn't hide the others."""


def quality(primary: Mapping[str, float], tasks: Mapping[str, Task], step: int = 0) -> Quality:
    r"""Turn each task's primary metric into a quality by which models compare.

    .. math:: q = \frac{1}{T} \sum_{t=1}^{T} \begin{cases}
        \log(1 + \max(M_t, 0)) & \text{higher is better} \\
        -\log \max(M_t, 10^{-6}) & \text{lower is better} \end{cases}

    over the T tasks whose metric is finite. A metric is NaN where there was no label, for every
    model alike, or where the model's predictions are NaN; such a model loses.

    Args:
        primary: The primary metric by task; shares are in percent.
        tasks: The tasks, which say whether their metric is an error.
        step: When it was scored; decides among equals.

    Example:
        >>> from peft_dense.tasks import task
        >>> known = {"semseg": task("semseg"), "normals": task("normals")}
        >>> one, other = {"semseg": 67.0, "normals": 22.0}, {"semseg": 66.0, "normals": 18.0}
        >>> quality(one, known) < quality(other, known)
        True
    """
    worths = [
        math.log1p(max(value, 0.0))
        if tasks[name].higher_is_better
        else -math.log(max(value, _NO_ERROR))
        for name, value in sorted(primary.items())
        if math.isfinite(value)
    ]
    return len(worths), math.fsum(worths) / max(1, len(worths)), step
