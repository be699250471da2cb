"""Holes: where they lie, how large they are, and that they depend only on kind, size, seed and index."""

import doctest

import numpy as np
import pytest

from sagan_jax.data import masks
from sagan_jax.data.masks import AREA_BINS, HALVES, MASK_KINDS, draw_mask, draw_masks
from sagan_jax.errors import InvalidInputError

pytestmark = pytest.mark.one_jax

SIZES = [(8, 8), (9, 13), (64, 64), (31, 10)]


def boxes(mask):
    """Returns the height and width of the smallest rectangle around the hole."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1


def test_doctests_of_masks_hold():
    assert doctest.testmod(masks) == doctest.TestResults(failed=0, attempted=2)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", MASK_KINDS)
def test_masks_are_bool_of_their_size_and_neither_empty_nor_full(kind, size):
    drawn = draw_masks(kind, *size, seed=3, indices=range(60))
    assert (drawn.dtype, drawn.shape) == (bool, (60, *size))
    shares = drawn.mean(axis=(1, 2))
    assert shares.min() > 0
    assert shares.max() < 0.8


@pytest.mark.parametrize("kind", MASK_KINDS)
def test_masks_depend_on_seed_and_index_alone(kind):
    forward = draw_masks(kind, 16, 20, seed=5, indices=range(12))
    np.random.default_rng(0).random(7)
    backward = draw_masks(kind, 16, 20, seed=5, indices=reversed(range(12)))
    assert (forward == backward[::-1]).all()
    assert (forward[7] == draw_mask(kind, 16, 20, seed=5, index=7)).all()
    if kind not in ("centre", *HALVES):
        assert (forward != draw_masks(kind, 16, 20, seed=6, indices=range(12))).any()
        assert len({mask.tobytes() for mask in forward}) > 3


def test_seed_and_index_are_not_interchangeable():
    one, other = (draw_masks("strokes", 16, 16, seed=seed, indices=[index]) for seed, index in ((2**32, 1), (1, 2**32)))
    assert (one != other).any()
    assert (draw_mask("strokes", 16, 16, seed=0, index=1) != draw_mask("strokes", 16, 16, seed=1, index=0)).any()


def test_centre_of_64_pixels_is_the_32_in_the_middle():
    mask = draw_mask("centre", 64, 64, seed=0, index=0)
    wanted = np.zeros((64, 64), bool)
    wanted[16:48, 16:48] = True
    assert (mask == wanted).all()


def test_halves_lie_on_their_side_and_never_exceed_the_rest():
    shown = {side: draw_mask(side, 9, 11, seed=0, index=0) for side in HALVES}
    rows, columns = np.indices((9, 11))
    assert (shown["half_left"] == (columns < 5)).all()
    assert (shown["half_right"] == (columns > 5)).all()
    assert (shown["half_top"] == (rows < 4)).all()
    assert (shown["half_bottom"] == (rows > 4)).all()


def test_half_draws_each_side_about_as_often():
    drawn = draw_masks("half", 10, 14, seed=1, indices=range(2000))
    sides = draw_masks("half_left", 10, 14, seed=0, indices=[0]), draw_masks("half_top", 10, 14, seed=0, indices=[0])
    for side in (sides[0], sides[1], ~sides[0], ~sides[1]):
        assert (drawn == side).all(axis=(1, 2)).mean() == pytest.approx(0.25, abs=0.04)


def test_rectangles_are_filled_boxes_of_the_stated_sides():
    drawn = draw_masks("rectangle", 40, 24, seed=2, indices=range(500))
    sides = np.array([boxes(mask) for mask in drawn])
    assert (sides.prod(axis=1) == drawn.sum(axis=(1, 2))).all()
    assert (sides.min(axis=0).tolist(), sides.max(axis=0).tolist()) == ([10, 6], [30, 18])
    assert drawn.any(axis=0).all()


def test_several_rectangles_can_lie_apart():
    drawn = draw_masks("rectangles", 40, 24, seed=2, indices=range(200))
    filled = np.array([np.prod(boxes(mask)) for mask in drawn]) == drawn.sum(axis=(1, 2))
    assert filled.mean() < 0.1
    assert drawn.mean(axis=(1, 2)).max() <= 5 * 9 / 64


def test_strokes_reach_every_pixel_and_cover_no_more_than_half():
    shares = draw_masks("strokes", 32, 32, seed=2, indices=range(400)).mean(axis=(1, 2))
    assert shares.std() > 0.05
    # On small images, four strokes would often cover more.
    assert draw_masks("strokes", 8, 8, seed=2, indices=range(400)).mean(axis=(1, 2)).max() <= 0.5
    assert draw_masks("strokes", 32, 32, seed=2, indices=range(400)).any(axis=0).all()


@pytest.mark.parametrize("kind", AREA_BINS)
@pytest.mark.parametrize("size", [(8, 8), (9, 13), (20, 30)])
def test_area_of_a_bin_is_from_its_low_up_to_without_its_high_percentage(kind, size):
    low, high = (int(number) for number in kind.removeprefix("area_").split("_"))
    counts = draw_masks(kind, *size, seed=4, indices=range(300)).sum(axis=(1, 2))
    hundredfold = 100 * counts
    assert (low * np.prod(size) <= hundredfold).all()
    assert (hundredfold < high * np.prod(size)).all()


def test_areas_are_spread_evenly_over_their_bin():
    shares = 100 * draw_masks("area_20_30", 24, 24, seed=4, indices=range(1500)).mean(axis=(1, 2))
    counts, _ = np.histogram(shares, bins=[20, 22.5, 25, 27.5, 30])
    assert (abs(counts / 1500 - 0.25) < 0.04).all()


def test_mixture_has_the_stated_shares():
    drawn = draw_masks("mixed", 32, 32, seed=7, indices=range(2000))
    centre = draw_mask("centre", 32, 32, seed=0, index=0)
    halves = np.stack([draw_mask(side, 32, 32, seed=0, index=0) for side in HALVES])
    assert (drawn == centre).all(axis=(1, 2)).mean() == pytest.approx(0.5, abs=0.04)
    is_half = (drawn[:, None] == halves).all(axis=(2, 3)).any(axis=1)
    assert is_half.mean() == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kind": "center"}, "'center'"),
        ({"height": 7}, "7x16"),
        ({"width": 0}, "16x0"),
        ({"seed": -1}, "-1 and 0"),
        ({"index": -2}, "0 and -2"),
    ],
)
def test_masks_refuse_what_cannot_be_drawn_in_one_line(arguments, words):
    given = {"kind": "strokes", "height": 16, "width": 16, "seed": 0, "index": 0} | arguments
    with pytest.raises(InvalidInputError, match=words) as caught:
        draw_mask(given.pop("kind"), given.pop("height"), given.pop("width"), **given)
    assert "\n" not in str(caught.value)


def test_masks_of_no_image_are_refused():
    with pytest.raises(InvalidInputError, match="at least one index"):
        draw_masks("centre", 16, 16, seed=0, indices=[])
