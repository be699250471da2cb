"""Correction for multiple comparisons."""

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p values adjusted for all comparisons of a family, by the method of Holm (1979).

    Args:
        p_values: one for each planned comparison.

    Examples:
        >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03, 0.005])]
        [0.03, 0.06, 0.06, 0.02]
    """
    if not p_values:
        return []
    from statsmodels.stats.multitest import multipletests  # takes a second

    return multipletests(p_values, method="holm")[1].tolist()
