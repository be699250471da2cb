"""Writes the statistics of real images to a file that serves as a reference later."""

from collections.abc import Callable, Sequence
from pathlib import Path

from sagan_jax.data import natural_resolution
from sagan_jax.data.columns import ColumnNames
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation import lite0
from sagan_jax.evaluation.evaluator import Evaluator
from sagan_jax.evaluation.protocols import Protocol, parse_protocol
from sagan_jax.evaluation.statistics_files import is_statistics_file, write_statistics
from sagan_jax.runs.evaluators import evaluator_of_reference
from sagan_jax.runs.protocol_choice import print_to_stderr
from sagan_jax.runtime.progress import ProgressCallback


def save_statistics_of_images(
    reference: str,
    path: Path,
    names: Sequence[str] = (),
    *,
    inception_weights: str = "",
    dinov2_weights: str = "",
    resolution: int = 0,
    max_images: int = 0,
    label_column: str = "",
    image_column: str = "",
    batch_size: int = 100,
    cache: str = "auto",
    notify: Callable[[str], None] = print_to_stderr,
    progress: ProgressCallback | None = None,
) -> None:
    """Writes the statistics of the features of images to a file.

    Args:
        reference: the real images.
        path: the .npz file to write.
        names: protocols. The first Fréchet distance among them decides the features. Defaults to features of the FID
            network if it is available, else of EfficientNet-Lite0, else to random features.
        inception_weights: as for `scores_of_images`.
        dinov2_weights: as for `scores_of_images`.
        resolution: as for `scores_of_images`. Defaults to the shorter side of the first image.
        max_images: as for `scores_of_images`.
        label_column: as for `sagan_jax.data.open_source`.
        image_column: as for `sagan_jax.data.open_source`.
        batch_size: as for `scores_of_images`.
        cache: as for `scores_of_images`.
        notify: receives a line that says what was written.
        progress: receives the progress.

    Raises:
        InvalidInputError: the images cannot be read, or are statistics themselves.
        StorageError: the file cannot be written.
    """
    protocols = [parse_protocol(name) for name in names]
    columns: ColumnNames = {"label_column": label_column, "image_column": image_column}
    size = 0 if is_statistics_file(reference) else resolution or natural_resolution(reference, **columns)
    evaluator = evaluator_of_reference(
        reference,
        protocols,
        size,
        batch_size,
        inception_weights=inception_weights,
        dinov2_weights=dinov2_weights,
        cache=cache,
        max_images=max_images,
        **columns,
        progress=progress,
    )
    save_reference_statistics(evaluator, protocols, path, notify)


def save_reference_statistics(
    evaluator: Evaluator, protocols: Sequence[Protocol], path: Path, notify: Callable[[str], None]
) -> None:
    """Writes the reference statistics of the first Fréchet distance in `protocols`, or of the default one.

    Args:
        evaluator: the evaluator that has the real images.
        protocols: the protocols that are measured.
        path: the .npz file to write.
        notify: receives a line that says what was written.

    Raises:
        InvalidInputError: there are no images.
        StorageError: the file cannot be written.
    """
    if evaluator.statistics and not evaluator.train:
        raise InvalidInputError(f"--save-statistics needs images; {evaluator.statistics.name} is statistics already.")
    without = "fd5k_train_lite0" if lite0.is_installed() else "fd5k_train_random"
    usual = parse_protocol("fid50k_train" if evaluator.inception else without)
    protocol = next((protocol for protocol in protocols if protocol.kind in ("fid", "fd")), usual)
    evaluator.check(protocol, 0)
    embedding = evaluator.references.embedding(protocol)
    real = evaluator.references.require_images(protocol)
    write_statistics(path, evaluator.references.moments(protocol), embedding)
    notify(f"statistics of the {embedding.name} features of {real.source.description} in {path}")
