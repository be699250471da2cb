"""Image sources, the batches for training, and the masks for image completion."""

from sagan_jax.data.masks import MASK_KINDS, draw_mask, draw_masks
from sagan_jax.data.pipeline import to_float, to_uint8, training_batches
from sagan_jax.data.sources import ImageSource, natural_resolution, open_source
from sagan_jax.data.synthetic import Blobs, Mirror, Pairs
from sagan_jax.data.user_sources import DataSource

__all__ = [
    "MASK_KINDS",
    "Blobs",
    "DataSource",
    "ImageSource",
    "Mirror",
    "Pairs",
    "draw_mask",
    "draw_masks",
    "natural_resolution",
    "open_source",
    "to_float",
    "to_uint8",
    "training_batches",
]
