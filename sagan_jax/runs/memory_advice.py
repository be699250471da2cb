"""Advice on what to lower when training runs out of memory."""

import jax

from sagan_jax.config import AnyExperiment, Experiment

COMPILING = "compiling the first step"


def memory_advice(experiment: AnyExperiment, activity: str) -> str:
    """Returns a sentence with the batch size and the flags that help.

    Args:
        experiment: the config of the run.
        activity: what the run was doing; empty while it trains.
    """
    training = experiment.training
    if activity not in ("", COMPILING):
        return f"It ran out while {activity}, in addition to the training state: lower --base-channels."
    lower = "lower --batch-size or --base-channels"
    given = f"It ran out while {activity or 'training'} with --batch-size {training.batch_size}"
    if not isinstance(experiment, Experiment):
        return f"{given}: {lower}."
    share, parts = training.batch_size // jax.device_count(), experiment.training.accumulation_steps
    more = next((number for number in range(parts + 1, share + 1) if share % number == 0), None)
    accumulate = f"give --accumulation-steps {more}, or " if more else ""
    return f"{given} and --accumulation-steps {parts}: {accumulate}{lower}."
