import numpy as np
import pytest
from scipy import ndimage

from sagan_jax.data import open_source
from sagan_jax.data.synthetic import FORMS, Blobs, Mirror, Pairs, parse_synthetic
from sagan_jax.errors import InvalidInputError

pytestmark = pytest.mark.one_jax


@pytest.mark.parametrize("resolution", [32, 64, 33])
@pytest.mark.parametrize("channels", [3, 1])
def test_right_half_of_a_mirror_is_the_left(resolution, channels):
    source = open_source("mirror:images=3", resolution=resolution, image_channels=channels)
    for image, label in (source[index] for index in range(3)):
        assert image.shape == (resolution, resolution, channels)
        assert image.dtype == np.uint8
        assert np.array_equal(image, image[:, ::-1])
        assert label == 0


def test_image_is_a_function_of_seed_and_index_alone():
    one, again = Mirror(images=9), Mirror(images=5)
    assert np.array_equal(one.draw(3, 32), again.draw(3, 32))
    others = [one.draw(4, 32), Mirror(seed=1).draw(3, 32), Mirror(grain=5).draw(3, 32)]
    assert all(not np.array_equal(one.draw(3, 32), other) for other in others)


def test_texture_is_uncorrelated_beyond_its_grain():
    pixels = np.stack([Mirror(grain=4).draw(index, 32) for index in range(400)]).astype(float)
    lines = pixels[:, :, :16].reshape(400, -1)
    correlation = np.corrcoef(lines, rowvar=False).reshape(32, 16, 3, 32, 16, 3)
    far = abs(correlation[2, 2, 0, 2, 11:, 0])
    assert far.max() < 0.2
    assert correlation[2, 2, 0, 2, 3, 0] > 0.7
    assert abs(correlation[2, 2, 0, 2, 2, 1:]).max() < 0.2
    # Colours are drawn from 0 to 255 and meet in straight lines between the corners.
    assert pixels.min() < 5
    assert pixels.max() > 250
    assert abs(pixels.mean() - 127.5) < 3


@pytest.mark.parametrize("resolution", [32, 64])
def test_blobs_of_a_pair_are_far_apart_and_of_one_hue_and_form(resolution):
    rule, scale = Pairs(forms=3), resolution // 32
    seen = set()
    for index in range(200):
        image = rule.draw(index, resolution)
        regions, count = ndimage.label(image.any(axis=-1))
        assert count == 2
        middles = [np.mean(np.nonzero(regions == number), axis=1) for number in (1, 2)]
        assert np.hypot(*(middles[0] - middles[1])) >= 12 * scale
        areas = {(regions == number).sum() for number in (1, 2)}
        colours = {tuple(colour) for colour in image[regions > 0]}
        assert len(areas) == len(colours) == 1
        assert regions.any(axis=1).sum() <= 16 * scale
        seen.add((*areas, *colours))
    assert len(seen) == 18
    assert {area for area, _ in seen} == {round(rule.form_mask(form, 8 * scale).sum()) for form in range(3)}


def test_blobs_lie_anywhere_up_to_the_edge():
    pixels = np.stack([Pairs().draw(index, 32).any(axis=-1) for index in range(1000)])
    assert pixels.any(axis=0).mean() > 0.99
    assert pixels.sum(axis=(1, 2)).max() == 2 * 64


def test_forms_are_told_apart_by_their_area():
    areas = {name: np.mean(Pairs(forms=4).form_mask(number, 100)) for number, name in enumerate(FORMS)}
    assert areas == pytest.approx({"square": 1, "disc": np.pi / 4, "diamond": 1 / 2, "cross": 0.51}, abs=0.02)


def test_independent_blobs_lie_where_those_that_agree_do():
    agree, alone = (Pairs(agree=value).draw(3, 32) for value in (1, 0))
    assert (agree.any(axis=-1) & alone.any(axis=-1)).sum() > 0.7 * agree.any(axis=-1).sum()


def test_settings_are_read_from_the_name():
    assert parse_synthetic("mirror") == Mirror()
    assert parse_synthetic("mirror:grain=8,seed=0,images=12") == Mirror(images=12, seed=0, grain=8)
    source = open_source("mirror:images=1,seed=7", resolution=32)
    assert source.description == "mirror:images=1,seed=7: 1 image, unlabelled"
    fingerprints = {open_source(name, resolution=32).fingerprint for name in ("mirror", "mirror:seed=1", "mirror:")}
    assert len(fingerprints) == 2


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mirror:grains=4", "options of 'mirror' are images, seed, grain; got 'grains' .* Perhaps you meant 'grain'"),
        ("mirror:grain=0", "grain of 'mirror' needs an integer of at least 1; got '0'"),
        ("mirror:seed=-1", "seed of 'mirror' needs an integer of at least 0; got '-1'"),
        ("mirror:images", "images of 'mirror' needs an integer of at least 1; got ''"),
        ("pairs:agree=2", "agree of 'pairs' needs an integer from 0 to 1; got '2'"),
        (
            "pairs:hues=6,seed=1,hues=3",
            "hues of 'pairs' needs one value; it is given twice in 'pairs:hues=6,seed=1,hues=3'",
        ),
        ("pairs:forms=5", "forms of 'pairs' needs an integer from 1 to 4; got '5'"),
        ("pairs:blobs=9", "9 blobs of width 8 do not fit into 32x32 pixels at a distance of 12"),
        ("pairs:blobs=5", "do not fit"),
        ("pairs:distance=32", "do not fit"),
        ("pairs:size=32,distance=48", "do not fit"),
        ("pairs:distance=11", "distance of 'pairs' needs to be at least 1.5 times the size of 8, .* touch; got 11"),
        ("pairs:size=2", "2 forms cannot be told apart at 32x32 pixels, where a blob of size 2 is 2 pixels wide"),
        ("pairs:hues=65", "hues of 'pairs' needs an integer from 1 to 64; got '65'"),
        ("blobs:columns=11", "columns of 'blobs' needs an integer from 1 to 10; got '11'"),
        ("blobs:columns=6,size=6", "a blob of size 6 is 6 pixels wide, and 6 cells side by side leave 4"),
        ("blobs:rows=6", "a blob of size 5 is 5 pixels wide, and 6 cells side by side leave 4"),
        ("blobs:size=2", "2 forms cannot be told apart at 32x32 pixels"),
        ("mirror:grain=17", "grain of 'mirror' needs to be at most half of the image's 32 pixels; got 17"),
    ],
)
def test_settings_that_cannot_be_are_refused(name, words):
    with pytest.raises(InvalidInputError, match=words):
        open_source(name, resolution=32)


def test_what_can_be_drawn_and_told_apart_depends_on_the_resolution():
    for name, least, words in (
        ("pairs", 14, "forms cannot be told apart at 12x12 pixels"),
        ("pairs:forms=4", 20, "4 forms cannot be told apart at 18x18 pixels"),
        ("mirror:grain=16", 32, "at most half of the image's 30 pixels; got 16"),
    ):
        assert len(open_source(name, resolution=least)[0][0]) == least
        with pytest.raises(InvalidInputError, match=words):
            open_source(name, resolution=least - 2)


@pytest.mark.parametrize("kind", [Mirror, Pairs, Blobs])
def test_sets_of_two_seeds_are_drawn_apart(kind):
    one, other = (np.stack([kind(seed=seed).draw(index, 32) for index in range(20)]) for seed in (0, 1))
    assert sum(np.array_equal(*both) for both in zip(one, other, strict=True)) < 4


@pytest.mark.parametrize("resolution", [32, 64])
def test_blobs_may_lie_at_the_least_distance_itself(resolution):
    rule = Pairs(blobs=3)
    corners = np.array([[[0, 0], [0, 12], [12, 0]], [[0, 0], [0, 12], [11, 1]]]) * (resolution // 32)
    assert rule._far_apart(corners, resolution).tolist() == [True, False]


@pytest.mark.parametrize("resolution", [32, 64, 45])
@pytest.mark.parametrize("name", ["blobs", "blobs:hues=5,columns=2,rows=3", "blobs:columns=5,rows=1"])
def test_blob_has_the_hue_and_the_cell_of_its_class(name, resolution):
    source = open_source(f"{name},images=300" if ":" in name else f"{name}:images=300", resolution=resolution)
    rule = source.rule
    assert source.num_classes == rule.hues * rule.columns * rule.rows
    assert max(np.bincount(source.labels)) - min(np.bincount(source.labels)) <= 1
    colours = {}
    for image, label in (source[index] for index in range(300)):
        row, column = label % rule.rows, label // rule.rows % rule.columns
        hue = label // (rule.rows * rule.columns)
        assert source.class_names[label] == f"hue-{hue}-column-{column}-row-{row}"
        lit = image.any(axis=-1)
        for axis, cell, cells in ((1, row, rule.rows), (0, column, rule.columns)):
            places = np.flatnonzero(lit.any(axis=axis))
            assert resolution * cell / cells <= places[0]
            assert places[-1] + 1 <= resolution * (cell + 1) / cells
        colours.setdefault(hue, set()).update(map(tuple, image[lit].tolist()))
    assert sorted(map(len, colours.values())) == [1] * rule.hues
    assert len(set.union(*colours.values())) == rule.hues


def test_place_in_the_cell_and_form_are_free():
    rule = Blobs(hues=1, columns=4, rows=4, size=5)
    of_a_class = np.stack([rule.draw(16 * index + 6, 32).any(axis=-1) for index in range(200)])
    corners = {(int(np.argmax(image.any(1))), int(np.argmax(image.any(0)))) for image in of_a_class}
    assert corners == {(top, left) for top in range(16, 20) for left in range(8, 12)}
    assert len(set(of_a_class.sum(axis=(1, 2)).tolist())) == 2
