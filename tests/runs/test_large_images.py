"""A run at 512 pixels: trained, sampled and scored."""

import numpy as np
import pytest

from support.commands import command
from support.images import smooth_images

pytestmark = pytest.mark.release


def test_run_of_512_pixels_is_trained_sampled_and_scored(tmp_path, capsys):
    np.save(tmp_path / "images.npy", smooth_images(20, 512))
    run = tmp_path / "run"
    flags = ["--source", tmp_path / "images.npy", "--resolution", "512", "--num-classes", "0", "--base-channels", "1"]
    flags += ["--latent-size", "5", "--batch-size", "4", "--total-steps", "1", "--cache", ""]
    flags += ["--generator-attention-resolutions", "32", "--discriminator-attention-resolutions", "32"]
    assert command("train", "imagenet_128", *flags, "--workdir", run) == 0
    assert command("sample", "--workdir", run, "--num-images", "2", "--out", tmp_path / "samples.npz") == 0
    images = np.load(tmp_path / "samples.npz")["arr_0"]
    assert (images.shape, images.dtype) == ((2, 512, 512, 3), np.uint8)
    capsys.readouterr()
    assert command("evaluate", "--workdir", run, "--protocol", "fd20_train_random") == 0
    assert capsys.readouterr().out.startswith("fd20_train_random ")
