"""Comparisons of arrays and trees, and of what an error says."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from sagan_jax.errors import InvalidInputError


def assert_near(actual: Any, expected: Any, tolerance: float, what: str = "") -> None:
    """Fails unless every element is within `tolerance` of the largest expected one."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, what
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max(), err_msg=what)


def same_bits(first: Any, second: Any) -> bool:
    """Tells whether two trees hold the same bytes. Fails if their structures differ."""
    assert jax.tree.structure(first) == jax.tree.structure(second)
    pairs = zip(map(np.asarray, jax.tree.leaves(first)), map(np.asarray, jax.tree.leaves(second)), strict=True)
    return all(
        (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes()) for one, other in pairs
    )


def refusal(function: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    """Calls the function, which has to refuse its input, and returns the one line of the error."""
    with pytest.raises(InvalidInputError) as caught:
        function(*arguments, **options)
    line = str(caught.value)
    assert "\n" not in line
    return line


def assert_rows_are_their_own(
    function: Callable[[Any, Any], Any], inputs: np.ndarray, labels: np.ndarray | None
) -> np.ndarray:
    """Fails unless row i of the output follows input i and label i, and nothing else of the batch.

    Args:
        function: maps inputs `[B, ...]` and labels `[B]` to outputs `[B, ...]`.
        inputs: differ from row to row.
        labels: the first two differ; None for a function without classes.

    Returns:
        The outputs.
    """
    inputs = np.asarray(inputs)
    outputs = np.asarray(function(inputs, labels))
    others = [(np.concatenate([-inputs[:1], inputs[1:]]), labels)]
    if labels is not None:
        labels = np.asarray(labels)
        others.append((inputs, np.concatenate([labels[1:2], labels[1:]])))
    scale = np.abs(outputs).max()
    for what, (other_inputs, other_labels) in zip(("input", "label"), others, strict=False):
        distances = np.abs(np.asarray(function(other_inputs, other_labels)) - outputs)
        assert distances[0].max() > 1e-3 * scale, f"the first row does not follow its {what}"
        assert distances[1:].max() < 1e-5 * scale, f"the other rows follow the {what} of the first"
    return outputs
