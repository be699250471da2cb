"""The advice for a run that does not fit into the memory."""

import dataclasses

import pytest

from sagan_jax.config import CompletionExperiment
from sagan_jax.runs.experiments import load_experiment
from sagan_jax.runs.memory_advice import COMPILING, memory_advice

pytestmark = pytest.mark.one_jax


def experiment(batch_size, accumulation_steps):
    digits = load_experiment("digits_32")
    training = dataclasses.replace(digits.training, batch_size=batch_size, accumulation_steps=accumulation_steps)
    return dataclasses.replace(digits, training=training)


@pytest.mark.parametrize(
    ("batch_size", "parts", "more"), [(48, 1, 2), (48, 2, 3), (48, 4, 6), (60, 3, 5), (4, 1, None)]
)
def test_memory_advice_names_the_batch_and_the_next_accumulation_that_divides_it(batch_size, parts, more):
    # Four devices share the batch.
    advice = memory_advice(experiment(batch_size, parts), COMPILING)
    assert f"while {COMPILING} with --batch-size {batch_size} and --accumulation-steps {parts}: " in advice
    assert (f"give --accumulation-steps {more}, or lower --batch-size" in advice) == (more is not None)
    assert "lower --batch-size or --base-channels" in advice


def test_memory_advice_for_a_score_does_not_blame_the_batch():
    advice = memory_advice(experiment(48, 1), "scoring step 20")
    assert "while scoring step 20" in advice
    assert "--batch-size" not in advice


def test_memory_advice_for_completion_names_no_flag_that_it_does_not_have():
    advice = memory_advice(CompletionExperiment(), "")
    assert "while training with --batch-size 32: lower --batch-size" in advice
    assert "accumulation" not in advice
