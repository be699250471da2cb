"""Batch moments that four devices share, against those of the whole batch on one: errors, gradients, collectives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sagan_jax.functional import batch_moments, normalize
from sagan_jax.runtime.collectives import traced_collectives

DEVICES, IMAGES, SIDE, CHANNELS = 4, 3, 5, 17
SHAPE = (DEVICES, IMAGES, SIDE, SIDE, CHANNELS)


@pytest.fixture(scope="module", autouse=True)
def four_devices():
    if jax.device_count() < DEVICES:
        pytest.skip(f"needs {DEVICES} devices; there are {jax.device_count()}, and JAX_NUM_CPU_DEVICES asks for more.")


def on_devices(function):
    return jax.pmap(function, axis_name="parts", devices=jax.devices()[:DEVICES])


def shared(part):
    return batch_moments(part, axis_name="parts")


def two_passes(part):
    """The plain way: every deviation is taken from the mean over all devices, which needs two collectives."""
    mean = jax.lax.pmean(part.mean((0, 1, 2)), "parts")
    return mean, jax.lax.pmean(jnp.square(part - mean.reshape(1, 1, 1, -1)).mean((0, 1, 2)), "parts")


def features(kind):
    numbers = np.random.default_rng(0)
    drawn = numbers.normal(size=SHAPE)
    apart = numbers.normal(size=(DEVICES, 1, 1, 1, CHANNELS))
    if kind == "far first image":
        drawn[0, 0] += 1e3
    return {
        "parts alike": drawn + 3,
        "far first image": drawn,
        "large mean": drawn + 1e3,
        "parts apart under a large mean": drawn + apart + 1e3,
        "parts far apart": drawn + 1e3 * apart,
        "constant parts": np.broadcast_to(apart, SHAPE),
    }[kind].astype(np.float32)


@pytest.fixture(scope="module")
def joint():
    return on_devices(shared)


@pytest.fixture(scope="module")
def plain():
    return on_devices(two_passes)


@pytest.mark.parametrize(
    "kind",
    [
        "parts alike",
        "far first image",
        "large mean",
        "parts apart under a large mean",
        "parts far apart",
        "constant parts",
    ],
)
def test_moments_of_four_devices_are_as_exact_as_two_passes_over_the_whole(kind, joint, plain):
    given = features(kind)
    wide = given.reshape(-1, CHANNELS).astype(np.float64)
    exact = wide.mean(0), wide.var(0)
    for one, other, truth in zip(joint(given), plain(given), exact, strict=True):
        errors = [np.abs(np.asarray(moment[0], np.float64) / truth - 1).max() for moment in (one, other)]
        assert errors[0] <= 2 * max(errors[1], 2.0**-23)


def test_variance_of_constant_channels_is_that_of_rounding_and_not_negative(joint):
    constants = 100 * np.random.default_rng(2).normal(size=2000).astype(np.float32)  # their sums are rounded
    mean, variance = joint(np.broadcast_to(constants, (*SHAPE[:-1], 2000)))
    np.testing.assert_allclose(mean[0], constants, rtol=3e-7, atol=0)
    assert variance.min() >= 0
    assert (np.sqrt(variance[0]) <= 3e-7 * np.abs(constants)).all()


def test_every_device_has_the_same_bits(joint):
    for moment in joint(features("parts far apart")):
        assert len({part.tobytes() for part in np.asarray(moment)}) == 1


# Gradients


def loss(axis_name):
    """Returns a loss of a part of the batch whose second derivatives depend on every entry and every moment."""

    def of(part, weights, scale):
        mean, variance = batch_moments(part, axis_name=axis_name)
        shift = jnp.sin(mean) + variance
        normal = normalize(part, mean, variance, scale, shift, epsilon=1e-3)
        return (weights * normal * normal * normal).mean()

    return of


def steepness(axis_name):
    """Returns the mean square of the gradient of a loss, as in a gradient penalty."""
    return lambda *arguments: jnp.square(jax.grad(loss(axis_name))(*arguments)).mean()


@pytest.fixture(scope="module")
def arguments():
    numbers = np.random.default_rng(1)
    parts = numbers.normal(size=SHAPE) + numbers.normal(size=(DEVICES, 1, 1, 1, CHANNELS))
    return parts, numbers.normal(size=SHAPE), numbers.normal(size=CHANNELS)


@pytest.mark.parametrize("function", [loss, steepness])
def test_gradients_on_four_devices_are_those_of_the_whole_in_float64(function, arguments):
    """The loss of the whole is the mean over devices, so its gradient at an image is a quarter of the device's own."""
    with jax.enable_x64(True):
        parts, weights, scale = map(jnp.asarray, arguments)
        whole = [array.reshape(-1, *array.shape[2:]) for array in (parts, weights)]
        value, gradient = jax.value_and_grad(function(None))(*whole, scale)
        per_device = on_devices(lambda part, weights: jax.value_and_grad(function("parts"))(part, weights, scale))
        power = {loss: 1, steepness: 3}[function]  # a penalty squares the inner gradient, and each is of a sum
        values, gradients = map(np.asarray, per_device(parts, weights))
    assert gradient.dtype == np.float64
    np.testing.assert_allclose(values.mean() / DEVICES ** (power - 1), value, rtol=1e-12)
    gradients = gradients.reshape(gradient.shape) / DEVICES**power
    np.testing.assert_allclose(gradients, gradient, rtol=0, atol=1e-12 * np.abs(gradient).max())


def test_forward_derivatives_on_four_devices_are_those_of_the_whole_in_float64(arguments):
    with jax.enable_x64(True):
        parts, changes, _ = map(jnp.asarray, arguments)
        whole = [array.reshape(-1, CHANNELS) for array in (parts, changes)]
        _, expected = jax.jvp(batch_moments, whole[:1], whole[1:])
        _, found = on_devices(lambda part, change: jax.jvp(shared, (part,), (change,)))(parts, changes)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, np.tile(other, (DEVICES, 1)), rtol=1e-12, atol=1e-15)


# What it costs


def count(function):
    parts = jnp.zeros(SHAPE, jnp.bfloat16)
    return sum(found.count for found in traced_collectives(jax.make_jaxpr(on_devices(function))(parts)))


def test_moments_take_one_collective_and_their_gradients_another():
    assert count(shared) == 1
    assert count(jax.grad(lambda part: sum(moment.sum() for moment in shared(part)))) == 2


def test_moments_over_one_device_are_those_without_an_axis_in_every_bit():
    given = features("parts apart under a large mean")[:1]
    found = jax.pmap(shared, axis_name="parts", devices=jax.devices()[:1])(given)
    for one, other in zip(found, jax.jit(batch_moments)(given[0]), strict=True):
        assert one[0].tobytes() == other.tobytes()
