"""Devices for tests that need several."""

import jax
import pytest


def several_devices(count: int) -> list[jax.Device]:
    """Returns `count` devices of the default platform, or virtual ones of the CPU. Skips the test if both have fewer.

    `tests/conftest.py` asks for four of the CPU.
    """
    here = jax.devices()
    found = here if len(here) >= count else jax.devices("cpu")
    if len(found) < count:
        pytest.skip(f"needs {count} devices; there are {len(found)}, and JAX_NUM_CPU_DEVICES asks for more.")
    return found[:count]
