"""Correction for multiple comparisons."""

from collections.abc import Sequence


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Returns p values adjusted for all comparisons of a family, by the method of Holm (1979).

    Args:
        p_values: one for each planned comparison. None stands for one that is not measured yet. It still counts, so
            that the others do not look better than they will be.

    Examples:
        >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03, 0.005])]
        [0.03, 0.06, 0.06, 0.02]
        >>> holm([0.01, None, None])
        [0.03, None, None]
    """
    if not p_values:
        return []
    from statsmodels.stats.multitest import multipletests  # takes a second

    adjusted = multipletests([1.0 if p is None else p for p in p_values], method="holm")[1]
    return [None if p is None else float(value) for p, value in zip(p_values, adjusted, strict=True)]
