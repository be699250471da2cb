"""Checkpoints of a run: orbax on local disk, with digests that are verified when a state is restored."""

import contextlib
import functools
import hashlib
import json
import logging
import os
import re
import shutil
import stat
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from sagan_jax.errors import InvalidInputError, StorageError
from sagan_jax.runtime.devices import require_backend
from sagan_jax.runtime.files import disk_errors, read_json

Tree = Any

_FORMAT = 1
_START_AGAIN = "Restore a backup, or start again with --fresh or in an empty workdir."
_OF_INCOMPLETE_STEPS = (
    "Metadata file does not exist",
    "Unable to find the step",
    "Failed to delete file",
    "Error scanning",
)  # the start of orbax's log messages about incomplete steps
_UNFINISHED = re.compile(r"[0-9]+\.orbax-checkpoint-tmp.*")
_MAX_META_BYTES = 100_000_000
_STEP = re.compile(r"0|[1-9][0-9]{0,18}")

# Errors of parsers for invalid bytes. TensorStore raises ValueError for all its errors, prefixed with a status.
_WRONG_CONTENT = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, EOFError)
_WRONG_STRUCTURE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
# A status of a failed read, or the number of a system error other than ENOENT, EISDIR and ENOTDIR.
_FAILED_READING = re.compile(
    r"\A(PERMISSION_DENIED|RESOURCE_EXHAUSTED|UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|CANCELLED)\b"
    r"|\[os_error_code='(?!(2|20|21)')"
)
# A status, and words that only TensorStore's errors have.
_TENSORSTORE_ERROR = re.compile(r"\A[A-Z_]+: .*(OCDBT database|tensorstore_spec|os_error_code)", re.DOTALL)


def _leaves_by_path(tree: Tree) -> dict[str, Any]:
    """Returns the leaves by path, in the order of `jax.tree.leaves`."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    leaves = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in flat}
    if len(leaves) != len(flat):
        raise InvalidInputError("A state needs a unique path for each leaf; two leaves share one. Is a '/' in a name?")
    return leaves


def _to_host(state: Tree) -> dict[str, np.ndarray]:
    return {path: np.asarray(leaf) for path, leaf in _leaves_by_path(jax.device_get(state)).items()}


def _layout(leaves: dict[str, Any]) -> dict[str, str]:
    """Returns the dtype and shape of each leaf, such as `float32 [3, 4]`."""
    described = {}
    for path, leaf in leaves.items():
        array = leaf if hasattr(leaf, "shape") and hasattr(leaf, "dtype") else np.asarray(leaf)
        described[path] = f"{np.dtype(array.dtype).name} {list(array.shape)}"
    return described


def _template(layout: dict[str, str]) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the leaves that `_layout` describes, without their values."""
    parts = {path: described.split(" ", 1) for path, described in layout.items()}
    return {path: jax.ShapeDtypeStruct(json.loads(shape), np.dtype(dtype)) for path, (dtype, shape) in parts.items()}


def _digest(leaves: dict[str, np.ndarray]) -> str:
    sha256 = hashlib.sha256()
    for path, layout in _layout(leaves).items():
        sha256.update(f"{path}\0{layout}\0".encode())
        sha256.update(np.ascontiguousarray(leaves[path]).reshape(-1).view(np.uint8).data)
    return sha256.hexdigest()


def state_digest(state: Tree) -> str:
    """Returns the sha256 of a state: the path, dtype, shape and bytes of every leaf, in order.

    Two states have the same digest when they are bitwise equal, on any device. `None` and empty dictionaries have no
    leaves and do not count. -0.0 differs from 0.0, and float32 from float64.

    Args:
        state: a pytree of arrays and Python numbers. For typed PRNG keys, pass `jax.random.key_data`.

    Returns:
        64 hexadecimal digits.

    Raises:
        InvalidInputError: when two leaves have the same path.

    Examples:
        >>> import numpy as np
        >>> state_digest({"a": np.zeros(3)}) == state_digest({"a": np.zeros(3), "b": None})
        True
    """
    return _digest(_to_host(state))


def _with_seal(document: dict[str, Any]) -> dict[str, Any]:
    """Returns the document with a digest of its own content, which also detects damage to step and meta."""
    content = {key: value for key, value in document.items() if key != "seal"}
    seal = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return {**content, "seal": seal}


def read_sealed_meta(directory: str | Path) -> tuple[int, dict[str, Any]] | None:
    """Returns the newest step whose meta is valid, with that meta; None if there is none. Arrays are not read.

    A step that is damaged or cannot be read is skipped without a message; `Checkpoints.restore` reports it. No jax
    backend is needed.

    Args:
        directory: the folder of the steps; it need not exist.
    """
    try:
        names = [path.name for path in Path(directory).iterdir()]
    except OSError:
        return None
    for step in sorted((int(name) for name in names if _STEP.fullmatch(name)), reverse=True):
        with contextlib.suppress(OSError, ValueError, RecursionError):
            document = read_json(Path(directory, str(step), "meta", "metadata"), _MAX_META_BYTES)
            if isinstance(document, dict) and document == _with_seal(document) and document.get("step") == step:
                meta = document.get("meta")
                return (step, meta) if isinstance(meta, dict) else None
    return None


def _reason(error: BaseException) -> str:
    """Returns the first line of an error. A long line is cut in the middle, because TensorStore puts the cause last."""
    line = next(iter(str(error).strip().splitlines()), "no message")
    return f"{type(error).__name__}: {line if len(line) <= 240 else f'{line[:120]} ... {line[-115:]}'}"


def _is_damage(error: BaseException) -> bool:
    """Returns whether an error means that the files of a step are damaged, rather than that reading them failed."""
    if isinstance(error, OSError):
        return isinstance(error, _WRONG_STRUCTURE)
    return isinstance(error, _WRONG_CONTENT) and not _FAILED_READING.search(str(error))


def _read_every_file(folder: Path) -> None:
    """Reads all files in a folder and its subfolders completely.

    This raises the system's own errors before orbax reads the files. For a folder without read permission, orbax
    raises a misleading FileNotFoundError.

    Raises:
        OSError: when a file or a folder cannot be read.
        ValueError: when one is neither a file nor a folder. Reading a pipe would wait forever.
    """

    def fail(error: OSError) -> None:
        raise error

    for parent, _, names in os.walk(folder, onerror=fail):
        for path in (Path(parent, name) for name in names):
            if not stat.S_ISREG(path.stat().st_mode):
                raise ValueError(f"{path.relative_to(folder)} is not a regular file")
            with path.open("rb", buffering=0) as file:
                while file.read(1 << 24):
                    pass


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """Returns False for log messages of orbax about errors that it also raises, and about incomplete or removed steps.

    We report the errors in one line, and the next save removes incomplete steps.
    """
    if "/orbax/" not in Path(record.pathname).as_posix():
        return True
    return record.levelno < logging.ERROR and not str(record.msg).startswith(_OF_INCOMPLETE_STEPS)


def _is_not_left_by_orbax(record: logging.LogRecord) -> bool:
    """Returns False for asyncio's log messages about further leaves, after orbax raised the error of the first leaf."""
    if "exception was never retrieved" not in record.getMessage() or not record.exc_info:
        return True
    error = record.exc_info[1]
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)] if error else []
    return not _TENSORSTORE_ERROR.search(str(error)) and not any("/orbax/" in Path(name).as_posix() for name in files)


def _filter_unraisable(former_hook: Callable[[Any], Any], unraisable: Any) -> None:
    """Drops errors of TensorStore's threads, one for each leaf, after orbax failed and closed its event loop."""
    if unraisable.object is not None or str(unraisable.exc_value) != "Event loop is closed":
        former_hook(unraisable)


def _suppress_orbax_tracebacks() -> None:
    """Suppresses orbax's output about errors that we report. It may be called more than once."""
    logging.getLogger("absl").addFilter(_is_worth_a_line)
    logging.getLogger("asyncio").addFilter(_is_not_left_by_orbax)
    if getattr(sys.unraisablehook, "func", None) is not _filter_unraisable:
        sys.unraisablehook = functools.partial(_filter_unraisable, sys.unraisablehook)


def _without_other_processes() -> ocp.options.MultiprocessingOptions:
    """Returns options for reading without barriers. At a barrier, the others would wait for a process with an error."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    process = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=process, active_processes={process}, barrier_sync_key_prefix=f"process {process}"
    )


def _is_empty(folder: Path) -> bool:
    """Returns whether a folder is known to be empty. One that cannot be listed counts as not empty."""
    try:
        return not any(folder.iterdir())
    except OSError:
        return False


def _is_removable(folder: Path) -> bool:
    """Returns whether this user may list and change a folder and all folders in it."""
    allowed = os.R_OK | os.W_OK | os.X_OK
    inner = (Path(parent, name) for parent, names, _ in os.walk(folder) for name in names)
    effective = os.access in os.supports_effective_ids
    return all(os.access(path, allowed, effective_ids=effective) for path in (folder, *inner))


def _print_warning(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr, flush=True)


class _DamageError(InvalidInputError):
    """The files of a step are damaged."""

    def __init__(self, step: int, directory: Path, reason: str) -> None:
        super().__init__(f"Checkpoint {step} in {directory} is damaged ({reason}).")
        self.reason = reason


class Checkpoints:
    """The checkpoints of one run, one directory for each step, as a context manager.

        with Checkpoints(workdir / "checkpoints", keep=3) as checkpoints:
            restored = checkpoints.restore(state)
            ...
            checkpoints.save(step, state, {"images": 640})

    Saving runs in the background, and the end of the block waits for it. Reading does not change the directory, so one
    process may read the checkpoints of a run that another process trains. Only one run may save. Its first save removes
    the remains of an interrupted save. It also renames damaged steps to `<step>.damaged`, so that the same step can be
    saved again. With several processes, each process calls every method.

    Args:
        directory: the directory; created at the first save.
        keep: number of newest steps to keep, at least 1.
        keep_every: steps that are a multiple of this are also kept, and never removed; 0 for none.
        warn: receives one line for each step that was skipped or renamed. Defaults to printing on stderr.

    Raises:
        InvalidInputError: when `keep` is below 1, or `keep_every` below 0.
        StorageError: from `save` or at the end of the block, when a file could not be written.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        keep: int = 1,
        keep_every: int = 0,
        warn: Callable[[str], None] = _print_warning,
    ) -> None:
        if keep < 1:
            raise InvalidInputError(f"Checkpoints needs keep >= 1, the number of newest steps to keep; got {keep}.")
        if keep_every < 0:
            raise InvalidInputError(f"Checkpoints needs keep_every >= 0, a number of steps; got {keep_every}.")
        _suppress_orbax_tracebacks()
        # Orbax refuses relative paths.
        self.directory = Path(directory).absolute()
        self._keep, self._keep_every = keep, keep_every
        self._warn = warn
        self._manager: ocp.CheckpointManager | None = None
        self._damaged: set[int] = set()
        self._saving: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._close()
        except StorageError as storage_error:
            if error is None:
                raise
            # The first error is the one to raise. This one may be its consequence.
            self._warn(str(storage_error))

    @property
    def steps(self) -> list[int]:
        """The steps on disk, the newest first. Unfinished saves do not count, and digests are not verified."""
        return self._steps()

    @property
    def latest_step(self) -> int | None:
        """The newest step on disk, or None. Unfinished saves do not count, and digests are not verified."""
        return next(iter(self._steps()), None)

    def latest_meta(self) -> tuple[int, dict[str, Any]] | None:
        """Returns the newest step and its meta, after the whole step was verified; None if there is no step.

        Raises:
            InvalidInputError: when the step is damaged.
            StorageError: when it cannot be read.
        """
        step = self.latest_step
        if step is None:
            return None
        with self._reading(step):
            document = self._read_document(step)
            self._read_leaves(step, _template(document["leaves"]), document)
            return step, document["meta"]

    def save(self, step: int, state: Tree, meta: dict[str, Any]) -> None:
        """Saves a state in the background. The caller may donate or change its arrays as soon as this returns.

        The call first waits for the previous save, and raises its error. After any error the state is not saved, and
        the run should end.

        Args:
            step: larger than every existing step.
            state: a pytree of arrays, on any device, and Python numbers. It may contain `None` and empty dictionaries.
                For typed PRNG keys, pass `jax.random.key_data`.
            meta: JSON values. `restore` returns them as JSON reads them: tuples become lists.

        Raises:
            InvalidInputError: when two leaves have the same path.
            StorageError: when this save or the previous one failed, or when this step or a later one already exists.
        """
        arrays = _to_host(state)
        document = {
            "format": _FORMAT,
            "step": int(step),
            "leaves": _layout(arrays),
            "state": _digest(arrays),
            "meta": json.loads(json.dumps(meta)),
        }
        # TensorStore cannot store empty arrays. `restore` rebuilds them from the layout.
        stored = {path: array for path, array in arrays.items() if array.size}
        items = ocp.args.Composite(state=ocp.args.StandardSave(stored), meta=ocp.args.JsonSave(_with_seal(document)))
        self._wait()
        with self._disk(step):
            saved = self._open().save(step, args=items)
        if saved:
            self._saving = step
        else:
            raise StorageError(
                f"Checkpoint {step} was not saved in {self.directory}: its step needs to be larger than all existing "
                f"steps; got {step} after {self.latest_step}."
            )

    def sweep(self) -> None:
        """Removes leftovers of a killed save: unfinished steps, and old steps beyond `keep`. Only the run may call it.

        Call it only if the newest step is known to be valid.

        Raises:
            StorageError: when something cannot be removed.
        """
        unfinished = [path for path in self.directory.glob("*") if _UNFINISHED.fullmatch(path.name)]
        older = [step for step in self._steps()[self._keep :] if not self._keep_every or step % self._keep_every]
        for path in [*unfinished, *(self._folders()[step] for step in older)]:
            with disk_errors(path):
                shutil.rmtree(path)

    def restore(
        self, template: Tree, step: int | None = None, otherwise: str = _START_AGAIN
    ) -> tuple[int, Tree, dict[str, Any]] | None:
        """Returns the newest valid step, or the requested step, with its state and its meta.

        A step with a wrong digest, structure or format counts as damaged, and is skipped with a warning. A step that
        cannot be read for another reason is not skipped, because it may be valid. Dtypes are never cast.

        Args:
            template: a pytree with the structure, shapes and dtypes of the state. The leaves are arrays or
                `jax.ShapeDtypeStruct`; their values are not read.
            step: the requested step; damage to it is an error. Defaults to the newest valid one.
            otherwise: a sentence that says what to do if every step is damaged.

        Returns:
            `(step, state, meta)`, or None if there is no step, or not the requested one. The state has the template's
            structure and numpy leaves, bitwise as saved.

        Raises:
            InvalidInputError: when the step has other leaves than the template, or when the requested step or all
                steps are damaged. A damaged run never silently starts again from step 0. Also when jax has no backend.
            StorageError: when a step cannot be read, or when a background save of this process failed.
        """
        require_backend()
        self._close()
        if step is not None:
            return self._restore_step(step, template) if step in self._steps() else None
        damages = []
        steps = self._steps()
        for step in steps:
            try:
                return self._restore_step(step, template)
            except _DamageError as error:
                if self._steps() != steps:  # another process trains this run: it removed the step after a later save
                    return self.restore(template, otherwise=otherwise)
                damages.append(f"{step}: {error.reason}")
                self._damaged.add(step)
                self._warn(f"Checkpoint {step} in {self.directory} is damaged and was skipped: {error.reason}")
        if damages:
            raise InvalidInputError(
                f"Every checkpoint in {self.directory} is damaged ({'; '.join(damages)}). {otherwise}"
            )
        return None

    def _restore_step(self, step: int, template: Tree) -> tuple[int, Tree, dict[str, Any]]:
        with self._reading(step):
            document = self._read_document(step)
        self._check_layout(step, document["leaves"], _layout(_leaves_by_path(template)))
        with self._reading(step):
            leaves = self._read_leaves(step, _leaves_by_path(template), document)
        return step, jax.tree.unflatten(jax.tree.structure(template), leaves), document["meta"]

    def _folders(self) -> dict[int, Path]:
        """Returns the step directories by step. Orbax gives a save its final name when it is complete."""
        try:
            named = [path for path in self.directory.iterdir() if path.name.isdecimal() and path.is_dir()]
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StorageError(f"Checkpoints in {self.directory} could not be listed: {_reason(error)}") from error
        return {int(path.name): path for path in named if path.name == str(int(path.name))}

    def _steps(self) -> list[int]:
        """Returns the steps on disk, the newest first."""
        return sorted((step for step, path in self._folders().items() if not _is_empty(path)), reverse=True)

    @contextlib.contextmanager
    def _reading(self, step: int) -> Iterator[None]:
        """Turns an error while reading a step into one that tells whether the step is damaged."""
        try:
            yield
        except Exception as error:  # orbax raises many kinds of error for a damaged step
            if _is_damage(error):
                raise _DamageError(step, self.directory, _reason(error)) from error
            raise StorageError(
                f"Checkpoint {step} in {self.directory} could not be read ({_reason(error)}). Nothing was changed."
            ) from error

    def _read_document(self, step: int) -> dict[str, Any]:
        """Returns the document with the metadata of a step, after every file of the step was read once."""
        _read_every_file(self.directory / str(step))
        alone = _without_other_processes()
        with ocp.Checkpointer(ocp.JsonCheckpointHandler(), multiprocessing_options=alone) as checkpointer:
            document = checkpointer.restore(self.directory / str(step) / "meta")
        if document != _with_seal(document) or document["step"] != step or document["format"] != _FORMAT:
            raise ValueError("its meta differs from what was saved")
        return document

    def _read_leaves(self, step: int, template: dict[str, Any], document: dict[str, Any]) -> list[np.ndarray]:
        """Returns the arrays of a step for the leaves of `template`, in its order, which the digest depends on."""
        wanted = {
            path: np.empty(np.shape(leaf), getattr(leaf, "dtype", None) or np.asarray(leaf).dtype)
            for path, leaf in template.items()
        }
        with ocp.StandardCheckpointer(multiprocessing_options=_without_other_processes()) as checkpointer:
            stored = {path: array for path, array in wanted.items() if array.size}
            restored = checkpointer.restore(self.directory / str(step) / "state", stored)
        arrays = {path: np.asarray(restored.get(path, array)) for path, array in wanted.items()}
        if _digest(arrays) != document["state"]:
            raise ValueError("its arrays differ from those that were saved")
        return list(arrays.values())

    def _check_layout(self, step: int, found: dict[str, str], expected: dict[str, str]) -> None:
        if found == expected:
            return
        path = next(path for path in [*expected, *found] if found.get(path) != expected.get(path))
        raise InvalidInputError(
            f"Checkpoint {step} in {self.directory} does not fit: '{path}' needs {expected.get(path, 'to be absent')}; "
            f"got {found.get(path, 'nothing')}. It was saved with another network config."
        )

    def _open(self) -> ocp.CheckpointManager:
        if self._manager is None:
            if jax.process_index() == 0:
                self._rename_damaged()
            if jax.process_count() > 1:
                multihost_utils.sync_global_devices("sagan_jax checkpoints")
            options = ocp.CheckpointManagerOptions(
                max_to_keep=self._keep,
                keep_period=self._keep_every or None,
                cleanup_tmp_directories=True,
                # With the default, save() returns before the directory exists, and exit hangs for 300 s on an error.
                async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            )
            self._manager = ocp.CheckpointManager(self.directory, item_names=("state", "meta"), options=options)
        return self._manager

    def _rename_damaged(self) -> None:
        """Renames damaged steps and removes empty ones. Orbax would count them, and refuse to save earlier steps.

        A step with a folder that cannot be read or changed is renamed too: a later save would fail to remove it.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        for step, path in self._folders().items():
            if _is_empty(path):
                path.rmdir()
            elif step in self._damaged:
                self._set_aside(step, path, "damaged")
            elif not _is_removable(path):
                self._set_aside(step, path, "unreadable")
        self._damaged.clear()

    def _set_aside(self, step: int, path: Path, why: str) -> None:
        aside, number = path.with_name(f"{step}.{why}"), 1
        while aside.exists():
            number += 1
            aside = path.with_name(f"{step}.{why}{number}")
        path.rename(aside)
        self._warn(f"Checkpoint {step} in {self.directory} is {why} and was renamed to {aside.name}")

    def _wait(self) -> None:
        """Waits for the save in the background. Otherwise orbax would raise its error in the next save."""
        if self._manager is not None and self._saving is not None:
            with self._disk(self._saving):
                self._manager.wait_until_finished()
        self._saving = None

    def _close(self) -> None:
        try:
            if self._manager is not None:
                with self._disk(self._saving):
                    self._manager.close()
        finally:
            self._manager = None

    @contextlib.contextmanager
    def _disk(self, step: int | None) -> Iterator[None]:
        """Turns disk errors into a StorageError of one line. TensorStore raises ValueError when the disk is full."""
        try:
            yield
        except (OSError, ValueError) as error:
            old = self._not_removed(step)
            if old:
                raise StorageError(
                    f"Checkpoint {step} was saved in {self.directory}, but the older {', '.join(map(str, old))} could "
                    f"not be removed: {_reason(error)}"
                ) from error
            which = "The last checkpoint" if step is None else f"Checkpoint {step}"
            raise StorageError(f"{which} could not be saved in {self.directory}: {_reason(error)}") from error

    def _not_removed(self, step: int | None) -> list[int]:
        """Returns older steps that orbax considers removed but that still exist, if `step` itself is saved."""
        if self._manager is None or step not in self._folders():
            return []
        return sorted(set(self._folders()) - {step, *self._manager.all_steps()})
