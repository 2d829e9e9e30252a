"""One number for several tasks: the mean relative gain over a reference."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from peft_dense.errors import UnknownNameError
from peft_dense.tasks.registry import task
from peft_dense.tasks.scores import Scores

__all__ = ["delta_m"]


def delta_m(
    result: Scores | Mapping[str, float],
    reference: Scores | Mapping[str, float],
    lower_is_better: Collection[str] | None = None,
    *,
    allow_protocols: bool = False,
) -> float:
    r"""Reduce each task's metric to the mean relative gain over a reference, in percent.

    .. math:: \Delta = \frac{100}{T} \sum_{t=1}^{T} (-1)^{l_t} \frac{M_t - R_t}{R_t}

    with l_t = 1 where lower is better (Vandenhende et al., "Multi-Task Learning for Dense
    Prediction Tasks: A Survey", TPAMI 2021; the last column of Polyhistor's and VMT-Adapter's
    tables, whose reference is single-task full fine-tuning).

    The same number means another thing by another metric, or at another size of the labels. Two
    :class:`Scores` know theirs and are refused where they differ; of plain numbers nothing is
    known, and nothing is checked.

    Args:
        result: The primary metric by task.
        reference: The same of what it is compared with, such as one of :func:`references`.
        lower_is_better: The tasks whose metric is an error; by default what the scores, or else
            each registered task, say of themselves.
        allow_protocols: Whether the two protocols may differ; then say so beside the gain.

    Returns:
        The gain; NaN where a metric is NaN or a reference is zero, as no relative gain exists.

    Raises:
        UnknownNameError: If the tasks differ, there are none, or ``lower_is_better`` names
            others.
        DataError: If both are scores, and a task's metric or the protocol differs.

    Example:
        >>> from peft_dense.tasks.scores import references
        >>> single = references()["polyhistor_swin_tiny"].values
        >>> decoders = {"semseg": 63.14, "human_parts": 52.37, "sal": 58.39, "normals": 20.89}
        >>> round(delta_m(decoders, single), 2)
        -11.02
    """
    values, base = _values(result), _values(reference)
    if set(values) != set(base) or not values:
        raise UnknownNameError(
            f"result has the tasks {_list(values)}, reference {_list(base)}; "
            "pass the same tasks in both."
        )
    scores = [each for each in (result, reference) if isinstance(each, Scores)]
    if len(scores) == 2:
        scores[0].check(scores[1], allow_protocols=allow_protocols)
    if lower_is_better is None and scores:
        lower_is_better = scores[0].lower_is_better
    if lower_is_better is None:
        lower_is_better = [name for name in values if not task(name).higher_is_better]
    for name in lower_is_better:
        if name not in values:
            raise UnknownNameError.of("task in lower_is_better", name, values)
    gains = [
        (value - base[name]) / base[name] * (-1 if name in lower_is_better else 1)
        if base[name]
        else float("nan")
        for name, value in values.items()
    ]
    return 100 * sum(gains) / len(gains)


def _values(scores: Scores | Mapping[str, float]) -> Mapping[str, float]:
    return scores.values if isinstance(scores, Scores) else scores


def _list(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "none"
