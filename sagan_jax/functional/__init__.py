"""The equations: arrays in, arrays out. Needs jax, numpy and chex only."""

from sagan_jax.functional.attention import attend, attention_map, self_attention
from sagan_jax.functional.attention_maps import (
    attention_distance,
    attention_entropy,
    attention_rollup,
    informative_queries,
    top_keys,
    unpool_keys,
)
from sagan_jax.functional.augmentation import Augmentation, augment
from sagan_jax.functional.distances import (
    Moments,
    density_coverage,
    frechet_distance,
    inception_score,
    kernel_distance,
    merge_moments,
    moments_of,
    precision_recall,
)
from sagan_jax.functional.losses import (
    HINGE,
    NON_SATURATING,
    WASSERSTEIN,
    AdversarialLoss,
    hinge_discriminator,
    hinge_generator,
    non_saturating_discriminator,
    non_saturating_generator,
    orthogonal_penalty,
    wasserstein_discriminator,
    wasserstein_generator,
)
from sagan_jax.functional.normalization import batch_moments, normalize, scale_and_shift, standardize
from sagan_jax.functional.resampling import average_pool, max_pool, upsample_nearest
from sagan_jax.functional.similarity import masked_mean, peak_signal_to_noise, structural_similarity
from sagan_jax.functional.spectral import (
    init_spectral,
    power_iteration,
    spectral_normalize,
    spectral_normalize_tree,
)

__all__ = [
    "HINGE",
    "NON_SATURATING",
    "WASSERSTEIN",
    "AdversarialLoss",
    "Augmentation",
    "Moments",
    "attend",
    "attention_distance",
    "attention_entropy",
    "attention_map",
    "attention_rollup",
    "augment",
    "average_pool",
    "batch_moments",
    "density_coverage",
    "frechet_distance",
    "hinge_discriminator",
    "hinge_generator",
    "inception_score",
    "informative_queries",
    "init_spectral",
    "kernel_distance",
    "masked_mean",
    "max_pool",
    "merge_moments",
    "moments_of",
    "non_saturating_discriminator",
    "non_saturating_generator",
    "normalize",
    "orthogonal_penalty",
    "peak_signal_to_noise",
    "power_iteration",
    "precision_recall",
    "scale_and_shift",
    "self_attention",
    "spectral_normalize",
    "spectral_normalize_tree",
    "standardize",
    "structural_similarity",
    "top_keys",
    "unpool_keys",
    "upsample_nearest",
    "wasserstein_discriminator",
    "wasserstein_generator",
]
