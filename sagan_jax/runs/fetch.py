"""Downloading published weights; nothing else here downloads."""

import contextlib
import hashlib
import http
import http.client
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from sagan_jax.errors import InvalidInputError, one_line
from sagan_jax.evaluation.inception import WEIGHTS_NAME
from sagan_jax.interop.pytorch import check_hash_prefix, hash_prefix
from sagan_jax.runs.convert import convert_inception
from sagan_jax.runtime.cache_folders import weights_folder
from sagan_jax.runtime.files import disk_errors

_TIMEOUT_SECONDS = 30.0  # without a byte
_CHUNK_BYTES = 2**18
_MAX_BYTES = 2**30  # ten times the published file


def fetch_inception(url: str, folder: Path | None = None) -> None:
    """Downloads the weights of the FID network, and converts them for evaluations.

    Args:
        url: as for `fetch`.
        folder: as for `fetch`. Defaults to the place where evaluations look.

    Raises:
        InvalidInputError: as for `fetch`, or the file is not the FID network.
        StorageError: as for `fetch`.
    """
    folder = folder or weights_folder()
    if folder is None:
        raise InvalidInputError("fetch-weights needs --out, a folder: this user has no home folder for a cache.")
    fetched = fetch(url, folder)
    convert_inception(fetched, fetched.with_name(WEIGHTS_NAME))


def fetch(url: str, folder: Path) -> Path:
    """Downloads a file whose name carries the start of its sha256; resumes an earlier download.

    Args:
        url: https, or http on this machine.
        folder: created when absent. The file's name ends in `.part` until its sha256 is verified.

    Returns:
        The file. A file that exists already is verified and kept.

    Raises:
        InvalidInputError: the address is not accepted or cannot be reached, the download breaks off, or it is another
            file.
        StorageError: the disk refused.
    """
    _check_scheme(url)
    name = Path(unquote(urlsplit(url).path)).name
    if not hash_prefix(name):
        raise InvalidInputError(
            f"fetch-weights needs an address that ends in NAME-0123abcd.pth, whose digits start the file's sha256; "
            f"got {url!r}."
        )
    path = folder / name
    part = path.with_name(f"{name}.part")
    with disk_errors(path):
        if path.exists():
            check_hash_prefix(name, _sha256(path))
            return path
        folder.mkdir(parents=True, exist_ok=True)
        _download(url, part)
        try:
            check_hash_prefix(name, _sha256(part))
        except InvalidInputError:
            part.unlink()  # going on from it would never end well
            raise
        return part.replace(path)


def _download(url: str, part: Path) -> None:
    """Writes what the address serves, from where the file ends if the server can."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with contextlib.ExitStack() as stack:
        with _reaching(url):
            try:
                response = stack.enter_context(_OPENER.open(request, timeout=_TIMEOUT_SECONDS))
            except urllib.error.HTTPError as error:
                if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
                    return  # there is no more: the sha256 will say whether it is right
                raise
        start = have if response.status == http.HTTPStatus.PARTIAL_CONTENT else 0
        length = response.headers["Content-Length"]
        total = start + int(length) if length else None
        file = stack.enter_context(part.open("ab" if start else "wb"))
        progress = stack.enter_context(_progress())
        task = progress.add_task(part.stem, total=total, completed=start)
        while True:
            with _reaching(url):
                chunk = response.read(_CHUNK_BYTES)
            if not chunk:
                break
            file.write(chunk)
            progress.advance(task, len(chunk))
            if file.tell() > _MAX_BYTES:
                raise InvalidInputError(f"{url} serves more than {_MAX_BYTES:,} bytes: these are not the weights.")
        if total and file.tell() < total:
            raise InvalidInputError(
                f"The download of {url} broke off after {file.tell():,} of {total:,} bytes: the same command again "
                f"goes on from there."
            )


class _OnlySecure(urllib.request.HTTPRedirectHandler):
    """Follows no redirection to where anybody on the way could swap the file."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        _check_scheme(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_OnlySecure)


def _check_scheme(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")):
        raise InvalidInputError(f"fetch-weights needs an https address; got {url!r}.")


@contextlib.contextmanager
def _reaching(url: str) -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException) as error:  # of urllib, of sockets, of time-outs
        reason = one_line(error).removeprefix("<urlopen error ").removesuffix(">")
        raise InvalidInputError(
            f"{url} could not be downloaded: {reason}. Without a network, bring the file here by other means, "
            f"then: sagan-jax convert --from inception FILE."
        ) from error


def _progress() -> Progress:
    """Returns a bar for people; nothing is drawn into a file."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
