"""Compares completions of a trained run with those of other inpainting methods, by their distance to the original.

    pip install 'sagan-jax[dev]'
    python experiments/benchmarks/inpainting.py --workdir runs/faces_completion_64 --holes centre half_left

The run is compared with biharmonic inpainting (scikit-image) and with Telea's and the Navier-Stokes method (OpenCV),
which see only the one photograph. Two more methods use the run's training images: their mean image, and a ridge
regression from known to missing pixels (scikit-learn, on principal components), which is the best linear method. Its
penalty is the one that does best on the last tenth of the training images after a fit on the others. The final fit uses
all images. Ridge regression needs a hole that is the same in all images.

It prints one Markdown row for each method and kind of hole: PSNR, L1 and SSIM inside the hole, averaged over images.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from skimage.restoration import inpaint_biharmonic
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from sagan_jax.cli.main import explained
from sagan_jax.data import ImageSource
from sagan_jax.data.masks import draw_masks
from sagan_jax.evaluation.completion_quality import reconstruction_quality
from sagan_jax.runs.load import open_completion_run
from sagan_jax.runs.validate import check_hole_kind

PENALTIES = (1e5, 1e6, 3e6, 1e7, 3e7, 1e8)

Fill = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Images `[N, H, W, C]` uint8 and masks `[N, H, W]` to images whose holes are filled, of the same shape and dtype."""


def biharmonic(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Returns images whose holes are filled with the smoothest surface through the known pixels."""
    filled = [
        inpaint_biharmonic(image, mask, channel_axis=-1) for image, mask in zip(images / 255.0, masks, strict=True)
    ]
    return np.rint(255 * np.clip(filled, 0, 1)).astype(np.uint8)


def opencv(method: int) -> Fill:
    """Returns one of OpenCV's two methods, with the radius of three pixels that its documentation uses."""

    def fill(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
        return np.stack(
            [cv2.inpaint(image, mask.astype(np.uint8), 3, method) for image, mask in zip(images, masks, strict=True)]
        ).reshape(images.shape)  # OpenCV drops the axis of a single channel

    return fill


def mean_image(train: np.ndarray) -> Fill:
    """Returns a method that fills every hole with the mean of the training images."""
    mean = np.rint(train.mean(axis=0)).astype(np.uint8)
    return lambda images, masks: np.where(masks[..., None], mean, images)


def ridge(train: np.ndarray, components: int) -> Fill:
    """Returns the ridge regression of missing pixels on principal components of the known ones, for one fixed hole."""

    def fill(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
        hole = masks[0]
        known, missing = (train[:, part].reshape(len(train), -1).astype(np.float32) for part in (~hole, hole))
        pca = PCA(components, svd_solver="covariance_eigh").fit(known)  # pyrefly: ignore[bad-argument-type]
        scores, kept = pca.transform(known), len(train) - len(train) // 10
        errors = {
            alpha: (
                (Ridge(alpha).fit(scores[:kept], missing[:kept]).predict(scores[kept:]) - missing[kept:]) ** 2
            ).mean()
            for alpha in PENALTIES
        }
        alpha = min(errors, key=errors.__getitem__)
        print(f"ridge: {components} components, penalty {alpha:g} out of {PENALTIES}", file=sys.stderr)
        model = Ridge(alpha).fit(scores, missing)
        found = model.predict(pca.transform(images[:, ~hole].reshape(len(images), -1).astype(np.float32)))
        filled = images.copy()
        filled[:, hole] = np.rint(np.clip(found, 0, 255)).reshape(len(images), -1, images.shape[-1])
        return filled

    return fill


def read(source: ImageSource, count: int) -> np.ndarray:
    """Returns the first `count` images of a source."""
    return np.stack([source[index][0] for index in range(min(count, len(source)))])


def run(arguments: list[str]) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, help="workdir of a run that completes images", required=True)
    parser.add_argument("--holes", nargs="+", default=["centre", "half_left"])
    parser.add_argument("--num-images", type=int, default=10**9, help="held-out images to complete; default: all")
    parser.add_argument("--components", type=int, default=1000)
    parser.add_argument("--methods", nargs="+", help="first words of the methods to run; default all")
    given = parser.parse_args(arguments)
    run = open_completion_run(given.workdir)
    for kind in given.holes:
        check_hole_kind(kind)
    completer = run.completer()
    train, images = read(run.images(), 10**9), read(run.images(held_out=True), given.num_images)
    methods: dict[str, Fill] = {
        "biharmonic (scikit-image)": biharmonic,
        "Telea (OpenCV)": opencv(cv2.INPAINT_TELEA),
        "Navier-Stokes (OpenCV)": opencv(cv2.INPAINT_NS),
        "mean image": mean_image(train),
        "ridge regression (scikit-learn)": ridge(train, given.components),
        "the run": completer.complete,
    }
    print(f"{len(images)} photographs that were not trained on; {len(train)} that were\n")
    print("| hole | method | PSNR, dB | L1 | SSIM | ms an image |\n|---|---|---|---|---|---|")
    for kind in given.holes:
        masks = draw_masks(kind, *images.shape[1:3], seed=0, indices=range(len(images)))
        for name, fill in methods.items():
            if (given.methods and name.split()[0] not in given.methods) or (
                name.startswith("ridge") and not (masks == masks[0]).all()
            ):
                continue
            holed = np.where(masks[..., None], 0, images).astype(np.uint8)
            if name == "the run" and kind == given.holes[0]:
                fill(holed, masks)  # compiles, which is not part of the time
            started = time.perf_counter()
            filled = fill(holed, masks)
            milliseconds = 1000 * (time.perf_counter() - started) / len(images)
            quality = reconstruction_quality(filled, images, masks)
            found = {name: values.mean() for name, values in quality.items()}
            print(
                f"| {kind} | {name} | {found['psnr']:.2f} | {found['l1']:.4f} | {found['ssim']:.3f} "
                f"| {milliseconds:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(explained(lambda: run(sys.argv[1:]), "inpainting"))
