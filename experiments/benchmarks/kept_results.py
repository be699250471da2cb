"""Caches measurements of a run in its folder, so that tables do not need the trained networks again."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sagan_jax.errors import InvalidInputError
from sagan_jax.runs.load import checkpoint_steps
from sagan_jax.runtime.checkpoints import read_sealed_meta
from sagan_jax.runtime.files import read_json, write_atomically


def kept(workdir: Path, name: str, images: int, measure: Callable[[], Any]) -> Any:
    """Returns the result of `measure` for a run, from WORKDIR/NAME.json if it is there.

    The run is measured again for another number of images, or if it was trained further or anew. A folder with only
    this file, such as one in `experiments/results`, is enough.

    Args:
        workdir: the workdir of the run.
        name: the name of the file, without `.json`.
        images: number of images.
        measure: returns a JSON value.

    Raises:
        InvalidInputError: the file is damaged.
    """
    path = workdir / f"{name}.json"
    steps, run = checkpoint_steps(workdir), digest_of(workdir)
    try:
        known = read_json(path)
        of_images, of_step, found = known["images"], known["step"], known["found"]
        if of_images == images and (not steps or (of_step == steps[-1] and known.get("run") == run)):
            return found
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (KeyError, TypeError, InvalidInputError) as error:
        raise InvalidInputError(f"{str(path)!r} is damaged: remove it, and it is measured again.") from error
    found = measure()
    content = {"images": images, "step": steps[-1] if steps else None, "run": run, "found": found}
    write_atomically(path, (json.dumps(content) + "\n").encode())
    return found


def digest_of(workdir: Path) -> str | None:
    """Returns a digest of the newest checkpoint: its config, images, versions and arrays. None if there is none."""
    sealed = read_sealed_meta(workdir / "checkpoints")
    if not sealed:
        return None
    step, meta = sealed
    arrays = read_json(workdir / "checkpoints" / str(step) / "meta" / "metadata").get("state")
    return hashlib.sha256(json.dumps([step, meta, arrays], sort_keys=True).encode()).hexdigest()[:16]
