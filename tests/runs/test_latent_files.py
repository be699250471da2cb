"""Files of latents: what is read from them, and what is refused in one line."""

import os

import numpy as np
import pytest

from sagan_jax.runs.latent_files import Latents, latent_content, read_latents
from support.assertions import refusal

pytestmark = pytest.mark.one_jax

LATENTS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
LABELS = np.array([2, 0, 1, 2])


def saved(folder, **arrays):
    path = folder / "z.npz"
    np.savez(path, **arrays)
    return path


def test_array_file_holds_latents_alone(tmp_path):
    np.save(tmp_path / "z.npy", LATENTS)
    latents, labels = read_latents(tmp_path / "z.npy", 3)
    assert labels is None
    assert np.array_equal(latents, LATENTS)


@pytest.mark.parametrize("name", ["latents", "arr_0", "z", "anything"])
def test_archive_holds_latents_under_a_usual_name_or_alone(name, tmp_path):
    assert np.array_equal(read_latents(saved(tmp_path, **{name: LATENTS}), 3).latents, LATENTS)


def test_content_that_is_written_is_read_again(tmp_path):
    (tmp_path / "z.npz").write_bytes(latent_content(Latents(LATENTS, LABELS)))
    latents, labels = read_latents(tmp_path / "z.npz", 3)
    assert np.array_equal(latents, LATENTS)
    assert np.array_equal(labels, LABELS)


def test_wider_latents_are_read_as_float32(tmp_path):
    latents = read_latents(saved(tmp_path, latents=LATENTS.astype(np.float64)), 3).latents
    assert latents.dtype == np.float32
    assert np.array_equal(latents, LATENTS)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (
            {"latents": LATENTS.T},
            "needs latents [N, 3] of float32, as the generator takes them; got float32 [3, 4]. Is",
        ),
        ({"latents": LATENTS[0]}, "got float32 [3]. Is it one latent? Save latents[None]."),
        ({"latents": LATENTS[:0]}, "got float32 [0, 3]"),
        ({"latents": LATENTS.astype(int)}, "got int64 [4, 3]"),
        ({"latents": np.full_like(LATENTS, np.inf)}, "needs finite latents; 12 are not"),
        ({"latents": np.full((4, 3), 1e300)}, "needs finite latents; 12 are not"),
        (
            {"latents": LATENTS, "labels": LABELS[:3]},
            "needs labels [4] of integers, one for each latent; got int64 [3]",
        ),
        ({"latents": LATENTS, "labels": LABELS + 0.5}, "got float64 [4]"),
        ({"a": LATENTS, "b": LATENTS}, "needs the latents as an array `latents`; it has ['a', 'b']"),
        ({"latents": np.array([None])}, "Object arrays cannot be loaded"),
    ],
)
def test_archive_with_something_else_is_refused(arrays, said, tmp_path):
    assert said in refusal(read_latents, saved(tmp_path, **arrays), 3)


@pytest.mark.parametrize("name", ["z.npy", "z.npz"])
def test_file_that_is_no_array_is_refused(name, tmp_path):
    (tmp_path / name).write_bytes(b"no array")
    assert f"{name}' as latents, an .npy or .npz file of plain arrays" in refusal(read_latents, tmp_path / name, 3)


def test_file_that_is_cut_short_is_refused(tmp_path):
    np.save(tmp_path / "z.npy", LATENTS)
    (tmp_path / "z.npy").write_bytes((tmp_path / "z.npy").read_bytes()[:-5])
    assert "Cannot read" in refusal(read_latents, tmp_path / "z.npy", 3)


def test_file_that_is_absent_or_a_pipe_is_refused(tmp_path):
    assert "There is no file of latents" in refusal(read_latents, tmp_path / "none.npy", 3)
    os.mkfifo(tmp_path / "pipe.npy")
    assert "needs to be a regular file" in refusal(read_latents, tmp_path / "pipe.npy", 3)
