"""How near completions come to what was hidden: a trained run's, and those that one would otherwise pick.

    pip install 'sagan-jax[dev]'
    python experiments/benchmarks/inpainting.py --workdir runs/faces_completion_64 --holes centre half_left

Beside the run stand biharmonic inpainting (scikit-image), Telea's and the Navier-Stokes one (OpenCV), which see the one
photograph alone; and, out of the run's own training images, the mean image, and a ridge regression from known to
missing pixels (scikit-learn; principal components first), which is the best that a line through all of them can do.
Its penalty is the one that does best on the last tenth of the training images when fitted on the others; then it is
fitted on all. It needs a hole that is the same in all images.

One Markdown row a method and kind of hole: PSNR, L1 and SSIM inside the hole, means over images.
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

from sagan_jax.cli.checks import check_hole_kind, require_completion
from sagan_jax.cli.completing import load_completer
from sagan_jax.cli.main import explained
from sagan_jax.cli.wiring import open_images
from sagan_jax.data import ImageSource
from sagan_jax.data.masks import draw_masks
from sagan_jax.evaluation.likeness import likeness

PENALTIES = (1e5, 1e6, 3e6, 1e7, 3e7, 1e8)

Fill = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Images `[N, H, W, C]` uint8 and masks `[N, H, W]` to images whose holes are filled, of the same shape and dtype."""


def biharmonic(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Returns the smoothest surface through what is known."""
    filled = [
        inpaint_biharmonic(image, mask, channel_axis=-1) for image, mask in zip(images / 255.0, masks, strict=True)
    ]
    return np.rint(255 * np.clip(filled, 0, 1)).astype(np.uint8)


def opencv(method: int) -> Fill:
    """Returns one of OpenCV's two, over a neighbourhood of three pixels as in its documentation."""

    def fill(images: np.ndarray, masks: np.ndarray) -> np.ndarray:
        return np.stack(
            [cv2.inpaint(image, mask.astype(np.uint8), 3, method) for image, mask in zip(images, masks, strict=True)]
        ).reshape(images.shape)  # OpenCV drops the axis of a single channel

    return fill


def mean_image(train: np.ndarray) -> Fill:
    """Returns the mean of the training images in every hole."""
    mean = np.rint(train.mean(axis=0)).astype(np.uint8)
    return lambda images, masks: np.where(masks[..., None], mean, images)


def ridge(train: np.ndarray, components: int) -> Fill:
    """Returns the regression of missing pixels on the principal components of the known ones, for one hole in all."""

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
    parser.add_argument("--workdir", type=Path, help="of a run that completes images", required=True)
    parser.add_argument("--holes", nargs="+", default=["centre", "half_left"])
    parser.add_argument("--num-images", type=int, default=10**9, help="of the held-out ones; all unless given")
    parser.add_argument("--components", type=int, default=1000)
    parser.add_argument("--methods", nargs="+", help="some of the rows")
    given = parser.parse_args(arguments)
    experiment = require_completion(given.workdir)
    for kind in given.holes:
        check_hole_kind(kind)
    completer = load_completer(given.workdir)
    train, images = read(open_images(experiment), 10**9), read(open_images(experiment, held_out=True), given.num_images)
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
            started = time.perf_counter()
            filled = fill(np.where(masks[..., None], 0, images).astype(np.uint8), masks)
            milliseconds = 1000 * (time.perf_counter() - started) / len(images)
            found = {name: values.mean() for name, values in likeness(filled, images, masks).items()}
            print(
                f"| {kind} | {name} | {found['psnr']:.2f} | {found['l1']:.4f} | {found['ssim']:.3f} "
                f"| {milliseconds:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(explained(lambda: run(sys.argv[1:]), "inpainting"))
