"""Faces with holes at 64x64."""

from sagan_jax.config import CompletionExperiment, Data, Recording


def experiment() -> CompletionExperiment:
    """Returns a run of minutes on two CPU cores."""
    return CompletionExperiment(
        name="faces_completion_64",
        data=Data(source="../shared/data/faces-train.zip", held_out="../shared/data/faces-test.zip"),
        recording=Recording(log_every_steps=50, sample_every_steps=500, save_every_steps=500),
    )
