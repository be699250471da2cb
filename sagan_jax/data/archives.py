"""Images in a zip file, read without unpacking it. Malicious archives are rejected before any member is inflated."""

import hashlib
import re
import stat
import threading
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from sagan_jax.data import decoding
from sagan_jax.data.csv_labels import CsvLabels
from sagan_jax.data.encoded import EncodedImages, Notify
from sagan_jax.data.label_files import MAX_LABEL_FILE_BYTES, label_images
from sagan_jax.data.layouts import is_archive, is_hidden, is_image, wrapper_folder
from sagan_jax.errors import InvalidInputError, one_line

_MAX_MEMBERS = 5_000_000
# All images together may expand to four times the size of the archive, plus this many bytes. A single image may expand
# to `decoding.MAX_FILE_BYTES`: a drawing in BMP format compresses a thousandfold.
_EXTRA_BYTES = 2**30


def open_zip(path: Path, notify: Notify, csv_labels: CsvLabels | None = None) -> EncodedImages:
    """Returns the images in the zip file `path`.

    The images lie at the top, in class folders, or in class folders inside a single folder. A member `dataset.json` may
    hold their labels: see `sagan_jax.data.label_files`.

    Args:
        path: the zip.
        notify: receives a line when labels come from a member, and when members are ignored.
        csv_labels: labels that the user gave. They replace all others.

    Raises:
        InvalidInputError: when the file is not a zip, has another layout, has a malicious member (`_check_members`), or
            has an invalid label file.
    """
    where = repr(str(path))
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # a damaged directory can raise any error
        raise InvalidInputError(f"Cannot read {where} as a zip: {one_line(error)}.") from error
    try:
        members = archive.infolist()
        _check_members(members, path.stat().st_size, where)
        shown = [member.filename for member in members if not is_hidden(member.filename)]
        files = [name for name in shown if not name.endswith("/")]
        folders = {name.rstrip("/") for name in shown if name.endswith("/")}
        for name in files:
            folders.update(str(parent) for parent in PurePosixPath(name).parents[:-1])
        prefix = wrapper_folder(files, folders)
        everything = set(files)
        if prefix:
            files = [name.removeprefix(prefix) for name in files if name.startswith(prefix)]
            folders = {name.removeprefix(prefix) for name in folders if name.startswith(prefix)}

        def read_start(name: str) -> bytes:
            with archive.open(name) as file:
                return file.read(MAX_LABEL_FILE_BYTES + 1)

        names, labels, class_names = label_images(
            files, folders, everything, prefix, read_start, where, notify, csv_labels
        )
    except BaseException:
        archive.close()
        raise
    lock = threading.Lock()

    def read(index: int) -> bytes:
        # Opening and closing a member change a reference count without a lock. Reading has its own lock.
        with lock:
            member = archive.open(names[index])
        try:
            return member.read()  # never more bytes than the directory states; those were checked
        finally:
            with lock:
                member.close()

    def content() -> str:
        described = [(name, archive.getinfo(name).file_size, archive.getinfo(name).CRC) for name in names]
        return hashlib.sha256(repr(described).encode()).hexdigest()

    return EncodedImages(
        title=path.name,
        where=where,
        count=len(names),
        name=names.__getitem__,
        read=read,
        labels=labels,
        class_names=class_names,
        content=content,
        close=archive.close,
    )


def check_method(member: zipfile.ZipInfo, where: str) -> None:
    """Raises InvalidInputError when a member of the archive `where` has an unsupported compression method."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InvalidInputError(
            f"{where} needs members that are stored or deflated; {member.orig_filename!r} is compressed by method "
            f"{member.compress_type}. Create the archive again."
        )


def _check_members(members: Sequence[zipfile.ZipInfo], archive_bytes: int, where: str) -> None:
    """Raises InvalidInputError for names or sizes that may be malicious."""
    if len(members) > _MAX_MEMBERS:
        raise InvalidInputError(f"{where} needs at most {_MAX_MEMBERS:,} members; it has {len(members):,}.")
    seen: set[str] = set()
    expanded_bytes = 0
    for member in members:
        name = member.orig_filename
        kind = stat.S_IFMT(member.external_attr >> 16)
        if (
            re.search(r"[\\\0]|^[A-Za-z]:", name)
            or not {"", ".", ".."}.isdisjoint(name.removesuffix("/").split("/"))
            or kind not in (0, stat.S_IFREG, stat.S_IFDIR)
        ):
            raise InvalidInputError(
                f"{where} needs plain files with relative names; member {name!r} is not one. Create the archive again."
            )
        if name in seen:
            raise InvalidInputError(
                f"{where} needs a different name for each member; {name!r} occurs twice. Create the archive again."
            )
        seen.add(name)
        if member.flag_bits & 0x1:
            raise InvalidInputError(f"{where} needs members without a password; member {name!r} is encrypted.")
        if is_archive(name) and not is_hidden(name):
            raise InvalidInputError(
                f"{where} needs images, not archives; member {name!r} is one. Unpack it, then give the folder or an "
                f"archive of the images themselves."
            )
        if is_image(name):
            if member.file_size > decoding.MAX_FILE_BYTES:
                raise InvalidInputError(
                    f"{where} needs images of at most {decoding.MAX_FILE_BYTES:,} bytes; member {name!r} has "
                    f"{member.file_size:,}."
                )
            check_method(member, where)
            expanded_bytes += member.file_size
    if expanded_bytes > 4 * archive_bytes + _EXTRA_BYTES:
        raise InvalidInputError(
            f"{where} has {archive_bytes:,} bytes, and its images would expand to {expanded_bytes:,}. Is it a "
            f"decompression bomb? If not, create it without compression (zip -0)."
        )
