import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sagan_jax.functional import value_and_gradient_penalty
from sagan_jax.models.sagan import Discriminator
from support.params import perturbed


def test_penalty_of_a_linear_discriminator_is_the_squared_length_of_its_weights():
    numbers = np.random.default_rng(0)
    weights, images = numbers.normal(size=(4, 5, 2)), numbers.normal(size=(3, 4, 5, 2))
    logits, penalty = value_and_gradient_penalty(
        lambda x: (x * jnp.float32(weights)[None]).sum((1, 2, 3)), jnp.float32(images)
    )
    np.testing.assert_allclose(logits, (images * weights).sum((1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(penalty, np.full(3, (weights**2).sum()), rtol=1e-6)


def test_what_the_discriminator_returns_besides_comes_through():
    def discriminator(images):
        return images.sum((1, 2, 3)), {"moments": images.mean()}

    (logits, aux), penalty = value_and_gradient_penalty(discriminator, jnp.full((2, 3, 1, 1), 0.5), has_aux=True)
    assert (logits.tolist(), float(aux["moments"]), penalty.tolist()) == ([1.5, 1.5], 0.5, [3.0, 3.0])


def test_penalty_in_bfloat16_is_summed_in_float32():
    images = jnp.ones((1, 40, 40, 1), jnp.bfloat16)
    _, penalty = value_and_gradient_penalty(lambda x: x.astype(jnp.float32).sum((1, 2, 3)), images)
    assert (penalty.dtype, penalty.tolist()) == (jnp.float32, [1600.0])


@pytest.mark.parametrize(
    ("images", "discriminator", "needed"),
    [
        (jnp.ones((2, 3, 4)), lambda x: x.sum((1, 2)), r"needs floating images \[B, H, W, C\]; got images \(2, 3, 4\)"),
        (jnp.ones((2, 3, 4, 1)), lambda x: x.sum((2, 3)), r"floating logits \[B\]; got .*logits \(2, 3\) float32"),
        (jnp.ones((2, 3, 4, 1)), lambda x: x.sum((1, 2, 3))[:1], r"floating logits \[B\]; got .*logits \(1,\) float32"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(images, discriminator, needed):
    with pytest.raises(AssertionError, match=needed):
        value_and_gradient_penalty(discriminator, images)


@pytest.mark.slow
@pytest.mark.one_jax
def test_gradient_of_the_penalty_of_our_discriminator_is_that_in_float64():
    """Convolutions, pooling, attention and projection are differentiated twice."""
    network = Discriminator(32, 3, 2, attention_resolutions=(16,))
    numbers = np.random.default_rng(4)
    images, labels = numbers.uniform(-1, 1, (2, 32, 32, 3)), jnp.array([2, 0])
    variables = network.init(jax.random.key(0), jnp.float32(images), labels, train=False)
    params = perturbed(variables["params"], 0.1)

    def gradient(dtype):
        def mean_penalty(params):
            def logits(x):
                return network.apply({"params": params}, x, labels, train=False)

            return value_and_gradient_penalty(logits, jnp.asarray(images, dtype))[1].mean()

        return jax.jit(jax.grad(mean_penalty))(jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params))

    found = gradient(jnp.float32)
    with jax.enable_x64(True):
        wanted = jax.device_get(gradient(jnp.float64))
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(wanted))
    assert wanted["attention_16"]["gamma"] != 0

    def close(one, other):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * max(np.abs(other).max(), 1e-2 * largest))

    jax.tree.map(close, found, wanted)
