"""The search for the largest batch, against every batch tried in turn."""

import pytest

from sagan_jax.runs.largest_batch import largest_batch


@pytest.mark.parametrize("unit", [1, 8, 24])
@pytest.mark.parametrize("limit", [0, 1, 7, 8, 23, 100, 4093])
def test_batch_found_fits_and_is_within_an_eighth_of_the_largest(limit, unit):
    tried = []

    def fits(batch):
        tried.append(batch)
        return batch <= limit

    found = largest_batch(fits, start=3 * unit, unit=unit)
    largest = max(batch for batch in range(0, limit + 1, unit))
    assert found <= largest <= max(found + unit, found * 9 / 8)
    assert len(tried) == len(set(tried)) <= 18
    assert all(batch % unit == 0 for batch in tried)
