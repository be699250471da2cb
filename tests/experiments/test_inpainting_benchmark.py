"""The baselines of completions fill holes as documented."""

import subprocess
import sys

import cv2
import numpy as np
import pytest

from support.programs import BENCHMARKS, load_program

pytestmark = pytest.mark.one_jax

PROGRAM = BENCHMARKS / "inpainting.py"
SIZE = 16


@pytest.fixture(scope="module")
def program():
    return load_program(PROGRAM)


@pytest.fixture
def masks():
    masks = np.zeros((3, SIZE, SIZE), bool)
    masks[:, 5:11, 4:9] = True
    return masks


@pytest.mark.parametrize("name", ["biharmonic", "telea", "navier_stokes"])
def test_smooth_fillings_go_on_with_a_slope(program, masks, name):
    fill = {
        "biharmonic": program.biharmonic,
        "telea": program.opencv(cv2.INPAINT_TELEA),
        "navier_stokes": program.opencv(cv2.INPAINT_NS),
    }[name]
    rows, columns = np.mgrid[:SIZE, :SIZE]
    images = np.stack([np.stack([20 + 9 * rows, 20 + 9 * columns, 100 + 0 * rows], -1)] * 3).astype(np.uint8)
    filled = fill(np.where(masks[..., None], 0, images).astype(np.uint8), masks)
    assert filled.dtype == np.uint8
    assert np.array_equal(filled[~masks], images[~masks])
    error = abs(filled.astype(int) - images)[masks]
    assert error.max() <= (1 if name == "biharmonic" else 40)
    assert error.mean() < 15


def test_mean_image_is_that_of_the_training_images(program, masks):
    train = np.random.default_rng(0).integers(0, 256, (20, SIZE, SIZE, 3), np.uint8)
    images = np.zeros((3, SIZE, SIZE, 3), np.uint8)
    filled = program.mean_image(train)(images, masks)
    np.testing.assert_allclose(filled[masks], np.tile(train.mean(axis=0)[masks[0]], (3, 1)), atol=0.51)
    assert not filled[~masks].any()


def test_ridge_finds_what_a_line_can_say(program, masks, capsys):
    # An image is a linear function of six numbers, and every known part depends on all of them.
    numbers = np.random.default_rng(1)
    basis = numbers.normal(size=(6, SIZE, SIZE, 3))
    made = 128 + 12 * np.tensordot(numbers.normal(size=(203, 6)), basis, axes=1)
    images = np.clip(np.rint(made), 0, 255).astype(np.uint8)
    filled = program.ridge(images[:200], 6)(np.where(masks[..., None], 0, images[200:]).astype(np.uint8), masks)
    assert np.array_equal(filled[~masks], images[200:][~masks])
    assert abs(filled.astype(int) - images[200:])[masks].mean() < 1.5
    assert "penalty 100000 " in capsys.readouterr().err


@pytest.mark.parametrize("name", ["biharmonic", "telea", "mean"])
def test_grey_images_are_filled_as_colour_images_of_that_grey(program, masks, name):
    grey = np.random.default_rng(2).integers(0, 256, (3, SIZE, SIZE, 1), np.uint8)
    colour = grey.repeat(3, axis=-1)
    telea = program.opencv(cv2.INPAINT_TELEA)
    filled, expected = {
        "biharmonic": lambda: (program.biharmonic(grey, masks), program.biharmonic(colour, masks)),
        "telea": lambda: (telea(grey, masks), telea(colour, masks)),
        "mean": lambda: (program.mean_image(grey)(grey, masks), program.mean_image(colour)(colour, masks)),
    }[name]()
    assert filled.shape == grey.shape
    assert (filled[masks] != grey[masks]).mean() > 0.5
    assert np.array_equal(filled, expected[..., :1])


@pytest.mark.slow
def test_what_is_no_run_is_said_in_one_line(tmp_path):
    command = [sys.executable, str(PROGRAM), "--workdir", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("inpainting: There is no run in ")
