"""Images in a folder."""

import os
from pathlib import Path
from typing import NamedTuple

from sagan_jax.data import decoding
from sagan_jax.data.csv_labels import CsvLabels
from sagan_jax.data.encoded import EncodedImages, Notify, digest_files
from sagan_jax.data.label_files import LABEL_FILE, MAX_LABEL_FILE_BYTES, label_images
from sagan_jax.data.layouts import is_hidden, is_image, wrapper_folder
from sagan_jax.data.own_folders import RUN_FOLDERS, is_own_folder, is_workdir
from sagan_jax.errors import InvalidInputError, one_line
from sagan_jax.runtime.files import open_regular

_LEVELS = 2  # levels of folders that are used without a label file
_ALL_LEVELS = 64


def open_folder(path: Path, notify: Notify, csv_labels: CsvLabels | None = None) -> EncodedImages:
    """Returns the images in the folder `path`.

    The images lie at the top, in class folders, or in class folders inside a single folder. A file `dataset.json` may
    hold their labels: see `sagan_jax.data.label_files`. With labels from a file, images may lie at any level. Workdirs
    and caches of this package are ignored.

    Args:
        path: the folder.
        notify: receives a line when labels come from a file, and when files or folders are ignored.
        csv_labels: labels that the user gave. They replace all others.

    Raises:
        InvalidInputError: when the folder cannot be listed, has another layout or has an invalid label file. Also when
            a pipe or a broken link has the name of an image.
    """
    where = repr(str(path))
    listing = _list_folder(path, where, _LEVELS)
    if csv_labels or any(name.rpartition("/")[2] == LABEL_FILE for name in listing.files):
        listing = _list_folder(path, where, _ALL_LEVELS)
    elif wrapper_folder(listing.files, listing.folders):
        listing = _list_folder(path, where, _LEVELS + 1)
    prefix = wrapper_folder(listing.files, listing.folders)
    if listing.own:
        notify(f"{where}: ignored folders of runs and caches: {', '.join(map(repr, sorted(listing.own)))}")
    everything = set(listing.files)
    if csv_labels:
        everything.discard(os.path.relpath(csv_labels.path.resolve(), path.resolve()))
    files = [name.removeprefix(prefix) for name in listing.files if name.startswith(prefix)]
    folders = {name.removeprefix(prefix) for name in listing.folders if name.startswith(prefix)}

    def read_start(name: str) -> bytes:
        with open_regular(path / name) as file:
            return file.read(MAX_LABEL_FILE_BYTES + 1)

    names, labels, class_names = label_images(files, folders, everything, prefix, read_start, where, notify, csv_labels)

    def read(index: int) -> bytes:
        with open_regular(path / names[index]) as file:
            data = file.read(decoding.MAX_FILE_BYTES + 1)
        if len(data) > decoding.MAX_FILE_BYTES:
            raise ValueError(f"it has more than {decoding.MAX_FILE_BYTES:,} bytes")
        return data

    return EncodedImages(
        title=path.resolve().name,
        where=where,
        count=len(names),
        name=names.__getitem__,
        read=read,
        labels=labels,
        class_names=class_names,
        content=lambda: digest_files(path, names),
    )


class _Listing(NamedTuple):
    """The relative names of the files and folders below a folder, and of folders that this package wrote."""

    files: list[str]
    folders: set[str]
    own: set[str]


def _list_folder(path: Path, where: str, levels: int) -> _Listing:
    """Returns the files and folders in `path` and, with more than one level, in its folders."""
    found = _Listing([], set(), set())

    def scan(parent: str, level: int, outer: frozenset[tuple[int, int]]) -> None:
        with os.scandir(path / parent) as entries:
            for entry in entries:
                name = f"{parent}/{entry.name}" if parent else entry.name
                if is_hidden(name):
                    continue
                if entry.is_dir():
                    scan_below(entry, name, level, outer)
                elif entry.is_file():
                    found.files.append(name)
                elif is_image(name):  # reading a named pipe could block forever
                    raise InvalidInputError(f"{where} needs regular files; {name!r} is a pipe or a broken link.")

    def scan_below(entry: os.DirEntry[str], name: str, level: int, outer: frozenset[tuple[int, int]]) -> None:
        if (name in RUN_FOLDERS and in_workdir) or is_own_folder(Path(entry.path)):
            found.own.add(name)
            return
        found.folders.add(name)
        identity = (entry.stat().st_dev, entry.stat().st_ino)
        if level < levels and identity not in outer:  # a link to a parent folder would recurse forever
            scan(name, level + 1, outer | {identity})

    try:
        in_workdir = is_workdir(path)
        scan("", 1, frozenset({(path.stat().st_dev, path.stat().st_ino)}))
    except OSError as error:
        raise InvalidInputError(f"Cannot list {where}: {one_line(error)}.") from error
    return found
