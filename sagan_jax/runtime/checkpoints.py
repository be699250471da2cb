"""Checkpoints of a run: orbax on local disk, sealed with a digest that is verified before a state is trusted."""

import contextlib
import functools
import hashlib
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from sagan_jax.errors import InvalidInputError, StorageError

Tree = Any

_FORMAT = 1


def _paths(tree: Tree) -> dict[str, Any]:
    """Returns the leaves by path, in the order of `jax.tree.leaves`."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    leaves = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in flat}
    if len(leaves) != len(flat):
        raise InvalidInputError("A state needs one path a leaf; two leaves share a path, is there a '/' in a name?")
    return leaves


def _host(state: Tree) -> dict[str, np.ndarray]:
    return {path: np.asarray(leaf) for path, leaf in _paths(jax.device_get(state)).items()}


def _layout(leaves: dict[str, Any]) -> dict[str, str]:
    """Returns what each path holds, such as `float32 [3, 4]`."""
    described = {}
    for path, leaf in leaves.items():
        array = leaf if hasattr(leaf, "shape") and hasattr(leaf, "dtype") else np.asarray(leaf)
        described[path] = f"{np.dtype(array.dtype).name} {list(array.shape)}"
    return described


def _digest(leaves: dict[str, np.ndarray]) -> str:
    sha256 = hashlib.sha256()
    for path, layout in _layout(leaves).items():
        sha256.update(f"{path}\0{layout}\0".encode())
        sha256.update(np.ascontiguousarray(leaves[path]).reshape(-1).view(np.uint8).data)
    return sha256.hexdigest()


def state_digest(state: Tree) -> str:
    """Returns the sha256 of a state: the path, dtype, shape and bytes of every leaf, in order.

    Two states have one digest when they are bitwise equal, wherever their arrays live; `None` and empty
    dictionaries hold nothing and do not count. -0.0 is not 0.0, and float32 is not float64.

    Args:
        state: a pytree of arrays and Python numbers; no typed PRNG keys (give `jax.random.key_data`).

    Returns:
        64 hexadecimal digits.

    >>> import numpy as np
    >>> state_digest({"a": np.zeros(3)}) == state_digest({"a": np.zeros(3), "b": None})
    True
    """
    return _digest(_host(state))


def _sealed(document: dict[str, Any]) -> dict[str, Any]:
    """Returns the document with a digest of itself, so that damage to step or meta shows as well."""
    content = {key: value for key, value in document.items() if key != "seal"}
    seal = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return {**content, "seal": seal}


def _reason(error: BaseException) -> str:
    """Returns the first line of an error, cut in the middle: TensorStore writes pages, and the cause comes last."""
    line = next(iter(str(error).strip().splitlines()), "no message")
    return f"{type(error).__name__}: {line if len(line) <= 240 else f'{line[:120]} ... {line[-115:]}'}"


def _is_not_an_orbax_error(record: logging.LogRecord) -> bool:
    """Drops the tracebacks, hundreds of lines, that orbax logs of what it raises as well and we say in one line."""
    return record.levelno < logging.ERROR or "/orbax/" not in Path(record.pathname).as_posix()


def _hear_unraisable(hear: Callable[[Any], Any], unraisable: Any) -> None:
    """Drops what TensorStore's threads print, once a leaf, after orbax gave up on a step and closed its event loop."""
    if unraisable.object is not None or str(unraisable.exc_value) != "Event loop is closed":
        hear(unraisable)


def _quieten_orbax() -> None:
    """Leaves one line of a failure, ours; doing so again changes nothing."""
    logging.getLogger("absl").addFilter(_is_not_an_orbax_error)
    if getattr(sys.unraisablehook, "func", None) is not _hear_unraisable:
        sys.unraisablehook = functools.partial(_hear_unraisable, sys.unraisablehook)


def _print_warning(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr, flush=True)


class Checkpoints:
    """The checkpoints of one run, one directory a step, as a context manager.

        with Checkpoints(workdir / "checkpoints", keep=3) as checkpoints:
            found = checkpoints.restore(state)
            ...
            checkpoints.save(step, state, {"images": 640})

    Saving goes on in the background; leaving the block, by return or by exception, waits for it. Reading creates and
    removes nothing, so a run can be sampled from while it trains; saving needs the directory for itself, because
    the first save clears what an interrupted one left behind and renames damaged steps to `<step>.damaged`, which
    would otherwise stand in the way of the same step. Where there are several processes each calls every method.

    Args:
        directory: made at the first save.
        keep: how many of the newest steps stay, at least 1.
        warn: takes one line on each thing that was skipped or renamed; by default printed to stderr.

    Raises:
        InvalidInputError: when `keep` is below 1.
        StorageError: from `save` or on leaving the block, when the disk refused.
    """

    def __init__(self, directory: str | Path, *, keep: int = 1, warn: Callable[[str], None] = _print_warning) -> None:
        if keep < 1:
            raise InvalidInputError(f"Checkpoints needs keep >= 1, the number of newest steps that stay; got {keep}.")
        _quieten_orbax()
        # Orbax refuses relative paths.
        self.directory = Path(directory).absolute()
        self._keep = keep
        self._warn = warn
        self._manager: ocp.CheckpointManager | None = None
        self._damaged: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._close()
        except StorageError as storage_error:
            if error is None:
                raise
            # The first error is the one to hear of; this one may be its consequence.
            self._warn(str(storage_error))

    @property
    def latest_step(self) -> int | None:
        """The newest step on disk, or None; a save still under way does not count, nor is the digest verified."""
        return max(self._steps(), default=None)

    def newest_meta(self) -> tuple[int, dict[str, Any]] | None:
        """Returns the newest step and what was saved beside its state, the state unread; None where that is damaged."""
        step = self.latest_step
        if step is None:
            return None
        try:
            return step, self._read_document(step)["meta"]
        except Exception:  # whatever orbax raises, the step is not usable
            return None

    def save(self, step: int, state: Tree, meta: dict[str, Any]) -> None:
        """Saves a state in the background; the caller may donate or change its arrays at once.

        Waits for the save before it, whose failure is raised here. Treat any error as the end of the run: the state
        was not saved.

        Args:
            step: above every step that is there.
            state: a pytree of arrays, on any device, and Python numbers; `None` and empty dictionaries may stand for
                what is not used. Typed PRNG keys are not taken; give `jax.random.key_data`.
            meta: JSON values, returned by `restore` as JSON reads them: tuples become lists.

        Raises:
            StorageError: when the disk refused, this time or for the save before, or when nothing was saved because
                this step or a later one is there.
        """
        arrays = _host(state)
        document = {
            "format": _FORMAT,
            "step": int(step),
            "leaves": _layout(arrays),
            "state": _digest(arrays),
            "meta": json.loads(json.dumps(meta)),
        }
        # TensorStore has no arrays of size zero; the layout alone brings them back.
        stored = {path: array for path, array in arrays.items() if array.size}
        items = ocp.args.Composite(state=ocp.args.StandardSave(stored), meta=ocp.args.JsonSave(_sealed(document)))
        with self._disk(f"Checkpoint {step} could not be saved in {self.directory}"):
            saved = self._open().save(step, args=items)
        if not saved:
            raise StorageError(
                f"Checkpoint {step} was not saved in {self.directory}: it needs a step above all that are there; "
                f"got {step} after {self.latest_step}."
            )

    def restore(self, template: Tree) -> tuple[int, Tree, dict[str, Any]] | None:
        """Returns the newest step that is whole, its state and its meta; None where nothing was ever saved.

        A step that cannot be read, or whose bytes are not those that were saved, is warned of and the one before it is
        taken. Dtypes are never cast.

        Args:
            template: the state's structure, with arrays or `jax.ShapeDtypeStruct` as leaves; never read.

        Returns:
            `(step, state, meta)`: numpy leaves in the template's structure, bitwise as saved.

        Raises:
            InvalidInputError: when the newest whole step holds other leaves than the template, or when there are
                steps and all are damaged: never a silent start from zero.
            StorageError: when a save under way in this process failed.
        """
        self._close()
        damages = []
        for step in sorted(self._steps(), reverse=True):
            try:
                document = self._read_document(step)
            except Exception as error:  # whatever orbax raises, the step is not usable
                self._skip(step, error, damages)
                continue
            self._check_layout(step, document["leaves"], _layout(_paths(template)))
            try:
                leaves = self._read_leaves(step, template, document)
            except Exception as error:
                self._skip(step, error, damages)
                continue
            return step, jax.tree.unflatten(jax.tree.structure(template), leaves), document["meta"]
        if damages:
            raise InvalidInputError(
                f"Every checkpoint in {self.directory} is damaged ({'; '.join(damages)}): bring back a copy, or "
                "start over with --fresh or in an empty workdir."
            )
        return None

    def _folders(self) -> dict[int, Path]:
        """Returns what is named as orbax names a step; a save gets such a name, by a rename, when it is whole."""
        try:
            named = [path for path in self.directory.iterdir() if path.name.isdecimal() and path.is_dir()]
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StorageError(f"Checkpoints in {self.directory} could not be listed: {_reason(error)}") from error
        return {int(path.name): path for path in named if path.name == str(int(path.name))}

    def _steps(self) -> list[int]:
        return [step for step, path in self._folders().items() if any(path.iterdir())]

    def _read_document(self, step: int) -> dict[str, Any]:
        with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as checkpointer:
            document = checkpointer.restore(self.directory / str(step) / "meta")
        if document != _sealed(document) or document["step"] != step or document["format"] != _FORMAT:
            raise ValueError("its meta is not what was saved")
        return document

    def _read_leaves(self, step: int, template: Tree, document: dict[str, Any]) -> list[np.ndarray]:
        wanted = {
            path: np.empty(np.shape(leaf), getattr(leaf, "dtype", None) or np.asarray(leaf).dtype)
            for path, leaf in _paths(template).items()
        }
        with ocp.StandardCheckpointer() as checkpointer:
            stored = {path: array for path, array in wanted.items() if array.size}
            restored = checkpointer.restore(self.directory / str(step) / "state", stored)
        arrays = {path: np.asarray(restored.get(path, array)) for path, array in wanted.items()}
        if _digest(arrays) != document["state"]:
            raise ValueError("its arrays are not those that were saved")
        return list(arrays.values())

    def _check_layout(self, step: int, found: dict[str, str], expected: dict[str, str]) -> None:
        if found == expected:
            return
        path = next(path for path in [*expected, *found] if found.get(path) != expected.get(path))
        raise InvalidInputError(
            f"Checkpoint {step} in {self.directory} does not fit: '{path}' needs {expected.get(path, 'to be absent')}; "
            f"got {found.get(path, 'nothing')}. It was saved with another network config."
        )

    def _skip(self, step: int, error: Exception, damages: list[str]) -> None:
        damages.append(f"{step}: {_reason(error)}")
        self._damaged.add(step)
        self._warn(f"Checkpoint {step} in {self.directory} is damaged and was skipped: {_reason(error)}")

    def _open(self) -> ocp.CheckpointManager:
        if self._manager is None:
            if jax.process_index() == 0:
                self._set_aside()
            if jax.process_count() > 1:
                multihost_utils.sync_global_devices("sagan_jax checkpoints")
            options = ocp.CheckpointManagerOptions(
                max_to_keep=self._keep,
                cleanup_tmp_directories=True,
                # The default lets save() return before the directory exists, and hangs 300 s at exit if it cannot.
                async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            )
            self._manager = ocp.CheckpointManager(self.directory, item_names=("state", "meta"), options=options)
        return self._manager

    def _set_aside(self) -> None:
        """Renames damaged steps and removes empty ones: orbax believes any name of digits and would not save below."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for step, path in self._folders().items():
            if not any(path.iterdir()):
                path.rmdir()
            elif step in self._damaged:
                aside, number = path.with_name(f"{step}.damaged"), 1
                while aside.exists():
                    number += 1
                    aside = path.with_name(f"{step}.damaged{number}")
                path.rename(aside)
                self._warn(f"Checkpoint {step} in {self.directory} is damaged and was renamed to {aside.name}")
        self._damaged.clear()

    def _close(self) -> None:
        manager, self._manager = self._manager, None
        if manager is not None:
            with self._disk(f"The last checkpoint could not be saved in {self.directory}"):
                manager.close()

    @contextlib.contextmanager
    def _disk(self, failure: str) -> Any:
        """Turns what the disk refuses into one line; TensorStore says RESOURCE_EXHAUSTED as a ValueError."""
        try:
            yield
        except (OSError, ValueError) as error:
            raise StorageError(f"{failure}: {_reason(error)}") from error
