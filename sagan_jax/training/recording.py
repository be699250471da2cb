"""What a run leaves beside its checkpoints: metrics, pictures, its config and its environment; and what it shows."""

import contextlib
import importlib.metadata
import io
import json
import math
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import jax
import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Column
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyrefly: ignore[missing-module-attribute]
from tensorboardX.proto.summary_pb2 import Summary  # pyrefly: ignore[missing-module-attribute]

import sagan_jax
from sagan_jax.errors import InvalidInputError, StorageError

_SETTINGS = (
    "jax_enable_x64",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_default_matmul_precision",
)
_PACKAGES = ("sagan-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path} could not be written: {error.strerror or error}") from error


def write_atomically(path: str | Path, content: bytes) -> None:
    """Writes a file whole or not at all, through a temporary name beside it; makes the folders above.

    Args:
        path: replaced if it exists; after a failure it is as it was.
        content: all of the file.

    Raises:
        StorageError: when the disk refused.
    """
    write_together(Path(path).parent, {Path(path).name: content})


def write_together(folder: str | Path, contents: Mapping[str, bytes]) -> None:
    """Writes files that belong together: none takes its name before all of them are on the disk.

    Args:
        folder: made where there is none, with those above it.
        contents: names to all of each file; one that exists is replaced, and after a failure is as it was.

    Raises:
        StorageError: when the disk refused.
    """
    folder = Path(folder)
    temporaries = {folder / name: folder / f".{name}.{os.getpid()}.tmp" for name in contents}
    with _disk(folder / ", ".join(contents)):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            for temporary, content in zip(temporaries.values(), contents.values(), strict=True):
                temporary.write_bytes(content)
            for path, temporary in temporaries.items():
                temporary.replace(path)
        finally:
            for temporary in temporaries.values():
                temporary.unlink(missing_ok=True)


def save_png(path: str | Path, image: np.ndarray) -> None:
    """Writes a PNG, whole or not at all.

    Args:
        path: replaced if it exists; the folders above are made.
        image: `[H, W, C]` uint8, C 1 (grey) or 3 (RGB).

    Raises:
        InvalidInputError: for another dtype or shape.
        StorageError: when the disk refused.
    """
    write_atomically(path, encode_png(image))


def encode_png(image: np.ndarray) -> bytes:
    """Returns the content of a PNG file.

    Args:
        image: `[H, W, C]` uint8, C 1 (grey) or 3 (RGB).

    Raises:
        InvalidInputError: for another dtype or shape.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3) or not image.size:
        raise InvalidInputError(
            f"A PNG needs an image [H, W, 1 or 3] of uint8; got {list(image.shape)} of {image.dtype}."
        )
    encoded = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(encoded, format="PNG")
    return encoded.getvalue()


def save_animation(path: str | Path, frames: Sequence[np.ndarray], *, milliseconds: int = 90) -> None:
    """Writes an animation that repeats for ever, whole or not at all.

    Args:
        path: .gif or .webp; replaced if it exists.
        frames: at least one, each `[H, W, C]` uint8 of one shape, C 1 or 3.
        milliseconds: that each is shown.

    Raises:
        StorageError: when the disk refused.
    """
    pictures = [Image.fromarray(np.broadcast_to(frame, (*frame.shape[:2], 3))) for frame in frames]
    encoded = io.BytesIO()
    kind = "GIF" if Path(path).suffix.lower() == ".gif" else "WEBP"
    pictures[0].save(encoded, kind, save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0)
    write_atomically(path, encoded.getvalue())


def _kept_lines(content: bytes, last_step: int) -> bytes:
    """Returns the lines that can be read and whose step is not above `last_step`, each with its end of line."""
    kept = []
    for line in content.split(b"\n"):
        with contextlib.suppress(ValueError, TypeError, KeyError):
            if json.loads(line)["step"] <= last_step:
                kept.append(line + b"\n")
    return b"".join(kept)


class Recorder:
    """Writes the metrics and pictures of a run, as a context manager; where there are processes, in the first only.

        with Recorder(workdir, first_step=0) as recorder:
            recorder.scalars(100, {"generator/loss": 0.5})
            recorder.image("samples", 1000, grid)

    `metrics.jsonl` gets one JSON object a line, on disk when the call returns; `tensorboard/` the same.
    What an interrupted run wrote after the step it is resumed from is taken away on opening, and so is a last line
    that was torn: steps never go back.

    Args:
        workdir: made if it is not there.
        first_step: the step that the state is at: 0 at the start, the restored step after a stop.

    Raises:
        StorageError: from any method, when the disk refused.
    """

    def __init__(self, workdir: str | Path, *, first_step: int) -> None:
        self._workdir = Path(workdir)
        path = self._metrics_path = self._workdir / "metrics.jsonl"
        with _disk(path):
            self._workdir.mkdir(parents=True, exist_ok=True)
            content = path.read_bytes() if path.exists() else b""
        kept = _kept_lines(content, first_step)
        if kept != content:
            write_atomically(path, kept)
        folder = self._workdir / "tensorboard"
        with _disk(folder):
            folder.mkdir(exist_ok=True)
            # Not `SummaryWriter`: its thread dies of a full disk unheard, and the run then waits for it for ever.
            # Its names differ by the second only, and it empties a file that is there: hence the suffix.
            self._events = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
        # Tells TensorBoard to forget the steps that will be done again.
        self._write_event(first_step + 1, session_log=SessionLog(status=SessionLog.START))
        with _disk(path):
            self._metrics = path.open("a", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            with _disk(self._workdir), contextlib.closing(self._events):
                self._metrics.close()
        except StorageError:
            # After another error that one is to be heard; each call has flushed what it wrote.
            if error is None:
                raise

    def _write_event(self, step: int, **content: Any) -> None:
        with _disk(self._workdir / "tensorboard"):
            self._events.write_event(Event(wall_time=time.time(), step=step, **content))
            self._events.flush()

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """Appends the values of a step; what is not finite becomes null in the JSON and is left out of TensorBoard.

        Args:
            step: above the steps before.
            values: numbers, or arrays of one, by name such as `generator/loss`.

        Raises:
            StorageError: when the disk refused.
        """
        numbers = {name: float(value) for name, value in values.items()}
        finite = {name: number for name, number in numbers.items() if math.isfinite(number)}
        line = {"step": int(step), **{name: finite.get(name) for name in numbers}}
        with _disk(self._metrics_path):
            self._metrics.write(json.dumps(line, allow_nan=False) + "\n")
            self._metrics.flush()
        points = [Summary.Value(tag=name, simple_value=number) for name, number in finite.items()]
        self._write_event(int(step), summary=Summary(value=points))

    def image(self, name: str, step: int, image: np.ndarray) -> None:
        """Writes `samples/<name>-<step>.png`, the step in eight digits, and the same to TensorBoard.

        Args:
            name: the stem of the file.
            step: the step of the state that drew it.
            image: `[H, W, C]` uint8, C 1 or 3.

        Raises:
            InvalidInputError: for another dtype or shape.
            StorageError: when the disk refused.
        """
        save_png(self._workdir / "samples" / f"{name}-{step:08d}.png", image)
        self._write_event(int(step), summary=summary.image(name, image, dataformats="HWC"))


def what_decides_the_bits() -> dict[str, Any]:
    """Returns the versions, devices, threads and settings: where all are the same, a run repeats bit for bit.

    On a CPU the number of threads counts, which `PJRT_NPROC` or `NPROC` pins.
    """
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
        "device_kind": jax.devices()[0].device_kind,
        "device_count": jax.device_count(),
        "process_count": jax.process_count(),
        "threads": os.environ.get("PJRT_NPROC") or os.environ.get("NPROC") or str(_cpus()),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS"),
        **{name: getattr(jax.config, name) for name in _SETTINGS},
    }


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def write_run_files(workdir: str | Path, experiment: Mapping[str, Any]) -> None:
    """Writes `config.json` and `environment.json`: what was asked of a run, and what it runs on.

    The environment is `what_decides_the_bits`, the git revision of the package and whether its files differ from that
    (both null outside a checkout), the command, and the folder that its relative paths are meant from.

    Args:
        workdir: made if it is not there.
        experiment: the resolved config, of JSON values.

    Raises:
        StorageError: when the disk refused.
    """
    revision = _revision(Path(sagan_jax.__file__).parent)
    environment = what_decides_the_bits() | revision | {"argv": sys.argv, "folder": _folder()}
    for name, document in (("config.json", experiment), ("environment.json", environment)):
        write_atomically(Path(workdir) / name, (json.dumps(document, indent=2) + "\n").encode())


def _folder() -> str | None:
    """Returns the folder that the process is in, or None where it was removed."""
    try:
        return str(Path.cwd())
    except OSError:
        return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _revision(folder: Path) -> dict[str, str | bool | None]:
    """Returns the commit of the checkout that tracks `folder`; a package in somebody else's checkout has none."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, check=True, text=True, timeout=20).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")
        return {"git_revision": git("rev-parse", "HEAD"), "git_dirty": bool(git("status", "--porcelain", "."))}
    except (OSError, subprocess.SubprocessError):
        return {"git_revision": None, "git_dirty": None}


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


class Progress:
    """Shows how far a run is, as a context manager: a bar on a terminal, else one plain line an update.

        with Progress(1000, 0) as progress:
            progress.update(100, {"generator/loss": 0.5, "generator/gamma_32": 0.01}, 312.0)

    Args:
        total_steps: the step at which the run ends.
        first_step: the step that it starts from.
        file: where to; standard error by default.
        clock: seconds, for the time left, which is counted from the first update on so that compilation is left out.
    """

    def __init__(
        self,
        total_steps: int,
        first_step: int,
        *,
        file: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total_steps = total_steps
        # Read here, not as a default: by then it may have been replaced.
        self._file = sys.stderr if file is None else file
        self._clock = clock
        self._start = (clock(), first_step)
        self._updated = False
        self._bar = None
        if self._file.isatty():
            self._bar = RichProgress(
                BarColumn(bar_width=20),
                TextColumn("{task.description}", markup=False, table_column=Column(overflow="fold")),
                console=Console(file=self._file),
            )
            self._task = self._bar.add_task("starting", total=total_steps, completed=first_step)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, step: int, metrics: Mapping[str, float], images_per_second: float) -> None:
        """Shows a step: how many are done, speed, time left, and of the metrics the losses and the gammas.

        Args:
            step: the step just done.
            metrics: by name; shown are `discriminator/loss`, `generator/loss` and what ends in `gamma_<resolution>`.
            images_per_second: over all devices.
        """
        text = self._text(step, metrics, images_per_second)
        if self._bar is None:
            print(text, file=self._file, flush=True)
        else:
            self._bar.update(self._task, completed=step, description=text)

    def _text(self, step: int, metrics: Mapping[str, float], images_per_second: float) -> str:
        now = self._clock()
        start, first_step = self._start
        left = (now - start) / max(step - first_step, 1) * max(self._total_steps - step, 0)
        if not self._updated:
            self._start, self._updated = (now, step), True
        words = [f"step {step}/{self._total_steps}", f"{images_per_second:.1f} images/s", f"{_duration(left)} left"]
        for name, value in metrics.items():
            if name.endswith("/loss") or re.search(r"gamma_\d+$", name):
                words.append(f"{name} {float(value):.4f}")
        return "  ".join(words)
