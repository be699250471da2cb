"""What the steps of both tasks share, each piece by itself."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sagan_jax.functional.losses import HINGE, NON_SATURATING
from sagan_jax.runtime.devices import AXIS
from sagan_jax.training.network_state import NetworkState, normalize_with_vjp
from sagan_jax.training.updates import (
    Gradients,
    apply_gradients,
    compute_gradients,
    discriminator_loss,
    flatten_metrics,
    global_draw,
    keep_if_finite,
    moving_average,
)
from support.devices import several_devices


def draw(rows):
    keys = jax.random.split(jax.random.key(3))
    return {"latents": jax.random.normal(keys[0], (rows, 5)), "labels": jax.random.randint(keys[1], (rows,), 0, 9)}


@pytest.mark.parametrize("devices", [2, 4])
def test_global_draw_gives_each_device_its_rows_of_the_whole(devices):
    those = several_devices(devices)
    found = jax.pmap(lambda _: global_draw(draw, 3, AXIS), axis_name=AXIS, devices=those)(jnp.zeros(devices))
    with jax.default_device(those[0]):  # platforms round differently
        wanted = draw(3 * devices)
    for name, whole in wanted.items():
        np.testing.assert_array_equal(found[name].reshape(whole.shape), whole)


def test_discriminator_loss_is_the_sum_of_the_means_on_real_and_on_fake_images():
    real_logits, fake_logits = jnp.array([0.25, 2.0, 0.5]), jnp.array([0.5, -3.0])
    loss, metrics = discriminator_loss(HINGE, real_logits, fake_logits)
    expected = {"loss_real": (0.75 + 0 + 0.5) / 3, "loss_fake": 1.5 / 2, "loss": 1.25 / 3 + 0.75}
    assert {name: float(value) for name, value in metrics.items()} == {
        f"discriminator/{name}": pytest.approx(value) for name, value in expected.items()
    }
    assert float(loss) == pytest.approx(expected["loss"])
    assert float(discriminator_loss(NON_SATURATING, jnp.zeros(3), jnp.zeros(2))[0]) == pytest.approx(2 * np.log(2))


def halved(state):
    """Replaces spectral normalisation: halves the parameters, counts calls in the vectors, and gives sigma 2."""
    params = jax.tree.map(lambda leaf: leaf / 2, state.params)
    return params, {"count": state.spectral["count"] + 1}, {"block": {"kernel": jnp.float32(2.0)}}


@pytest.fixture
def state():
    params = {"block": {"kernel": jnp.array([1.0, -2.0]), "attention_8": {"gamma": jnp.float32(0.25)}}}
    optimizer = optax.sgd(0.5)
    return NetworkState(params, {"count": jnp.int32(4)}, {"mean": jnp.float32(7.0)}, optimizer.init(params))


def test_compute_gradients_are_those_of_the_stored_parameters_and_normalise_once(state):
    def objective(params, batch_stats, batch):
        loss = (params["block"]["kernel"] ** 2).sum() * batch.mean()
        return loss, ({"mean": batch_stats["mean"] + 1}, {"network/loss": loss})

    normalized = normalize_with_vjp(halved, state)
    batch = jnp.array([1.0, 2.0, 3.0, 6.0])
    found = compute_gradients("network", normalized, state.batch_stats, objective, batch, microbatches=2)
    # The loss is 3 |k / 2|^2 in the mean over the batch: its gradient is 3 k / 2, and the normalised kernel's 3 k.
    np.testing.assert_allclose(found.params["block"]["kernel"], [1.5, -3.0])
    assert int(found.spectral["count"]) == 5
    assert float(found.batch_stats["mean"]) == 9
    assert {name: float(value) for name, value in found.metrics.items()} == {
        "network/loss": 3.75,
        "network/sigma/block": 2.0,
    }


@pytest.mark.parametrize(("platform", "expected"), [("cuda", 1), ("rocm", 0), ("tpu", 0), ("cpu", 0)])
def test_parameters_get_the_layout_of_the_state_on_cuda_alone(state, platform, expected):
    def gradients(state):
        def objective(params, batch_stats, batch):
            return (params["block"]["kernel"] ** 2).sum() * batch.mean(), (batch_stats, {})

        return compute_gradients("network", normalize_with_vjp(halved, state), {}, objective, jnp.ones(3)).params

    text = jax.jit(gradients).trace(state).lower(lowering_platforms=(platform,)).as_text()
    assert text.count("@LayoutConstraint") == expected  # of the kernel: the loss does not read gamma


def test_apply_gradients_takes_one_optimiser_step_and_reports_norm_and_gamma(state):
    slopes = {"block": {"kernel": jnp.array([3.0, 4.0]), "attention_8": {"gamma": jnp.float32(0.0)}}}
    gradients = Gradients(slopes, {"count": jnp.int32(5)}, {"mean": jnp.float32(8.0)}, {"network/loss": jnp.float32(1)})
    new, metrics = apply_gradients("network", state, gradients, optax.sgd(0.5), None)
    np.testing.assert_allclose(new.params["block"]["kernel"], [1 - 1.5, -2 - 2.0])
    assert (int(new.spectral["count"]), float(new.batch_stats["mean"])) == (5, 8.0)
    assert {name: float(value) for name, value in metrics.items()} == {
        "network/loss": 1.0,
        "network/gradient_norm": 5.0,
        "network/block/gamma_8": 0.25,
    }


def test_apply_gradients_averages_over_devices(state):
    def update(scale):
        gradients = Gradients(jax.tree.map(lambda leaf: scale * jnp.ones_like(leaf), state.params), {}, {}, {})
        return apply_gradients("network", state, gradients, optax.sgd(0.5), AXIS)[0].params["block"]["kernel"]

    found = jax.pmap(update, axis_name=AXIS, devices=several_devices(2))(jnp.array([1.0, 5.0]))
    np.testing.assert_allclose(found, [[1 - 1.5, -2 - 1.5]] * 2)


def test_moving_average_weighs_the_old_by_the_decay():
    found = moving_average({"a": jnp.float32(8.0), "b": jnp.zeros(2)}, {"a": jnp.float32(4.0), "b": jnp.ones(2)}, 0.75)
    assert float(found["a"]) == 7
    np.testing.assert_allclose(found["b"], 0.25)


@pytest.mark.parametrize(
    ("loss", "norm", "kept"), [(1.0, 2.0, "new"), (np.nan, 2.0, "old"), (1.0, np.inf, "old"), (-np.inf, np.nan, "old")]
)
def test_keep_if_finite_keeps_the_old_state_where_a_named_metric_is_not_finite(loss, norm, kept):
    states = {"new": {"a": jnp.float32(1.0), "b": jnp.ones(3)}, "old": {"a": jnp.float32(-1.0), "b": jnp.zeros(3)}}
    metrics = {"loss": jnp.float32(loss), "norm": jnp.float32(norm), "other": jnp.float32(np.nan)}
    found, after = jax.jit(partial(keep_if_finite, names=("loss", "norm")))(states["new"], states["old"], metrics)
    jax.tree.map(np.testing.assert_array_equal, found, states[kept])
    assert bool(after.pop("finite")) == (kept == "new")
    assert after.keys() == metrics.keys()


def test_flatten_metrics_joins_the_path_and_leaves_out_a_last_kernel():
    tree = {"block": {"conv": {"kernel": jnp.float32(1.0)}, "attention_8": {"query_kernel": jnp.float32(2.0)}}}
    assert flatten_metrics("generator/sigma", tree) == {
        "generator/sigma/block/conv": 1.0,
        "generator/sigma/block/attention_8/query_kernel": 2.0,
    }
