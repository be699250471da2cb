"""Each form of the step replaces one part by another form, which computes the same."""

import json
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest

from sagan_jax.functional import convolution
from sagan_jax.models import layers
from sagan_jax.runs.build import build_adversarial_task
from sagan_jax.training.adversarial import Batch, initial_state, step
from support.assertions import refusal
from support.programs import BENCHMARKS, load_program

pytestmark = pytest.mark.one_jax


@pytest.fixture(scope="module")
def program():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield load_program(BENCHMARKS / "step_parts.py")


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def outputs():
    """Returns the outputs of the three functions that a form may replace."""
    features, kernel = drawn(2, 6, 4, 3), drawn(3, 3, 3, 5, seed=1)
    mean, scale, shift = (drawn(3, seed=seed) for seed in (2, 3, 4))
    return (
        layers.upsample_convolve(features, kernel, precision="highest"),
        layers.convolve_pool(features, kernel, precision="highest"),
        layers.normalize(features, mean, scale**2, scale, shift, epsilon=1e-3),
    )


def test_every_form_computes_the_same_and_is_undone(program):
    functions = layers.upsample_convolve, layers.convolve_pool, layers.normalize, convolution._has_patches
    expected = outputs()
    replaced = []
    for form in program.FORMS:
        with program.with_form(form):
            now = layers.upsample_convolve, layers.convolve_pool, layers.normalize, convolution._has_patches
            replaced.append([new is not old for new, old in zip(now, functions, strict=True)])
            for one, other in zip(outputs(), expected, strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    assert replaced == [
        [False] * 4,
        [True, True, False, False],
        [False, False, False, True],
        [False, False, True, False],
        [False] * 4,
        [False] * 4,
    ]
    assert (layers.upsample_convolve, layers.convolve_pool, layers.normalize) == functions[:3]


def test_one_batch_for_d_has_the_losses_and_gradients_of_two(program):
    work = program.Work(resolution=32, width=2, batch=3, classes=5)
    task = replace(build_adversarial_task(program.experiment_of(work, "float32")), augmentation=("color", "cutout"))
    state = initial_state(task, 0, (32, 32, 3))
    batch = Batch(drawn(1, 3, 32, 32, 3).clip(-1, 1), np.array([[4, 0, 2]], np.int32))

    def taken():
        traced = jax.jit(partial(step, task)).trace(state, batch)
        metrics = traced.lower().compile()(state, batch)[1]
        return str(traced.jaxpr).count(" conv_general_dilated"), metrics

    convolutions, expected = taken()
    with program.with_form("D on real and generated images as one batch"):
        fewer, metrics = taken()
    assert fewer < convolutions
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_gradients_of_xla_have_no_loop_over_images(program):
    features, kernel = drawn(2, 6, 4, 3), drawn(2, 2, 3, 5, seed=1)

    def program_text():
        gradient = jax.grad(lambda kernel: convolution.convolve(features, kernel).sum())
        return str(jax.make_jaxpr(gradient)(kernel))

    assert "scan" in program_text()
    with program.with_form("XLA's gradients of all kernels"):
        assert "scan" not in program_text()


def test_table_has_the_ratio_of_each_round(program, monkeypatch, tmp_path, capsys):
    seconds = {form: iter([1.0, 1.0, 2.0, 4.0]) for form in program.FORMS}
    seconds["batch norm in two steps"] = iter([1.0, 3.0, 3.0, 8.0])

    def compiled_step(work, precision, form):
        return lambda steps: next(seconds[form]), {"flops": 2e9, "temporary_bytes": 3 * 2**20}

    monkeypatch.setattr(program, "compiled_step", compiled_step)
    program.run(["--quick", "--out", str(tmp_path / "parts.json")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("**quick**: 32 px, width 2, batch 4, float32, jax ")
    assert "| batch norm in two steps | 5500 | 1.75 | 1.62 to 1.88 | 2.00 | 3.00 |" in lines
    assert "| the step as it is | 3000 | 1.00 |  | 2.00 | 3.00 |" in lines
    assert json.loads((tmp_path / "parts.json").read_text())["rows"]["quick"]["work"]["width"] == 2
    program.run(["--tables", str(tmp_path / "parts.json")])
    assert capsys.readouterr().out.splitlines() == lines


def test_bad_flags_are_refused_in_one_line(program):
    assert refusal(program.run, ["--rounds", "0"]) == "--rounds needs at least 1; got 0."
    assert refusal(program.run, ["--row", "1-2-3"]).startswith("--row needs to be one of 128-64-8, ")
