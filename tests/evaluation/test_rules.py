import io
import itertools

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from sagan_jax.data import open_source
from sagan_jax.data.synthetic import Blobs, Mirror, Pairs, parse_synthetic
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.evaluator import Evaluator
from sagan_jax.evaluation.image_sets import RealImages
from sagan_jax.evaluation.protocols import parse_protocol
from sagan_jax.evaluation.rules import RuleResult, check_rule, num_modes, rule_accuracy

pytestmark = pytest.mark.one_jax

COUNT = 300


def images_of(name, resolution=32):
    rule = parse_synthetic(name)
    return np.stack([rule.draw(index, resolution) for index in range(COUNT)]), rule


def scored(images, rule):
    return rule_accuracy(check_rule(images, rule), num_modes(rule))


@pytest.mark.parametrize(
    "name", ["pairs", "pairs:blobs=3,hues=12,forms=4", "mirror", "mirror:grain=8", "mirror:grain=16"]
)
@pytest.mark.parametrize("resolution", [32, 64])
def test_images_of_a_set_follow_its_rule(name, resolution):
    images, rule = images_of(name, resolution)
    rule.check(resolution)
    found = scored(images, rule)
    assert {name: found.pop(name) for name in ("follows_rule", "parts")} == {"follows_rule": 1, "parts": 1}
    assert found.pop("kinds") == 1
    assert found.pop("entropy") > 0.97
    chances = [found.pop(name) for name in list(found) if name.endswith("_chance")]
    if isinstance(rule, Pairs):
        assert chances.pop() == 1 - found["chance"]  # of `beyond_chance`
        assert 1 <= found.pop("chance") * num_modes(rule) ** (rule.blobs - 1) < 1.6  # least where all kinds are even
        even = [values ** (1.0 - rule.blobs) for values in (rule.hues, rule.forms)]
        assert even == pytest.approx(chances, rel=0.15)
    assert set(found.values()) == {1}


def test_independent_blobs_follow_the_rule_by_chance():
    images, rule = images_of("pairs:agree=0,images=300")
    found = scored(images, rule)
    deviations = 3 / np.sqrt(COUNT)
    assert found["parts"] == 1
    assert abs(found["follows_rule"] - 1 / 12) < deviations * np.sqrt(1 / 12)
    assert abs(found["hue"] - 1 / 6) < deviations * np.sqrt(1 / 6)
    assert abs(found["form"] - 1 / 2) < deviations / 2
    assert (found["hue_chance"], found["form_chance"]) == pytest.approx((1 / 6, 1 / 2), rel=0.05)
    assert found["chance"] == pytest.approx(1 / 12, rel=0.1)


def test_half_of_one_texture_beside_that_of_another_does_not_follow_the_rule():
    images, rule = images_of("mirror")
    mixed = np.concatenate([images[:, :, :16], np.roll(images, 1, axis=0)[:, :, 16:]], axis=2)
    found = scored(mixed, rule)
    assert found == {"follows_rule": 0, "parts": 1, "mirror": 0, "kinds": 0, "entropy": 0}


def test_shared_tint_does_not_make_halves_agree():
    images, rule = images_of("mirror")
    mixed = np.concatenate([images[:, :, :16], np.roll(images, 1, axis=0)[:, :, 16:]], axis=2)
    tinted = (0.55 * mixed + 0.45 * np.array([255, 0, 255])).astype(np.uint8)
    found = scored(tinted, rule)
    assert found["parts"] > 0.2
    assert found["mirror"] == 0


@pytest.mark.parametrize("name", ["pairs", "mirror"])
def test_rule_can_be_checked_on_no_images(name):
    found = check_rule(np.zeros((0, 32, 32, 3), np.uint8), parse_synthetic(name))
    assert found.parts_valid.shape == found.follows_rule.shape == found.modes.shape == (0,)


def blurred(images, deviation):
    return np.rint(ndimage.gaussian_filter(images.astype(float), (0, deviation, deviation, 0))).astype(np.uint8)


def noisy(images, deviation):
    noise = np.random.default_rng(0).normal(0, deviation, images.shape)
    return np.clip(np.rint(images + noise), 0, 255).astype(np.uint8)


def jpeg(images, quality):
    found = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        found.append(np.asarray(Image.open(file)))
    return np.stack(found)


# These set the tolerances of the rule. After a few thousand steps, a generator blurs by about one pixel.
@pytest.mark.parametrize("name", ["pairs", "mirror"])
@pytest.mark.parametrize(
    ("degrade", "amount"),
    [(blurred, 1.0), (blurred, 1.5), (noisy, 20), (jpeg, 50), (lambda x, a: (x * a).astype(np.uint8), 0.7)],
)
def test_blur_noise_and_dimness_of_a_generator_change_little(name, degrade, amount):
    images, rule = images_of(name)
    assert scored(degrade(images, amount), rule)["follows_rule"] > 0.97


def forms_of(rule, count):
    """Returns the form of each of a set's images, as it was drawn."""
    randoms = [np.random.default_rng(np.random.SeedSequence(rule.seed, spawn_key=(index,))) for index in range(count)]
    return np.array([[r.integers(0, n, rule.blobs) for n in (rule.hues, rule.forms)][1][0] for r in randoms])


@pytest.mark.parametrize("size", [7, 8, 9, 10])
@pytest.mark.parametrize(("blur", "light", "noise"), [(0, 1, 0), (1, 1, 0), (1, 0.7, 0), (1.5, 1, 0), (1, 1, 20)])
def test_form_is_recognised_by_the_outline_and_not_by_the_size(size, blur, light, noise):
    drawn = Pairs(size=size, distance=15)
    images = np.stack([drawn.draw(index, 32) for index in range(100)])
    found = check_rule(noisy((light * blurred(images, blur)).astype(np.uint8), noise), Pairs())
    assert found.parts_valid.mean() > 0.95
    assert (found.values["form"] == forms_of(drawn, 100)[:, None])[found.parts_valid].mean() > 0.95
    assert not check_rule(images, Pairs(size=size * 2)).parts_valid.any()


def test_destroyed_parts_are_not_valid():
    images, rule = images_of("pairs")
    assert scored(blurred(images, 4), rule)["parts"] < 0.1
    assert scored(noisy(images, 150), rule)["parts"] < 0.1
    grey = np.repeat(images.mean(axis=-1, keepdims=True), 3, axis=-1).astype(np.uint8)
    assert scored(np.minimum(3 * grey.astype(int), 255).astype(np.uint8), rule)["parts"] == 0
    textures, mirror = images_of("mirror")
    assert scored(blurred(textures, 6), mirror)["parts"] < 0.1
    assert scored(noisy(textures, 60), mirror)["mirror"] < 0.1
    pale = check_rule(100 + textures // 4, mirror)
    assert not pale.parts_valid.any()
    assert not pale.agreements["mirror"].any()


def painted(*blobs, size=8):
    """Returns an image of blobs (top, left, hue, form)."""
    image, rule = np.zeros((32, 32, 3), np.uint8), Pairs(forms=4, size=size)
    for top, left, hue, form in blobs:
        image[top : top + size, left : left + size][rule.form_mask(form, size)] = rule.colour(hue)
    return image


def speckled(image):
    image = image.copy()
    image[16, 3] = image[2, 28] = image[30, 3:5] = (0, 255, 0)
    return image


def test_result_is_what_a_person_sees_in_the_image():
    images = np.stack(
        [
            painted((1, 2, 0, 0), (20, 21, 0, 0)),
            painted((1, 2, 5, 1), (20, 21, 5, 1)),
            painted((1, 2, 5, 1), (20, 21, 4, 1)),
            painted((1, 2, 5, 0), (20, 21, 5, 1)),
            painted((1, 2, 5, 0), (20, 21, 4, 1)),
            speckled(painted((1, 2, 0, 0), (20, 21, 0, 0))),
            painted((1, 2, 5, 0)),
            painted((1, 2, 5, 0), (20, 21, 5, 0), (2, 20, 5, 0)),
            painted((1, 2, 5, 0), (4, 7, 5, 0)),
            painted(),
            np.full((32, 32, 3), 255, np.uint8),
        ]
    )
    found = check_rule(images, Pairs())
    assert found.parts_valid.tolist() == [True] * 6 + [False] * 5
    assert found.agreements["hue"].tolist() == [True, True, False, True, False, True] + [False] * 5
    assert found.agreements["form"].tolist() == [True, True, True, False, False, True] + [False] * 5
    assert found.modes[:2].tolist() == [0, 11]


def test_specks_below_a_quarter_of_a_blob_are_ignored():
    images = np.stack([painted((1, 2, 0, 0), (20, 21, 0, 0))] * 2)
    images[0, 2:5, 22:25] = images[1, 2:6, 22:26] = 255, 0, 0
    assert check_rule(images, Pairs()).parts_valid.tolist() == [True, False]


def test_blobs_that_touch_at_a_corner_count_as_one():
    assert not check_rule(painted((1, 2, 0, 0), (9, 10, 0, 0))[None], Pairs()).parts_valid.any()


def test_narrow_bar_has_no_form():
    image = painted((1, 2, 0, 0), (20, 21, 0, 0))
    image[1:5, 2:10] = 0
    assert not check_rule(image[None], Pairs()).parts_valid.any()  # 4 by 8 is left
    image[3:5, 2:10] = 255, 0, 0
    assert check_rule(image[None], Pairs()).parts_valid.all()  # 6 by 8


def test_dark_blobs_are_not_counted():
    image = painted((1, 2, 0, 0), (20, 21, 0, 0))
    images = np.stack([image * share for share in (0.55, 0.45)]).astype(np.uint8)
    assert check_rule(images, Pairs()).parts_valid.tolist() == [True, False]


@pytest.mark.parametrize(
    ("colour", "valid"),
    [((255, 76, 0), True), ((255, 102, 0), False), ((255, 100, 100), True), ((255, 150, 150), False)],
)
def test_clear_colour_is_near_a_hue_and_saturated(colour, valid):
    image = painted((1, 2, 0, 0), (20, 21, 0, 0))
    image[image[..., 0] > 0] = colour
    assert check_rule(image[None], Pairs()).parts_valid.tolist() == [valid]


def test_at_least_half_of_a_blob_has_its_hue():
    image = painted((1, 2, 1, 0), (20, 21, 1, 0))  # yellow
    image[1:9, 2:4], image[1:9, 4:6] = (255, 0, 0), (0, 255, 0)  # 4 of 8 columns are left
    assert check_rule(image[None], Pairs()).parts_valid.all()
    image[1:5, 6], image[5:9, 6] = (255, 0, 0), (0, 255, 0)
    assert not check_rule(image[None], Pairs()).parts_valid.any()


def test_modes_are_numbered_hue_by_hue():
    images = np.stack([painted((1, 2, hue, form), (20, 21, hue, form)) for hue in range(6) for form in range(2)])
    assert check_rule(images, Pairs()).modes.tolist() == list(range(12))


def test_third_blob_must_agree_too():
    images = np.stack([painted((1, 2, 0, 0), (1, 20, 0, 0), (20, 21, *kind)) for kind in ((2, 0), (0, 1))])
    found = check_rule(images, Pairs(blobs=3))
    assert found.agreements["hue"].tolist() == [False, True]
    assert found.agreements["form"].tolist() == [True, False]


def test_both_halves_and_all_channels_of_a_texture_need_contrast():
    images, rule = images_of("mirror")
    for part in (np.s_[:, :, :16], np.s_[:, :, 16:], np.s_[..., 1]):
        flat = images.copy()
        flat[part] = 128
        assert not check_rule(flat, rule).parts_valid.any()


@pytest.mark.parametrize(("name", "resolution"), [("mirror", 32), ("mirror:grain=8", 64)])
def test_texture_of_low_contrast_is_not_valid(name, resolution):
    images, rule = images_of(name, resolution)
    pale = np.rint(128 + 0.4 * (images.astype(float) - 128)).astype(np.uint8)
    assert check_rule(pale, rule).parts_valid.mean() < 0.1


def test_a_higher_share_is_better():
    assert parse_protocol("rule1k").higher_is_better


def test_colour_between_two_hues_is_neither():
    images = np.stack([painted((1, 2, hue, 0), (20, 21, hue, 0)) for hue in range(6)])
    rolled = images.copy()
    rolled[..., 1] = np.where(images[..., 0] & ~images[..., 1] & ~images[..., 2], 128, images[..., 1])  # red -> orange
    assert check_rule(rolled, Pairs()).parts_valid.tolist() == [False] + [True] * 5


def test_blob_of_two_colours_does_not_have_the_hue_between_them():
    images = np.stack([painted((1, 2, 0, 0), (20, 21, 0, 0)), painted((1, 2, 1, 0), (20, 21, 1, 0))])
    images[0, :, 2:6][:16] = np.where(images[0, :, 2:6].any(axis=-1, keepdims=True), (0, 255, 0), 0)[:16]
    assert images[0, 1:9, 2:10].mean(axis=(0, 1)).tolist() == [127.5, 127.5, 0]
    assert check_rule(images, Pairs()).parts_valid.tolist() == [False, True]


def test_spread_over_modes_is_counted_among_images_that_follow_the_rule():
    result = RuleResult(
        np.array([True, True, True, True, True, False]),
        {"hue": np.array([True, True, True, True, False, False]), "form": np.array([True] * 3 + [False, True, False])},
        np.array([3, 3, 7, 1, 2, 0]),
        {"hue": np.array([[1, 1], [1, 1], [3, 3], [0, 0], [1, 2], [9, 9]])},
    )
    found = rule_accuracy(result, 12)
    thirds = -(1 / 3 * np.log(1 / 3) + 2 / 3 * np.log(2 / 3)) / np.log(12)
    wanted = {"follows_rule": 3 / 6, "parts": 5 / 6, "hue": 4 / 5, "form": 4 / 5, "kinds": 2 / 12, "entropy": thirds}
    wanted["hue_chance"] = 0.2**2 + 0.5**2 + 0.1**2 + 0.2**2  # of hues 0, 1, 2 and 3 among ten blobs
    wanted["chance"] = 5 / 6 * wanted["hue_chance"]
    wanted["beyond_chance"] = 3 / 6 - wanted["chance"]
    assert found == pytest.approx(wanted)
    nothing = RuleResult(np.zeros(4, bool), {"hue": np.zeros(4, bool)}, np.zeros(4, int), {"hue": np.ones((4, 2), int)})
    assert set(rule_accuracy(nothing, 12).values()) == {0}


@pytest.mark.parametrize("parts", [2, 3])
def test_chance_is_that_of_all_ways_to_draw_an_images_parts_from_the_blobs(parts):
    # A drawn part keeps its hue together with its form. Where most parts are red squares or green discs, hue and form
    # agree together more often than the product of the two chances.
    random = np.random.default_rng(0)
    hues = random.integers(0, 3, (7, parts))
    forms = np.where(random.random(hues.shape) < 0.8, hues % 2, random.integers(0, 2, hues.shape))
    valid = np.array([True, True, False, True, True, False, True])
    agreements = {"hue": np.zeros(7, bool), "form": np.zeros(7, bool)}
    result = RuleResult(valid, agreements, np.zeros(7, int), {"hue": hues, "form": forms})
    blobs = [(hues[i, j], forms[i, j]) for i in np.flatnonzero(valid) for j in range(parts)]
    drawn = list(itertools.product(blobs, repeat=parts))
    found = rule_accuracy(result, 12)
    assert found["chance"] == pytest.approx(5 / 7 * sum(len(set(drawing)) == 1 for drawing in drawn) / len(drawn))
    assert found["chance"] > 1.2 * 5 / 7 * found["hue_chance"] * found["form_chance"]


def test_one_mode_alone_covers_a_twelfth_with_no_entropy():
    image = painted((1, 2, 0, 0), (20, 21, 0, 0))
    found = scored(np.stack([image] * 5), Pairs())
    assert (found["follows_rule"], found["kinds"], found["entropy"]) == (1, 1 / 12, 0)


def test_protocol_scores_any_images_by_the_rule_of_the_real_ones():
    real, other = (open_source(name, resolution=32) for name in ("pairs:images=50", "pairs:agree=0,seed=4,images=400"))
    evaluator, protocol = Evaluator(RealImages(real)), parse_protocol("rule300")
    score = evaluator.score(protocol, RealImages(other, 70), seed=5)
    names = ("parts", "hue", "form", "hue_chance", "form_chance", "chance", "beyond_chance", "kinds", "entropy")
    parts = {f"rule300/{name}" for name in names}
    assert set(score.values) == {"rule300"} | parts
    assert set(evaluator.value_names(protocol)) == set(score.values)
    assert score.value == next(iter(score.values.values()))
    assert 0.02 < score.value < 0.16
    assert score.values["rule300/parts"] == 1
    assert score.details["rule"] == repr(Pairs(images=50))
    assert "compares only with itself" not in str(score)
    again = evaluator.score(parse_protocol("rule400"), RealImages(other, 33), seed=6)
    checked = check_rule(np.stack([x for x, _ in other]), Pairs())
    assert again.value == pytest.approx(rule_accuracy(checked, 12)["follows_rule"])


def test_protocol_scores_textures_too():
    real, other = (open_source(name, resolution=32) for name in ("mirror:images=50", "mirror:seed=4,images=60"))
    score = Evaluator(RealImages(real)).score(parse_protocol("rule60"), RealImages(other, 70), seed=5)
    assert (score.value, score.values["rule60/mirror"], score.values["rule60/kinds"]) == (1, 1, 1)


def test_rule_needs_training_images_that_were_drawn_by_one():
    with pytest.raises(InvalidInputError, match=r"drawn by a rule, such as `pairs` or `mirror`; got digits"):
        Evaluator(RealImages(open_source("digits", resolution=32))).check(parse_protocol("rule1k"), 0)
    grey = open_source("pairs", resolution=32, image_channels=1)
    with pytest.raises(InvalidInputError, match="needs images of 3 channels; got 1"):
        Evaluator(RealImages(grey)).check(parse_protocol("rule1k"), 0)


def test_textures_are_counted_by_their_halves():
    images, rule = images_of("mirror")
    assert num_modes(rule) == 8
    assert np.bincount(check_rule(images, rule).modes).min() > 15
    assert isinstance(rule, Mirror)


@pytest.mark.parametrize("name", ["blobs", "blobs:hues=9", "blobs:hues=3,columns=2,rows=3,size=7"])
@pytest.mark.parametrize("resolution", [32, 64])
def test_blobs_of_their_class_follow_its_rule(name, resolution):
    images, rule = images_of(name, resolution)
    result = check_rule(images, rule, np.arange(COUNT) % rule.num_classes)
    found = rule_accuracy(result, num_modes(rule))
    assert found.pop("entropy") > 0.99
    assert found == {"follows_rule": 1, "parts": 1, "hue": 1, "column": 1, "row": 1, "kinds": 1}


def test_blob_is_judged_by_each_factor_of_its_class():
    rule = Blobs()
    images = np.stack([rule.draw(0, 32)] * 6)  # hue 0, column 0, row 0
    images[5] = 0
    # A class is hue * 16 + column * 4 + row, so classes 16, 4 and 1 differ from class 0 in one factor.
    result = check_rule(images, rule, np.array([0, 16, 4, 1, 21, 0]))
    assert {name: agree.tolist() for name, agree in result.agreements.items()} == {
        "hue": [True, False, True, True, False, False],
        "column": [True, True, False, True, False, False],
        "row": [True, True, True, False, False, False],
    }
    assert result.parts_valid.tolist() == [True] * 5 + [False]
    assert result.follows_rule.tolist() == [True] + [False] * 5
    assert rule_accuracy(result, 48)["follows_rule"] == pytest.approx(1 / 6)


def test_cell_of_a_blob_is_that_of_its_middle():
    rule = Blobs(hues=1, columns=4, rows=2, forms=1, size=5)
    corners = np.array(
        [[[5, 5]], [[5, 6]], [[13, 5]], [[14, 5]]]
    )  # middles at 7.5, 8.5 of cells of 8; 15.5, 16.5 of 16
    images = rule.blob.paint(corners, np.zeros((4, 1), int), np.zeros((4, 1), int), 32)
    assert check_rule(images, rule, np.zeros(4, int)).modes.tolist() == [0, 2, 0, 1]


def test_generator_that_does_not_look_at_the_class_agrees_by_chance():
    images, rule = images_of("blobs:hues=2,columns=3,rows=2,size=5")
    labels = np.random.default_rng(0).integers(0, 12, COUNT)
    found = rule_accuracy(check_rule(images, rule, labels), num_modes(rule))
    assert [found[name] for name in ("hue", "column", "row")] == pytest.approx([1 / 2, 1 / 3, 1 / 2], abs=0.1)
    assert found["follows_rule"] == pytest.approx(1 / 12, abs=0.05)


def test_two_blobs_or_one_between_hues_are_not_clear():
    rule, image = Blobs(hues=2, forms=1), np.zeros((3, 32, 32, 3), np.uint8)
    image[0, 2:7, 2:7] = image[0, 20:25, 20:25] = image[1, 2:7, 2:7] = (255, 0, 0)
    image[2, 2:7, 2:7] = (128, 255, 0)  # hues 0 and 0.5 of red and cyan: 0.25 is between
    assert check_rule(image, rule, np.zeros(3, int)).parts_valid.tolist() == [False, True, False]


def test_class_is_needed_where_the_rule_is_one_of_classes():
    images, rule = images_of("blobs")
    with pytest.raises(ValueError, match="needs the class of each image; got none"):
        check_rule(images, rule)
    source = open_source("blobs:images=60", resolution=32)
    evaluator, protocol = Evaluator(RealImages(source)), parse_protocol("rule40")
    with pytest.raises(InvalidInputError, match=r"needs images of these 48 classes; got no classes\.$"):
        evaluator.check(protocol, 0)
    score = evaluator.score(protocol, RealImages(open_source("blobs:seed=1,images=70", resolution=32)), seed=3)
    assert (score.value, score.values["rule40/row"]) == (1, 1)
    assert set(score.values) == set(evaluator.value_names(protocol))
