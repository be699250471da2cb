"""Images: where they come from, and the batches that a run is fed with."""

from sagan_jax.data.masks import MASK_KINDS, draw_mask, draw_masks
from sagan_jax.data.pipeline import to_float, to_uint8, training_batches
from sagan_jax.data.sources import ImageSource, natural_resolution, open_source

__all__ = [
    "MASK_KINDS",
    "ImageSource",
    "draw_mask",
    "draw_masks",
    "natural_resolution",
    "open_source",
    "to_float",
    "to_uint8",
    "training_batches",
]
