"""With jax_enable_x64 on, and with mixed dtypes: parameters stay float32 and everything still runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sagan_jax.models.layers import SelfAttention
from sagan_jax.models.sagan import Discriminator, Generator
from sagan_jax.training.adversarial import AdversarialTask, Batch, initial_state, step

GAME = AdversarialTask(
    Generator(32, 5, 1, attention_resolutions=(8,)),
    Discriminator(32, 5, 1, attention_resolutions=(16,), norm="batch"),
    latent_size=6,
    num_classes=5,
    average_decay=0.5,
)


def dtypes(tree):
    return {leaf.dtype.name for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)}


@pytest.mark.slow
@pytest.mark.one_jax
@pytest.mark.parametrize("images", [np.float32, np.float64])
def test_step_keeps_the_state_in_float32_when_jax_has_doubles(images):
    with jax.enable_x64(True):
        state = jax.eval_shape(lambda: initial_state(GAME, 0, (32, 32, 3)))
        assert dtypes(state) == {"float32"}
        batch = Batch(np.zeros((1, 3, 32, 32, 3), images), np.zeros((1, 3), np.int32))
        moved, _ = jax.eval_shape(lambda state, batch: step(GAME, state, batch), state, batch)
    assert jax.tree.map(lambda leaf: leaf.dtype, moved) == jax.tree.map(lambda leaf: leaf.dtype, state)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_attention_promotes_features_and_parameters_as_flax_layers_do(dtype):
    with jax.enable_x64(True):
        layer = SelfAttention()
        features = jnp.ones((2, 4, 6, 8), dtype)
        variables = layer.init(jax.random.key(0), features)
        assert dtypes(variables["params"]) == {"float32"}
        assert layer.apply(variables, features).dtype == jnp.promote_types(dtype, jnp.float32)


@pytest.mark.slow
def test_release_takes_doubles(golden):
    from sagan_jax import interop

    with np.load(golden / "official-none.npz") as vectors:
        arrays = {name.removeprefix("var/"): vectors[name] for name in vectors if name.startswith("var/")}
        latents, labels, expected = vectors["in/z"], vectors["in/fake_labels"], vectors["out/fake_eval"]
    with jax.enable_x64(True):
        images = interop.load("official", arrays).generate(latents.astype(np.float64), labels)
        assert images.dtype == np.float64
    np.testing.assert_allclose(images, expected, atol=1e-4)
