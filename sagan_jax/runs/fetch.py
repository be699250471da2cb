"""Downloads published weights."""

import contextlib
import hashlib
import http
import http.client
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from sagan_jax.errors import InvalidInputError, one_line
from sagan_jax.evaluation import dinov2, inception
from sagan_jax.interop.pytorch import check_hash_prefix, hash_prefix
from sagan_jax.runs.convert import convert_dinov2, convert_inception
from sagan_jax.runtime.cache_folders import weights_folder
from sagan_jax.runtime.files import disk_errors

_TIMEOUT_SECONDS = 30.0  # without a received byte
_CHUNK_BYTES = 2**18
_MAX_BYTES = {"inception": 2**30, "dinov2": 2**33}  # ten times the published file; twice the largest one

Network = Literal["inception", "dinov2"]

DINOV2_SHA256 = {
    "dinov2_vits14_pretrain.pth": "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
    "dinov2_vitb14_pretrain.pth": "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
    "dinov2_vitl14_pretrain.pth": "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
    "dinov2_vitg14_pretrain.pth": "baf8467e50af277596bbbafa06887c177ee899ab46033649c383577d7e9309d3",
    "dinov2_vits14_reg4_pretrain.pth": "f433177089a681826f849f194ece3bb48f4d63fb38d32fc837e3dc7a4e5641fb",
    "dinov2_vitb14_reg4_pretrain.pth": "73182a088cf94833c94b1666d1c99e02fe87e2007bff57b564fb6206e25dba71",
    "dinov2_vitl14_reg4_pretrain.pth": "36e4deffbaef061a2576705b0c36f93621e2ae20bf6274694821b0b492551b51",
    "dinov2_vitg14_reg4_pretrain.pth": "746ecb8c6301c645c5c855be91687d274587d6e48fdaec4a729753160b34a283",
}
"""SHA-256 of the files of DINOv2, from finegrain-ai/refiners' conversion script; the authors publish none."""

_STANDARD = "dinov2_vitl14_pretrain.pth"


def fetch_inception(url: str, folder: Path | None = None) -> None:
    """Downloads the weights of the FID network, and converts them for evaluations.

    Args:
        url: as for `fetch`.
        folder: as for `fetch`. Defaults to the place where evaluations look.

    Raises:
        InvalidInputError: as for `fetch`, or the file is not the FID network.
        StorageError: as for `fetch`.
    """
    fetched = fetch(url, _folder(folder))
    convert_inception(fetched, fetched.with_name(inception.WEIGHTS_NAME))


def fetch_dinov2(url: str, folder: Path | None = None) -> None:
    """Downloads weights of DINOv2, and converts them for evaluations.

    ViT-L/14 is written under the name that evaluations look for, another size under the name of its file.

    Args:
        url: as for `fetch`.
        folder: as for `fetch`. Defaults to the place where evaluations look.

    Raises:
        InvalidInputError: as for `fetch`, or the file is not DINOv2.
        StorageError: as for `fetch`.
    """
    fetched = fetch(url, _folder(folder), "dinov2")
    standard = DINOV2_SHA256[_STANDARD].startswith(_known_digits(fetched.name, "dinov2"))
    convert_dinov2(fetched, fetched.with_name(dinov2.WEIGHTS_NAME) if standard else fetched.with_suffix(".safetensors"))


def _folder(folder: Path | None) -> Path:
    folder = folder or weights_folder()
    if folder is None:
        raise InvalidInputError("fetch-weights needs --out, a folder: this user has no home folder for a cache.")
    return folder


def fetch(url: str, folder: Path, network: Network = "inception") -> Path:
    """Downloads a file whose sha256 is known in advance; resumes an earlier download.

    Args:
        url: https, or http on this machine. The name of the file carries the start of its sha256, or is one of
            `DINOV2_SHA256`.
        folder: created when absent. The file's name ends in `.part` until its sha256 is verified.
        network: the network whose weights are expected.

    Returns:
        The file. A file that exists already is verified and kept.

    Raises:
        InvalidInputError: the address is not accepted or cannot be reached, the download stops early, or the file has
            another sha256.
        StorageError: a file cannot be written.
    """
    _check_scheme(url)
    name = Path(unquote(urlsplit(url).path)).name
    if not _known_digits(name, network):
        others = f", or in a name that its authors gave, such as {_STANDARD}" if network == "dinov2" else ""
        raise InvalidInputError(
            f"fetch-weights needs an address that ends in NAME-0123abcd.pth, whose digits start the file's sha256"
            f"{others}; got {url!r}."
        )
    path = folder / name
    part = path.with_name(f"{name}.part")
    with disk_errors(path):
        if path.exists():
            _check_sha256(path, name, network)
            return path
        folder.mkdir(parents=True, exist_ok=True)
        _download(url, part, network)
        try:
            _check_sha256(part, name, network)
        except InvalidInputError:
            part.unlink()  # a download that resumes from a wrong file can never succeed
            raise
        return part.replace(path)


def _known_digits(name: str, network: Network) -> str:
    """Returns the expected sha256 of a file of this name, or its first digits; "" if unknown."""
    return (network == "dinov2" and DINOV2_SHA256.get(name)) or hash_prefix(name) or ""


def _check_sha256(path: Path, name: str, network: Network) -> None:
    """Raises InvalidInputError if the sha256 of a file does not match its name."""
    found, wanted = _sha256(path), _known_digits(name, network)
    check_hash_prefix(name, found)
    if not found.startswith(wanted):
        raise InvalidInputError(
            f"{name!r} needs the sha256 {wanted}; got {found}. The file is damaged, incomplete or a different one."
        )


def _download(url: str, part: Path, network: Network) -> None:
    """Downloads the address into `part`, and resumes at the end of `part` if the server can."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with contextlib.ExitStack() as stack:
        with _reaching(url, network):
            try:
                response = stack.enter_context(_OPENER.open(request, timeout=_TIMEOUT_SECONDS))
            except urllib.error.HTTPError as error:
                with error:  # it holds the connection
                    if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
                        return  # the file is complete; its sha256 is checked later
                    raise
        start = have if response.status == http.HTTPStatus.PARTIAL_CONTENT else 0
        length = response.headers["Content-Length"]
        total = start + int(length) if length else None
        file = stack.enter_context(part.open("ab" if start else "wb"))
        progress = stack.enter_context(_progress())
        task = progress.add_task(part.stem, total=total, completed=start)
        while True:
            with _reaching(url, network):
                chunk = response.read(_CHUNK_BYTES)
            if not chunk:
                break
            file.write(chunk)
            progress.advance(task, len(chunk))
            if file.tell() > _MAX_BYTES[network]:
                raise InvalidInputError(
                    f"{url} serves more than {_MAX_BYTES[network]:,} bytes: these are not the weights."
                )
        if total and file.tell() < total:
            raise InvalidInputError(
                f"The download of {url} broke off after {file.tell():,} of {total:,} bytes: the same command resumes "
                f"it."
            )


class _OnlySecure(urllib.request.HTTPRedirectHandler):
    """Follows redirections to secure addresses only, so that nobody can swap the file in transit."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        try:
            _check_scheme(newurl)
        except InvalidInputError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_OnlySecure)


def _check_scheme(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")):
        raise InvalidInputError(f"fetch-weights needs an https address; got {url!r}.")


@contextlib.contextmanager
def _reaching(url: str, network: Network) -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException) as error:  # of urllib, of sockets, of time-outs
        reason = one_line(error).removeprefix("<urlopen error ").removesuffix(">")
        raise InvalidInputError(
            f"{url} could not be downloaded: {reason}. Without a network, bring the file here by other means, "
            f"then: sagan-jax convert --from {network} FILE."
        ) from error


def _progress() -> Progress:
    """Returns a progress bar, which is shown on a terminal only."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
