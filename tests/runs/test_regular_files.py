"""No reader waits for a pipe or reads a device without end: every file that is read is regular and of bounded size."""

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sagan_jax.config import Experiment, to_dict
from sagan_jax.data import open_source
from sagan_jax.errors import SaganError
from sagan_jax.evaluation.array_cache import cached
from sagan_jax.evaluation.inception import read_inception
from sagan_jax.interop.pytorch import read_pth
from sagan_jax.interop.weight_files import read_arrays
from sagan_jax.runs.attention_figures import _read_image
from sagan_jax.runs.experiments import load_experiment
from sagan_jax.runs.photographs import _read
from sagan_jax.runs.saved_config import read_experiment
from sagan_jax.runtime.checkpoints import Checkpoints, read_sealed_meta
from sagan_jax.runtime.environment import write_run_files
from sagan_jax.runtime.lock import WorkdirLock
from sagan_jax.runtime.manifest import MANIFEST, read_manifest
from sagan_jax.runtime.metrics_log import MetricsWriter, read_metrics
from sagan_jax.views.report import report_page

pytestmark = pytest.mark.one_jax


def lock(workdir: Path) -> None:
    with WorkdirLock(workdir):
        pass


def write_metrics(workdir: Path) -> None:
    with MetricsWriter(workdir, first_step=5):
        pass


# Each reader, by the file in its folder that the tests replace.
READERS = {
    "config.json": lambda folder: read_experiment(folder),
    "config.json of a report": lambda folder: report_page(folder),
    "environment.json": lambda folder: report_page(folder),
    "metrics.jsonl of a report": lambda folder: report_page(folder),
    "metrics.jsonl": lambda folder: read_metrics(folder / "metrics.jsonl"),
    "metrics.jsonl that is gone on with": write_metrics,
    "scores/fid-00000005.json": lambda folder: report_page(folder),
    "samples/samples-00000005.png": lambda folder: report_page(folder),
    "attention/generator-0.png": lambda folder: report_page(folder),
    ".lock": lock,
    MANIFEST: lambda folder: read_manifest(folder),
    "checkpoints/7/meta/metadata": lambda folder: read_sealed_meta(folder / "checkpoints"),
    "checkpoints/7/meta/metadata of a restore": lambda folder: Checkpoints(folder / "checkpoints").restore(STATE),
    "weights.npz": lambda folder: read_arrays(folder / "weights.npz"),
    "weights.npz of the FID network": lambda folder: read_inception(folder / "weights.npz"),
    "weights.safetensors": lambda folder: read_arrays(folder / "weights.safetensors"),
    "weights.pth": lambda folder: read_pth(folder / "weights.pth"),
    "experiment.py": lambda folder: load_experiment(str(folder / "experiment.py")),
    "photo.png": lambda folder: _read(folder / "photo.png", 3, "photograph"),
    "photo.png for D": lambda folder: _read_image(folder / "photo.png", Experiment()),
    "images/0.png": lambda folder: open_source(str(folder / "images"), resolution=32, cache="")[0],
    "images/dataset.json": lambda folder: open_source(str(folder / "images"), resolution=32, cache="")[0],
    **{
        f"images.{suffix}": lambda folder, suffix=suffix: open_source(str(folder / f"images.{suffix}"), resolution=32)
        for suffix in ("npz", "npy", "zip", "parquet")
    },
}
STATE = {"weight": np.zeros(2, np.float32)}

KINDS = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "socket or folder": lambda path: path.mkdir(),
    "broken link": lambda path: path.symlink_to("nowhere"),
    "huge": lambda path: path.touch() or os.truncate(path, 2**42),
}
# These are mapped, or not read whole. Their size depends on the networks and the data.
MAY_BE_HUGE = ("checkpoints/", "images.", "experiment.py", ".lock")


@pytest.fixture(autouse=True)
def alarm():
    """Fails a test that waits for a pipe or reads without end."""

    def fail(*given):
        raise TimeoutError("still reading after 20 seconds")

    former = signal.signal(signal.SIGALRM, fail)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, former)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    write_run_files(folder, to_dict(Experiment()))
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(7, STATE, {"experiment": to_dict(Experiment())})
    with MetricsWriter(folder, first_step=0) as writer:
        writer.scalars(5, {"generator/loss": 1.0})
    (folder / "images").mkdir()
    for number in range(3):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(folder / "images" / f"{number}.png")
    return folder


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reader", READERS)
def test_file_of_another_kind_is_refused_or_passed_over(reader, kind, whole, tmp_path):
    if kind == "huge" and reader.startswith(MAY_BE_HUGE):
        pytest.skip("its size is that of the data")
    shutil.copytree(whole, tmp_path / "run")
    path = tmp_path / "run" / reader.partition(" ")[0]
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    KINDS[kind](path)
    before = path.lstat()
    try:
        READERS[reader](tmp_path / "run")
    except SaganError as error:
        line = str(error)
        assert "\n" not in line
    else:
        assert reader.startswith(
            (".", "metrics", "samples", "attention", "scores", "environment", "config", "ch", "im")
        )
    if reader != ".lock" and os.path.lexists(path):
        assert (path.lstat().st_ino, path.lstat().st_size) == (before.st_ino, before.st_size)


def test_lock_does_not_empty_the_file_that_a_link_names(tmp_path):
    (tmp_path / "precious").write_text("kept")
    (tmp_path / ".lock").symlink_to("precious")
    with pytest.raises(SaganError, match="--workdir needs a writable folder"):
        lock(tmp_path)
    assert (tmp_path / "precious").read_text() == "kept"


@pytest.mark.parametrize("kind", KINDS)
def test_cached_array_of_another_kind_is_computed_again(kind, tmp_path):
    def stored():
        return cached(tmp_path, ("key",), lambda: {"a": np.arange(3)})["a"].tolist()

    assert stored() == [0, 1, 2]
    (path,) = tmp_path.glob("*.npz")
    path.unlink()
    KINDS[kind](path)
    assert stored() == [0, 1, 2]


@pytest.mark.parametrize("kind", ["pipe", "device", "huge"])
@pytest.mark.parametrize("suffix", ["npy", "ledger.npz", "lock", "npy.tmp", "ledger.npz.tmp"])
def test_cached_images_of_another_kind_are_decoded_again(suffix, kind, whole, tmp_path):
    def first_pixel():
        return int(open_source(str(whole / "images"), resolution=32, cache=str(tmp_path))[2][0][0, 0, 0])

    assert first_pixel() == 2
    (array,) = tmp_path.glob("*.npy")
    path = tmp_path / f"{array.stem}.{suffix}"
    path.unlink(missing_ok=True)
    if suffix.endswith("tmp") or suffix == "lock":
        array.unlink()  # so that it is written again
    KINDS[kind](path)
    assert first_pixel() == 2
