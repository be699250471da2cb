"""How far class gains can move, and how far they are from 1."""

import doctest
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sagan_jax.functional import init_spectral, spectral_normalize_tree
from sagan_jax.models import class_gains as module
from sagan_jax.models import dcgan, sagan
from sagan_jax.models.class_gains import between_classes, class_gains, largest_movement, root_mean_square
from sagan_jax.models.folding import fold_batch_stats
from sagan_jax.models.layers import ConditionalBatchNorm
from support.params import draw_tree, variable_shapes

FORMS = ("table", "map", "free_map", "scaled_map")


@pytest.mark.parametrize(("classes", "channels"), [(3, 7), (7, 3), (5, 5), (1, 9)])
def test_normalised_kernels_reach_the_bound_and_none_exceeds_it(classes, channels):
    bound, drawn = largest_movement("map", classes, channels), np.random.default_rng(0)
    for _ in range(50):
        kernel = drawn.normal(size=(classes, channels)) * drawn.uniform(0, 3, size=channels)
        assert root_mean_square(kernel / np.linalg.norm(kernel, 2)) <= bound * (1 + 1e-12)
    left, _, right = np.linalg.svd(drawn.normal(size=(classes, channels)), full_matrices=False)
    assert root_mean_square(left @ right) == pytest.approx(bound)  # all singular values are 1


def test_bound_is_that_of_the_layer_as_it_is_trained():
    layer = ConditionalBatchNorm(11, gain="map")
    params = layer.init(jax.random.key(0), jnp.ones((2, 4, 4, 6)), jnp.array([3, 7]), train=True)["params"]
    params = jax.tree.map(lambda leaf: 50 * leaf, params)
    vectors = init_spectral(jax.random.key(1), params)
    normalized, _, _ = spectral_normalize_tree(params, vectors, iterations=100)
    (found,) = class_gains({"norm": normalized}).values()
    bound = largest_movement("map", 11, 6)
    assert 0.5 * bound < root_mean_square(found.gains) < bound
    assert 0.5 * bound < root_mean_square(found.shifts) < bound


@pytest.mark.parametrize("gain", ["table", "free_map", "scaled_map"])
def test_other_forms_have_no_bound(gain):
    assert largest_movement(gain, 10, 4) == math.inf


@pytest.mark.parametrize(("gain", "classes", "words"), [("maps", 3, "'free_map'"), ("map", 0, "got 0 and 4")])
def test_what_has_no_bound_is_refused(gain, classes, words):
    with pytest.raises(ValueError, match=words):
        largest_movement(gain, classes, 4)


@pytest.mark.parametrize("gain", FORMS)
@pytest.mark.parametrize("family", [sagan, dcgan])
def test_gains_are_what_the_norms_of_a_network_multiply_by(family, gain):
    network = family.Generator(32, 5, 1, attention_resolutions=(16,), conditional_gain=gain)
    params = draw_tree(dict(variable_shapes(network, 6)), 3)["params"]
    found = class_gains(params)
    norms = [f"block_{block}/norm_{norm}" for block in (1, 2, 3) for norm in (1, 2)]
    assert list(found) == (norms if family is sagan else ["norm_1", "norm_2", "norm_3"])
    path = "block_2/norm_2" if family is sagan else "norm_2"
    norm = params["block_2"]["norm_2"] if family is sagan else params["norm_2"]
    channels = found[path].gains.shape[1]
    # The layer itself shows both: it maps zeros to the shift, and ones to gain + shift.
    layer = ConditionalBatchNorm(5, gain=gain, epsilon=0.0)
    stats = {"mean": jnp.zeros(channels), "variance": jnp.ones(channels)}

    def made(features):
        return layer.apply({"params": norm, "batch_stats": stats}, features, jnp.arange(5), train=False)

    shifts, sums = made(jnp.zeros((5, channels))), made(jnp.ones((5, channels)))
    assert np.abs(found[path].shifts).max() > 0.1
    np.testing.assert_allclose(found[path].shifts, shifts, atol=1e-6)
    np.testing.assert_allclose(1 + found[path].gains, sums - shifts, atol=1e-5)


@pytest.mark.parametrize("gain", FORMS[1:])
def test_gains_of_a_folded_network_with_maps_are_those_before_folding(gain):
    network = sagan.Generator(32, 5, 1, attention_resolutions=(), conditional_gain=gain)
    variables = draw_tree(dict(variable_shapes(network, 6)), 3)
    wanted, found = (
        class_gains(params) for params in (variables["params"], fold_batch_stats(**variables, epsilon=1e-5))
    )
    assert list(wanted) == list(found)
    for path, (gains, shifts) in wanted.items():
        np.testing.assert_allclose(found[path].gains, gains, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found[path].shifts, shifts, rtol=1e-4, atol=1e-5)


def test_network_without_classes_has_no_class_gains():
    network = sagan.Generator(32, 0, 1, attention_resolutions=())
    assert class_gains(draw_tree(dict(variable_shapes(network, 6)), 3)["params"]) == {}


def test_what_all_classes_share_is_not_between_them():
    values = np.array([[1.0, 5.0, 2.0], [3.0, 5.0, 0.0]])
    assert between_classes(values) == pytest.approx(math.sqrt((1 + 1 + 1 + 1) / 6))
    assert between_classes(values + np.array([9.0, -4.0, 0.5])) == pytest.approx(between_classes(values))


def test_doctests_hold():
    assert doctest.testmod(module).attempted
    assert not doctest.testmod(module).failed
