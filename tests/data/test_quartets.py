"""Quartets: four images of two parts each, which differ only in the hues of the parts."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

from sagan_jax.data.quartets import draw_quartets
from sagan_jax.data.synthetic import Pairs
from sagan_jax.evaluation.rules import check_pairs
from support.assertions import refusal

pytestmark = pytest.mark.one_jax

RULE, RESOLUTION = Pairs(hues=5, forms=2, size=7), 40  # blobs of 9 pixels, so gaps up to 22


def drawn(count, gaps=(1, 22), rule=RULE, seed=0):
    return draw_quartets(rule, count, RESOLUTION, gaps, np.random.default_rng(seed))


def test_first_half_follows_the_rule_and_second_half_does_not():
    quartets = drawn(30)
    found = check_pairs(quartets.images.reshape(-1, *quartets.images.shape[2:]), RULE)
    assert found.parts_valid.all()
    assert found.agreements["form"].all()
    assert found.agreements["hue"].reshape(30, 4).tolist() == [[True, True, False, False]] * 30
    first, second = found.values["hue"].reshape(30, 4, 2)[:, [0, 1], 0].T
    assert (first != second).all()


def test_halves_hold_the_same_parts_at_the_same_places():
    images = drawn(30).images.astype(int)
    assert np.array_equal(images[:, 0] + images[:, 1], images[:, 2] + images[:, 3])
    assert not np.array_equal(images[:, 0], images[:, 2])
    for one, other in itertools.pairwise(images.any(axis=-1).swapaxes(0, 1)):
        assert np.array_equal(one, other)


def test_gap_counts_the_empty_rows_or_columns_between_the_parts():
    quartets = drawn(200, rule=Pairs(hues=5, forms=1, size=7))  # squares fill their whole width
    gaps = []
    for image in quartets.images[:, 0]:
        labels, count = ndimage.label(image.any(axis=-1))
        assert count == 2
        one, other = ndimage.find_objects(labels)
        gaps.append(max(max(a.start, b.start) - min(a.stop, b.stop) for a, b in zip(one, other, strict=True)))
    assert quartets.gaps.tolist() == gaps
    assert set(gaps) == set(range(1, 23))


def test_window_of_one_pixel_more_than_the_gap_never_holds_both_parts():
    quartets, windows = drawn(60, (4, 4), Pairs(hues=5, forms=1, size=7)), np.lib.stride_tricks.sliding_window_view
    found = {5: [], 6: []}
    for image in quartets.images[:, 2]:
        labels, _ = ndimage.label(image.any(axis=-1))
        for side, held in found.items():
            holds = [windows(labels == part, (side, side)).any(axis=(2, 3)) for part in (1, 2)]
            held.append((holds[0] & holds[1]).any())
    assert not any(found[5])
    assert np.mean(found[6]) > 0.5


def test_hues_forms_gaps_and_directions_are_even():
    quartets = drawn(4000, gaps=(3, 6))
    assert np.bincount(quartets.gaps)[3:] == pytest.approx(1000, abs=150)
    first, last = quartets.images[:, 0], quartets.images[:, 3]
    colours = first.max(axis=(1, 2)).astype(int) @ (1, 256, 65536)
    assert sorted(np.unique(colours, return_counts=True)[1]) == pytest.approx([800] * 5, abs=150)
    assert (first.any(axis=-1).sum(axis=(1, 2)) == 2 * 81).mean() == pytest.approx(0.5, abs=0.05)  # squares
    place = drawn(2000, gaps=(20, 22)).images[:, 0].any(axis=-1).mean(axis=0)
    assert np.abs(place - place.T).max() < 0.05  # rows as columns
    assert np.abs(place - place[::-1]).max() < 0.05
    assert not np.array_equal(first, last)


def test_draws_are_a_function_of_the_generator():
    assert np.array_equal(drawn(3, seed=1).images, drawn(3, seed=1).images)
    assert not np.array_equal(drawn(3, seed=1).images, drawn(3, seed=2).images)


@pytest.mark.parametrize(
    ("rule", "gaps", "words"),
    [
        (Pairs(blobs=3), (1, 2), "2 blobs and 2 hues at least; got 3 and 6"),
        (Pairs(hues=1), (1, 2), "2 blobs and 2 hues at least; got 2 and 1"),
        (RULE, (0, 23), "Two blobs of 9 pixels in images of 40 need gaps in order, from 0 to 22; got 0 to 23"),
        (RULE, (-1, 3), "got -1 to 3"),
        (RULE, (4, 3), "got 4 to 3"),
    ],
)
def test_what_cannot_be_drawn_is_refused(rule, gaps, words):
    assert words in refusal(drawn, 2, gaps, rule)
