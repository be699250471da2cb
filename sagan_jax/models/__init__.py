"""The networks: flax modules with parameters, without IO and without losses.

`biggan`, `dcgan` and `sagan` are read by module: `sagan.Generator(resolution=128)`.
"""

from sagan_jax.models import biggan, completion, convnet, dcgan, folding, inception, layers, lite0, sagan
from sagan_jax.models.completion import CompletionNetwork
from sagan_jax.models.convnet import ConvNet
from sagan_jax.models.folding import fold_batch_stats
from sagan_jax.models.inception import Inception
from sagan_jax.models.layers import ConditionalBatchNorm, ResidualControl, SelfAttention
from sagan_jax.models.lite0 import Lite0

__all__ = [
    "CompletionNetwork",
    "ConditionalBatchNorm",
    "ConvNet",
    "Inception",
    "Lite0",
    "ResidualControl",
    "SelfAttention",
    "biggan",
    "completion",
    "convnet",
    "dcgan",
    "fold_batch_stats",
    "folding",
    "inception",
    "layers",
    "lite0",
    "sagan",
]
