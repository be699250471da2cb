"""Images in a zip, read in place; what no honest packer writes is refused before a byte of it is inflated."""

import hashlib
import re
import stat
import threading
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from sagan_jax.data import decoding
from sagan_jax.data.encoded import EncodedImages
from sagan_jax.data.layouts import arrange, is_archive, is_hidden, is_image, wrapper_of
from sagan_jax.errors import InvalidInputError, one_line

LARGEST_RATIO = 100
"""Bytes that one packed byte of images may become; photographs shrink by next to nothing."""

_MOST_MEMBERS = 5_000_000
_HONEST_BYTES = 2**30  # beyond four times the archive's size that its images may have together


def open_zip(path: Path) -> EncodedImages:
    """Returns the images in the zip `path`: at its top, in class folders, or in class folders in just one folder.

    Raises:
        InvalidInputError: it is no zip, its layout is another, or a member is hostile: see `_check_members`.
    """
    where = repr(str(path))
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # a damaged directory raises whatever its bytes provoke
        raise InvalidInputError(f"Cannot read {where} as a zip: {one_line(error)}.") from error
    try:
        members = archive.infolist()
        _check_members(members, path.stat().st_size, where)
        shown = [member.filename for member in members if not is_hidden(member.filename)]
        files = [name for name in shown if not name.endswith("/")]
        folders = {name.rstrip("/") for name in shown if name.endswith("/")}
        for name in files:
            folders.update(str(parent) for parent in PurePosixPath(name).parents[:-1])
        prefix = wrapper_of(files, folders)
        if prefix:
            files = [name.removeprefix(prefix) for name in files if name.startswith(prefix)]
            folders = {name.removeprefix(prefix) for name in folders if name.startswith(prefix)}
        names, labels, class_names = arrange(files, folders, where, prefix)
    except BaseException:
        archive.close()
        raise
    lock = threading.Lock()

    def read(index: int) -> bytes:
        # Opening and closing count references to one file without a lock of their own; reading has one.
        with lock:
            member = archive.open(names[index])
        try:
            return member.read()  # never more than the directory says, which was checked
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


def check_packing(member: zipfile.ZipInfo, archive_bytes: int, where: str) -> None:
    """Raises InvalidInputError for a member that would inflate to far more than it is, or by an unbounded method.

    Args:
        member: of images.
        archive_bytes: the size of the whole file, which no packed size can exceed, whatever it says.
        where: the archive, quoted, for the message.
    """
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InvalidInputError(
            f"{where} needs members that are stored or deflated; {member.orig_filename!r} is packed by method "
            f"{member.compress_type}: pack it again."
        )
    if member.file_size > LARGEST_RATIO * min(member.compress_size, archive_bytes):
        raise InvalidInputError(
            f"{where} needs images that shrink to no less than 1/{LARGEST_RATIO}; member {member.orig_filename!r} says "
            f"{member.file_size:,} bytes out of {member.compress_size:,}: is it a decompression bomb?"
        )


def _check_members(members: Sequence[zipfile.ZipInfo], archive_bytes: int, where: str) -> None:
    """Refuses names and sizes that no honest packer writes."""
    if len(members) > _MOST_MEMBERS:
        raise InvalidInputError(f"{where} needs at most {_MOST_MEMBERS:,} members; it has {len(members):,}.")
    seen: set[str] = set()
    promised = 0
    for member in members:
        name = member.orig_filename
        kind = stat.S_IFMT(member.external_attr >> 16)
        if (
            re.search(r"[\\\0]|^[A-Za-z]:", name)
            or not {"", ".", ".."}.isdisjoint(name.removesuffix("/").split("/"))
            or kind not in (0, stat.S_IFREG, stat.S_IFDIR)
        ):
            raise InvalidInputError(
                f"{where} needs plain files with relative names; member {name!r} is not one: pack it again."
            )
        if name in seen:
            raise InvalidInputError(
                f"{where} needs names that occur once; member {name!r} occurs twice: pack it again."
            )
        seen.add(name)
        if member.flag_bits & 0x1:
            raise InvalidInputError(f"{where} needs to be without a password; member {name!r} is encrypted.")
        if is_archive(name) and not is_hidden(name):
            raise InvalidInputError(
                f"{where} needs images, not archives; member {name!r} is one: unpack it, and give the folder or pack "
                f"the images themselves."
            )
        if is_image(name):
            if member.file_size > decoding.LARGEST_FILE:
                raise InvalidInputError(
                    f"{where} needs images of at most {decoding.LARGEST_FILE:,} bytes; member {name!r} says "
                    f"{member.file_size:,}."
                )
            check_packing(member, archive_bytes, where)
            promised += member.file_size
    if promised > 4 * archive_bytes + _HONEST_BYTES:
        raise InvalidInputError(
            f"{where} has {archive_bytes:,} bytes and says that its images have {promised:,}: is it a decompression "
            f"bomb?"
        )
