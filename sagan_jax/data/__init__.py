"""Images: where they come from, and the batches that a run is fed with."""

from sagan_jax.data.pipeline import to_float, to_uint8, training_batches
from sagan_jax.data.sources import ImageSource, open_source

__all__ = ["ImageSource", "open_source", "to_float", "to_uint8", "training_batches"]
