"""The equations: arrays in, arrays out. Needs jax, numpy and chex only."""

from sagan_jax.functional.attention import attend, attention_map, self_attention
from sagan_jax.functional.losses import (
    HINGE,
    NON_SATURATING,
    WASSERSTEIN,
    AdversarialLoss,
    hinge_discriminator,
    hinge_generator,
    non_saturating_discriminator,
    non_saturating_generator,
    wasserstein_discriminator,
)
from sagan_jax.functional.normalization import batch_moments, scale_and_shift, standardize
from sagan_jax.functional.resampling import average_pool, max_pool, upsample_nearest
from sagan_jax.functional.spectral import (
    initial_vectors,
    power_iteration,
    spectral_normalize,
    spectral_normalize_tree,
)

__all__ = [
    "HINGE",
    "NON_SATURATING",
    "WASSERSTEIN",
    "AdversarialLoss",
    "attend",
    "attention_map",
    "average_pool",
    "batch_moments",
    "hinge_discriminator",
    "hinge_generator",
    "initial_vectors",
    "max_pool",
    "non_saturating_discriminator",
    "non_saturating_generator",
    "power_iteration",
    "scale_and_shift",
    "self_attention",
    "spectral_normalize",
    "spectral_normalize_tree",
    "standardize",
    "upsample_nearest",
    "wasserstein_discriminator",
]
