"""One number for several tasks: the mean relative gain over a reference."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from peft_dense.errors import UnknownNameError
from peft_dense.tasks.registry import task

__all__ = ["delta_m"]


def delta_m(
    result: Mapping[str, float],
    reference: Mapping[str, float],
    lower_is_better: Collection[str] | None = None,
) -> float:
    r"""Reduce each task's metric to the mean relative gain over a reference, in percent.

    .. math:: \Delta = \frac{100}{T} \sum_{t=1}^{T} (-1)^{l_t} \frac{M_t - R_t}{R_t}

    with l_t = 1 where lower is better (Vandenhende et al., "Multi-Task Learning for Dense
    Prediction Tasks: A Survey", TPAMI 2021; the last column of Polyhistor's and VMT-Adapter's
    tables, whose reference is single-task full fine-tuning).

    Args:
        result: The primary metric by task.
        reference: The same of what it is compared with.
        lower_is_better: The tasks whose metric is an error; by default what each registered task
            says of itself.

    Returns:
        The gain; NaN where a metric is NaN or a reference is zero, as no relative gain exists.

    Raises:
        UnknownNameError: If the tasks differ, there are none, or ``lower_is_better`` names
            others.

    Example:
        >>> single = {"semseg": 67.21, "human_parts": 61.93, "sal": 62.35, "normals": 17.97}
        >>> decoders = {"semseg": 63.14, "human_parts": 52.37, "sal": 58.39, "normals": 20.89}
        >>> round(delta_m(decoders, single), 2)
        -11.02
    """
    if set(result) != set(reference) or not result:
        raise UnknownNameError(
            f"result has the tasks {_list(result)}, reference {_list(reference)}; "
            "pass the same tasks in both."
        )
    if lower_is_better is None:
        lower_is_better = [name for name in result if not task(name).higher_is_better]
    for name in lower_is_better:
        if name not in result:
            raise UnknownNameError.of("task in lower_is_better", name, result)
    gains = [
        (value - reference[name]) / reference[name] * (-1 if name in lower_is_better else 1)
        if reference[name]
        else float("nan")
        for name, value in result.items()
    ]
    return 100 * sum(gains) / len(gains)


def _list(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "none"
