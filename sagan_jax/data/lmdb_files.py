"""Images in an LMDB environment, the format of LSUN: each value is an image file."""

import threading
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from sagan_jax.data import decoding
from sagan_jax.data.encoded import EncodedImages, digest_files
from sagan_jax.errors import InvalidInputError, one_line

_DATA = "data.mdb"
# A process may open an environment only once. It is closed when it has no more references.
_open_ones: WeakValueDictionary[Path, Any] = WeakValueDictionary()
_lock = threading.Lock()


def is_lmdb(path: Path) -> bool:
    """Returns whether a path is an LMDB environment: a folder with `data.mdb`, or an `.mdb` or `.lmdb` file."""
    try:
        return (path / _DATA).is_file() or (path.is_file() and path.suffix.lower() in (".mdb", ".lmdb"))
    except OSError:  # a folder without access; listing it later reports the error
        return False


def open_lmdb(path: Path) -> EncodedImages:
    """Returns the images of an LMDB environment, in the order of their keys, without labels.

    The file is memory-mapped, and the lmdb library hardly validates it. So do not open files of unknown origin.

    Raises:
        InvalidInputError: when the package lmdb is not installed, the file is damaged, or it is empty.
    """
    try:
        import lmdb
    except ImportError as error:
        raise InvalidInputError(
            "LMDB files need the package lmdb, which is not installed. Run: pip install 'sagan-jax[lmdb]'."
        ) from error
    where, file = repr(str(path)), path / _DATA if path.is_dir() else path
    try:
        if not file.stat().st_size:
            raise ValueError(f"{file.name!r} is empty")
        environment = _environment(lmdb, path)
        needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        if file.stat().st_size < needed:  # reading a missing page would crash the process
            raise ValueError(f"it has {file.stat().st_size:,} bytes of {needed:,}; was it copied whole?")
        with environment.begin() as transaction:
            keys = list(transaction.cursor().iternext(keys=True, values=False))
    except Exception as error:  # a damaged file raises many kinds of error
        raise InvalidInputError(f"Cannot read {where} as LMDB: {one_line(error)}.") from error
    if not keys:
        raise InvalidInputError(f"{where} needs images; it has no entries.")

    def read(index: int) -> bytes:
        with environment.begin() as transaction:
            data = transaction.get(keys[index])
        if data is None:
            raise ValueError("its entry is gone")
        if len(data) > decoding.MAX_FILE_BYTES:
            raise ValueError(f"it has more than {decoding.MAX_FILE_BYTES:,} bytes")
        return bytes(data)

    return EncodedImages(
        title=path.resolve().name,
        where=where,
        count=len(keys),
        name=lambda index: keys[index].decode(errors="backslashreplace"),
        read=read,
        labels=None,
        class_names=[],
        content=lambda: digest_files(file.parent, [file.name]),
    )


def _environment(lmdb: Any, path: Path) -> Any:
    """Returns an environment, opened read-only. It writes no lock file, so its folder need not be writable."""
    key = path.resolve()
    with _lock:
        found = _open_ones.get(key)
        if found is None:
            # Images are read in random order, so reading ahead is useless.
            options = {"readonly": True, "lock": False, "create": False, "readahead": False, "meminit": False}
            found = _open_ones[key] = lmdb.open(str(path), subdir=path.is_dir(), **options)
        return found
