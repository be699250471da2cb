# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Attention in your own model
#
# One pure function, `self_attention`, serves every framework. Here it is a layer in linen, in nnx and in equinox. All
# three compute the same numbers.

# %%
import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from flax import linen, nnx

from sagan_jax.functional import attention_entropy, init_spectral, self_attention, spectral_normalize_tree
from sagan_jax.models.layers import SelfAttention

features = jax.random.normal(jax.random.key(0), (2, 16, 16, 32))  # [B, H, W, C]

# %% [markdown]
# ## linen
#
# The package has the layer as a linen module. It sows its attention map into `"intermediates"`. γ starts at 0, where
# the layer is the identity. So we set it to 0.5 to see something.


# %%
class LinenModel(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.Conv(32, (3, 3))(x)
        return SelfAttention()(x)


linen_model = LinenModel()
params = linen_model.init(jax.random.key(1), features)["params"]
params["SelfAttention_0"]["gamma"] = jnp.array(0.5)
linen_output, seen = linen_model.apply({"params": params}, features, mutable=["intermediates"])
attention_map = seen["intermediates"]["SelfAttention_0"]["attention_map"][0]
print(linen_output.shape, attention_map.shape)  # queries are 16 x 16 positions, keys are pooled to 8 x 8

# %% [markdown]
# ## nnx
#
# Own the kernels as `nnx.Param` and call the function. The kernels of the linen layer are passed in, so that the
# results compare.

# %%
KERNELS = ("query_kernel", "key_kernel", "value_kernel", "output_kernel", "gamma")


class NnxModel(nnx.Module):
    def __init__(self, attention, *, rngs):
        self.conv = nnx.Conv(32, 32, (3, 3), rngs=rngs)
        for name in KERNELS:
            setattr(self, name, nnx.Param(attention[name]))

    def __call__(self, x):
        x = self.conv(x)
        return self_attention(x, *(getattr(self, name)[...] for name in KERNELS), pool=2)


nnx_model = NnxModel(params["SelfAttention_0"], rngs=nnx.Rngs(1))
nnx_model.conv.kernel[...] = params["Conv_0"]["kernel"]
nnx_model.conv.bias[...] = params["Conv_0"]["bias"]
nnx_output, _ = nnx_model(features)
assert np.allclose(nnx_output, linen_output, atol=1e-5)

# %% [markdown]
# ## equinox
#
# Equinox models see one image and put channels first. So the layer moves them, and `jax.vmap` adds the batch.


# %%
class EquinoxModel(eqx.Module):
    conv: eqx.nn.Conv2d
    attention: dict[str, jax.Array]

    def __call__(self, x):  # [C, H, W]
        x = jnp.moveaxis(self.conv(x), 0, -1)
        y, attention_map = self_attention(x, **self.attention, pool=2)
        return jnp.moveaxis(y, -1, 0), attention_map


conv = eqx.nn.Conv2d(32, 32, 3, padding=1, key=jax.random.key(1))
conv = eqx.tree_at(lambda c: c.weight, conv, params["Conv_0"]["kernel"].transpose(3, 2, 0, 1))
conv = eqx.tree_at(lambda c: c.bias, conv, params["Conv_0"]["bias"].reshape(-1, 1, 1))
equinox_model = EquinoxModel(conv, dict(params["SelfAttention_0"]))
equinox_output, maps = jax.vmap(equinox_model)(jnp.moveaxis(features, -1, 1))
assert np.allclose(jnp.moveaxis(equinox_output, 1, -1), linen_output, atol=1e-5)

# %% [markdown]
# ## Gradients, and spectral normalisation
#
# The layer is differentiable like any other. Spectral normalisation is a function of the parameters. Do it once per
# update, and pass the result to the model.

# %%
spectral = init_spectral(jax.random.key(2), params)


@jax.jit
def loss_and_gradient(params, spectral):
    def loss(params):
        normalized, new_spectral, sigmas = spectral_normalize_tree(params, spectral)
        return (linen_model.apply({"params": normalized}, features) ** 2).mean(), (new_spectral, sigmas)

    return jax.value_and_grad(loss, has_aux=True)(params)


(value, (spectral, sigmas)), gradient = loss_and_gradient(params, spectral)
print(f"loss {value:.3f}")
for path, sigma in jax.tree_util.tree_leaves_with_path(sigmas):
    print(f"largest singular value of {jax.tree_util.keystr(path, simple=True, separator='/')}: {sigma:.2f}")

# %% [markdown]
# ## Look at a map
#
# Each row of the map sums to 1. It says how much one position takes from every key.

# %%
print(f"mean entropy of a row: {attention_entropy(attention_map).mean():.2f} of at most {np.log(64):.2f} nats")
figure, axes = plt.subplots(1, 3, figsize=(6, 2.2), layout="constrained")
for axis, (row, column) in zip(axes, [(3, 3), (8, 8), (12, 4)], strict=True):
    axis.imshow(attention_map[0, row * 16 + column].reshape(8, 8), cmap="magma")
    axis.set_title(f"position {row}, {column}", fontsize=8)
    axis.axis("off")
plt.show()
