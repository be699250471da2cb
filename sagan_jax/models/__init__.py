"""The networks: flax modules with parameters, without IO and without losses.

Use `biggan`, `dcgan` and `sagan` through their modules: `sagan.Generator(resolution=128)`.
"""

from sagan_jax.models import (
    attention,
    biggan,
    completion,
    convnet,
    dcgan,
    dinov2,
    folding,
    inception,
    layers,
    lite0,
    perceptual,
    sagan,
)
from sagan_jax.models.attention import AttentionModule, MultiHeadAttention, SqueezeExcite, UniformAttention
from sagan_jax.models.completion import CompletionNetwork
from sagan_jax.models.convnet import ConvNet
from sagan_jax.models.dinov2 import DinoV2
from sagan_jax.models.folding import fold_batch_stats
from sagan_jax.models.inception import Inception
from sagan_jax.models.layers import ConditionalBatchNorm, ResidualControl, SelfAttention
from sagan_jax.models.lite0 import Lite0
from sagan_jax.models.perceptual import Lite0Activations

__all__ = [
    "AttentionModule",
    "CompletionNetwork",
    "ConditionalBatchNorm",
    "ConvNet",
    "DinoV2",
    "Inception",
    "Lite0",
    "Lite0Activations",
    "MultiHeadAttention",
    "ResidualControl",
    "SelfAttention",
    "SqueezeExcite",
    "UniformAttention",
    "attention",
    "biggan",
    "completion",
    "convnet",
    "dcgan",
    "dinov2",
    "fold_batch_stats",
    "folding",
    "inception",
    "layers",
    "lite0",
    "perceptual",
    "sagan",
]
