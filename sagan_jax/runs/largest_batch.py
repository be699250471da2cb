"""Finds the largest batch that fits into memory, by trial."""

from collections.abc import Callable


def largest_batch(fits: Callable[[int], bool], start: int, unit: int) -> int:
    """Returns the largest batch that fits, to within an eighth of it; 0 if not even `unit` images fit.

    The search doubles or halves the batch first, and then bisects. No batch is tried twice.

    Args:
        fits: returns whether a batch fits. A larger batch needs more memory.
        start: the batch to begin with, a multiple of `unit`.
        unit: every batch is a multiple of this.

    Examples:
        >>> largest_batch(lambda batch: batch <= 1000, start=64, unit=8)
        960
    """
    fitting, failing = 0, 0
    number = start // unit
    while not (fitting and failing):
        if fits(number * unit):
            fitting, number = number, 2 * number
        elif number == 1:
            return 0
        else:
            failing, number = number, number // 2
    while failing - fitting > max(1, fitting // 8):
        middle = (fitting + failing) // 2
        if fits(middle * unit):
            fitting = middle
        else:
            failing = middle
    return fitting * unit
