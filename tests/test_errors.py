"""The errors that commands end with."""

import pickle

import pytest

from sagan_jax import errors

pytestmark = pytest.mark.one_jax

CLASSES = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.SaganError)]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_error_reaches_another_process_with_its_message_and_exit_code(kind):
    error = kind("A line.", 15) if kind is errors.StoppedError else kind("A line.")
    other = pickle.loads(pickle.dumps(error))
    assert (type(other), str(other), other.exit_code) == (kind, "A line.", error.exit_code)
    assert kind is not errors.StoppedError or other.exit_code == 143
