import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sagan_jax.training.optimizers import muon

RATE = 0.01


@pytest.fixture
def trees():
    numbers = np.random.default_rng(0)
    shapes = {
        "block": {"conv_1": {"kernel": (3, 3, 5, 7), "bias": (7,)}},
        "attention_16": {"query_kernel": (12, 4), "gamma": ()},
        "mean": {"kernel": (20, 6)},
        "positions": (4, 4, 3),
    }
    draw = lambda shape: jnp.asarray(numbers.normal(size=shape), jnp.float32)  # noqa: E731
    is_shape = lambda node: isinstance(node, tuple)  # noqa: E731
    return tuple(jax.tree.map(draw, shapes, is_leaf=is_shape) for _ in range(3))


def updates_of(optimizer, params, *gradients):
    state = optimizer.init(params)
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, params)
    return updates


def test_muon_update_has_similar_singular_values(trees):
    updates = updates_of(muon(RATE), *trees)
    for update in (updates["block"]["conv_1"]["kernel"].reshape(45, 7), updates["attention_16"]["query_kernel"]):
        # As far as Adam: the entries of an orthogonal matrix are 1 / sqrt(its longer side) in the root mean square.
        lengths = np.linalg.svd(update, compute_uv=False) / (RATE * 0.2 * np.sqrt(max(update.shape)))
        assert lengths.min() > 0.6
        assert lengths.max() < 1.3


def test_their_direction_is_that_of_the_momentum(trees):
    params, gradient, _ = trees
    update = updates_of(muon(RATE), params, gradient)["block"]["conv_1"]["kernel"].reshape(45, 7)
    left, _, right = np.linalg.svd(gradient["block"]["conv_1"]["kernel"].reshape(45, 7), full_matrices=False)
    nearest = -(left @ right)
    cosine = (update * nearest).sum() / np.linalg.norm(update) / np.linalg.norm(nearest)
    assert cosine > 0.97


def test_everything_else_is_adams(trees):
    updates = updates_of(muon(RATE, beta1=0.8, beta2=0.95), *trees)
    wanted = updates_of(optax.nadam(RATE, b1=0.8, b2=0.95), *trees)
    for path in (("block", "conv_1", "bias"), ("attention_16", "gamma"), ("mean", "kernel"), ("positions",)):
        found, other = updates, wanted
        for name in path:
            found, other = found[name], other[name]
        np.testing.assert_allclose(found, other, rtol=1e-5, err_msg=str(path))
