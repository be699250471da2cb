import numpy as np
import pytest

from sagan_jax.data.synthetic import Pairs
from sagan_jax.evaluation.attention import AttentionRecord
from sagan_jax.evaluation.partners import partner_attention
from support.attention_layers import layer_of_map

pytestmark = pytest.mark.one_jax

RULE = Pairs(size=8)


def image_of(*corners):
    image = np.zeros((32, 32, 3), np.uint8)
    for top, left in corners:
        image[top : top + 8, left : left + 8] = (255, 0, 0)
    return image


def make_record(images, attention_map, query, key):
    layer = layer_of_map("generator", attention_map, query, key)
    return AttentionRecord(np.stack(images), np.zeros(len(images), np.int32), (layer,))


def test_uniform_attention_gives_the_share_of_the_area_and_a_lift_of_one():
    images = [image_of((0, 0), (16, 20)), image_of((8, 0), (0, 24))]
    found = partner_attention(make_record(images, np.full((2, 256, 64), 1 / 64), 16, 8), RULE)
    # A blob of 8x8 pixels on whole keys of 4x4 covers 4 of 64.
    assert found == pytest.approx({"generator/partner_share_16": 4 / 64, "generator/partner_lift_16": 1})


def test_attention_is_measured_from_each_blob_to_the_other():
    image = image_of((0, 0), (16, 24))
    attention_map = np.zeros((1, 64, 64))
    places = np.arange(64).reshape(8, 8)
    first, second = places[:2, :2].ravel(), places[4:6, 6:].ravel()
    for rows, keys, weight in ((first, second, 0.75), (second, first, 0.25), (first, first, 0.2)):
        for row in rows:
            attention_map[0, row, keys] = weight / 4
    attention_map[0, :, 30] = 1 - attention_map[0].sum(axis=1)  # the ground
    found = partner_attention(make_record([image], attention_map, 8, 8), RULE)
    assert found["generator/partner_share_8"] == pytest.approx((0.75 + 0.25) / 2)
    assert found["generator/partner_lift_8"] == pytest.approx(0.5 / (4 / 64))


def test_images_without_clear_blobs_are_left_out():
    unclear, clear = image_of((0, 0)), image_of((0, 0), (16, 24))
    maps = np.stack([np.full((64, 64), 1.0), np.full((64, 64), 1 / 64)])
    found = partner_attention(make_record([unclear, clear], maps, 8, 8), RULE)
    assert found["generator/partner_share_8"] == pytest.approx(4 / 64)
    assert partner_attention(make_record([unclear], maps[:1], 8, 8), RULE) == {}


def test_a_blob_that_is_alone_has_no_partner():
    maps = np.full((1, 64, 64), 1 / 64)
    assert partner_attention(make_record([image_of((0, 0))], maps, 8, 8), Pairs(blobs=1)) == {}


def test_with_three_blobs_both_others_are_partners():
    image, rule = image_of((0, 0), (16, 24), (24, 8)), Pairs(blobs=3)
    found = partner_attention(make_record([image], np.full((1, 64, 64), 1 / 64), 8, 8), rule)
    assert found["generator/partner_share_8"] == pytest.approx(8 / 64)


def test_positions_at_the_edge_of_a_blob_count_by_the_share_that_it_covers():
    image, maps = image_of((1, 1), (18, 18)), np.zeros((1, 256, 64))
    maps[0, :, 63] = 1  # the ground, for all rows that are not set below
    own, keys = np.zeros((16, 16), bool), np.zeros((8, 8), bool)
    own[:5, :5] = True
    # A query has 2x2 pixels. The blob covers a quarter of it at its corner, which is not enough, and half at its edge.
    own[[0, 0, 4, 4], [0, 4, 0, 4]] = False
    keys[4:7, 4:7] = True  # the blob covers at least a quarter of each key of 4x4 pixels, which is enough
    maps[0, own.ravel()] = keys.ravel() / 9
    found = partner_attention(make_record([image], maps, 16, 8), RULE)
    assert found["generator/partner_share_16"] == pytest.approx(1 / 2)  # the second blob attends to the ground


def test_lift_divides_the_mean_share_by_the_mean_uniform_share():
    images, maps = [image_of((0, 0), (16, 24)), image_of((2, 2), (18, 18))], np.zeros((2, 64, 64))
    maps[:, :, 63] = 1  # the ground
    blob, other = np.zeros((2, 8, 8), bool)
    blob[:2, :2] = other[4:6, 6:] = True
    for own, at in ((blob, other), (other, blob)):  # in the first image, whose partners have 4 keys and not 9
        for row in np.flatnonzero(own):
            maps[0, row] = 0
            maps[0, row, np.flatnonzero(at)] = (0.5, 0.25, 0.125, 0.125)
    found = partner_attention(make_record(images, maps, 8, 8), RULE)
    share = found["generator/partner_share_8"]
    assert found["generator/partner_lift_8"] == pytest.approx(share / ((4 + 9) / 2 / 64))
    assert share == pytest.approx(1 / 2)
