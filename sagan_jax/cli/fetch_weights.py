"""`sagan-jax fetch-weights`: the FID network's published weights, downloaded and verified. Nothing else downloads."""

import dataclasses
import http.client
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import tyro

from sagan_jax.cli.convert import convert_inception, require_hash_in_name
from sagan_jax.errors import InvalidInputError, StorageError, one_line

ADDRESS = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
_CHUNK = 2**18
_SECONDS = 30  # without a byte


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Download the FID network's weights (95 MB), verify and convert them; one that broke off is gone on with."""

    url: str = ADDRESS
    """where from; its name ends with the first digits of its sha256"""
    out: Path | None = None
    """folder for them; where `evaluate` looks unless given"""


def run(arguments: list[str]) -> None:
    """Runs the command with what stands behind its name."""
    parsed = tyro.cli(Arguments, args=arguments, prog="sagan-jax fetch-weights")
    from sagan_jax.evaluation.inception import default_weights_path

    usual = default_weights_path()
    folder = parsed.out or usual.parent
    path = folder / parsed.url.rpartition("/")[2]
    if not path.exists():
        download(parsed.url, path)
    require_hash_in_name(path)
    try:
        convert_inception(path, folder / usual.name)
    except InvalidInputError as error:
        raise InvalidInputError(f"{path} is here and whole. {error}") from error


def download(url: str, path: Path) -> None:
    """Downloads a file, whole or not at all; what arrives before that is `<name>.part`, and is gone on with.

    Args:
        url: of the file; where its name ends with `-<first digits of the sha256>.pth` they are verified.
        path: gets the file.

    Raises:
        InvalidInputError: it cannot be had, or is not what its name promises.
        StorageError: the disk refuses.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        have = part.stat().st_size if part.exists() else 0
        with part.open("ab") as file:
            _receive(url, file, have)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ValueError) as error:
        raise InvalidInputError(
            f"{url} cannot be had ({one_line(error)}): is this machine online? The same command goes on from what has "
            f"arrived. Or bring the file here by other means, and: sagan-jax convert {path.name}"
        ) from error
    except OSError as error:
        raise StorageError(f"{part} could not be written: {error.strerror or error}") from error
    whole = part.with_name(f"checking-{path.name}")
    part.replace(whole)  # under a name that carries the promise
    try:
        require_hash_in_name(whole)
    except InvalidInputError:
        whole.unlink()
        raise
    whole.replace(path)


def _receive(url: str, file, have: int) -> None:
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=_SECONDS)
    except urllib.error.HTTPError as error:
        if have and error.code == 416:  # nothing is left to send
            return
        raise
    with answer:
        if have and answer.status != 206:  # the server starts over, and so do we
            file.truncate(0)
            have = 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        said = time.monotonic()
        while block := answer.read(_CHUNK):
            file.write(block)
            have += len(block)
            if time.monotonic() - said > 2:
                said = time.monotonic()
                of = f" of {total / 1e6:.0f}" if total else ""
                print(f"{have / 1e6:.0f}{of} MB", file=sys.stderr, flush=True)
        if total is not None and have < total:
            raise ConnectionError(f"it broke off after {have:,} of {total:,} bytes")
