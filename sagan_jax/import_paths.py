"""Classes and functions of a user by name, such as `my_package.layers:Layer` or `layers.py:Layer`."""

import contextlib
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from sagan_jax.errors import InvalidInputError, SaganError, one_line

_OBJECT = "It is written module:NAME or path/to/file.py:NAME, where NAME is a class or a function."
_INSTALLED = [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")]
_INSTALLED += [Path(__file__).parent]
# The files that were run, by path: the digest of the source, and the module.
_files: dict[Path, tuple[str, ModuleType]] = {}


def is_import_path(name: str) -> bool:
    """Returns whether a text has the form of an import path.

    Examples:
        >>> is_import_path("layers.py:Layer"), is_import_path("release")
        (True, False)
    """
    place, colon, attribute = name.rpartition(":")
    return bool(place and colon and attribute)


def names_an_object(text: str) -> bool:
    """Returns whether a text is an import path, and not the path of a file or folder.

    An import path is `path/to/file.py:NAME`, or `module:NAME` if no file or folder has that name.

    Examples:
        >>> names_an_object("faces.py:FACES"), names_an_object("my_package.faces:FACES")
        (True, True)
        >>> names_an_object("/data/faces"), names_an_object("pairs:blobs=3")
        (False, False)
    """
    place, _, attribute = text.rpartition(":")
    if not _is_dotted_name(attribute):
        return False
    return place.endswith(".py") or (_is_dotted_name(place) and not os.path.exists(text))  # noqa: PTH110  never raises


def _is_dotted_name(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))


def import_path(value: Any) -> str:
    """Returns the import path of a class, a function or an object at the top of a module; `find_object` finds it again.

    Args:
        value: the object, or its import path already. The path of a file becomes absolute.

    Raises:
        InvalidInputError: the object has no name in a module, for example because it was made inside a function.

    Examples:
        >>> from fractions import Fraction
        >>> import_path(Fraction), import_path("flax.linen:Dense")
        ('fractions:Fraction', 'flax.linen:Dense')
    """
    if isinstance(value, str):
        place, _, attribute = value.rpartition(":")
        return f"{Path(place).absolute()}:{attribute}" if place.endswith(".py") else value
    for module in _modules_of(value):
        for attribute in (getattr(value, "__qualname__", ""), *_names_in(module, value)):
            if attribute and _get(module, attribute) is value:
                return f"{_place_of(module)}:{attribute}"
    raise InvalidInputError(
        f"{_short(value)} has no name by which a saved run could find it again: give a class, a function or an object "
        f"that has a name at the top level of a file or a module, or give that name as module:NAME."
    )


def find_object(name: str, wanted: str = "the object") -> Any:
    """Returns the object of an import path. A module is imported; a file is run, once for each version of its source.

    Args:
        name: such as `my_package.layers:Layer` or `layers.py:Layer`.
        wanted: what the object is for, such as `--attention`; starts the error message.

    Raises:
        InvalidInputError: there is no such module, file or object, or it fails when it is run.

    Examples:
        >>> find_object("fractions:Fraction")
        <class 'fractions.Fraction'>
    """
    place, _, attribute = name.rpartition(":")
    if not is_import_path(name):
        raise InvalidInputError(f"{wanted} needs the name of an object; got {name!r}. {_OBJECT}")
    module = _module(place, f"{wanted} {name}")
    found = _get(module, attribute)
    if found is None:
        near = difflib.get_close_matches(attribute, vars(module), 1)
        hint = f" Perhaps you meant {near[0]}." if near else ""
        raise InvalidInputError(f"{wanted} {name}: {place} has no {attribute!r}.{hint}")
    return found


def source_digest(name: str, wanted: str = "the object") -> str:
    """Returns the SHA-256 of the file that holds the object of an import path.

    If that file only imports a class or a function, the file that defines it is hashed too. The result is "" if the
    module has no file, or if a file can no longer be read.

    Args:
        name: an import path that `find_object` finds.
        wanted: as for `find_object`.

    Raises:
        InvalidInputError: as `find_object`.
    """
    found = find_object(name, wanted)
    place = name.rpartition(":")[0]
    if Path(place).absolute() in _files:
        digest, module = _files[Path(place).absolute()]  # of the source that was run; the file may have changed since
    else:
        module = _module(place, wanted)  # for the file of a script that names its own class: the main program
        digest = _digest_of_file(module)
    defining = sys.modules.get(found.__module__) if inspect.isclass(found) or inspect.isroutine(found) else None
    if not digest or defining is None or defining is module:
        return digest
    return hashlib.sha256(f"{digest} {_digest_of_file(defining)}".encode()).hexdigest()


def _digest_of_file(module: ModuleType) -> str:
    try:
        return hashlib.sha256(Path(module.__file__ or "").read_bytes()).hexdigest()
    except (OSError, AttributeError):
        return ""


def run_file(path: Path, what: str) -> ModuleType:
    """Runs a Python file and returns its module.

    Args:
        path: the path of the file.
        what: what the file is, such as `The experiment file`; starts the error message.

    Raises:
        InvalidInputError: the file cannot be read, or raises.
    """
    whole = path.absolute()
    name = f"_{hashlib.sha256(os.fsencode(whole)).hexdigest()[:8]}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, whole, loader=_Source(name, str(whole)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with explained(path, what):
        digest = hashlib.sha256(whole.read_bytes()).hexdigest()
        before = _files.get(whole)
        # Classes and dataclasses look up their module while the file still runs.
        sys.modules[name], _files[whole] = module, (digest, module)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name], _files[whole]
            if before:
                sys.modules[name], _files[whole] = before[1], before
            raise
    return module


@contextlib.contextmanager
def explained(path: Path, what: str) -> Iterator[None]:
    """Turns what a user's file raises into an InvalidInputError of one line, which names the line of the file.

    Args:
        path: the path of the file.
        what: as for `run_file`.
    """
    try:
        yield
    except (Exception, SystemExit) as error:  # the user's file may raise anything
        raise InvalidInputError(
            f"{what} {str(path)!r} could not be read: {type(error).__name__}{line_of(error, path)}: {one_line(error)}."
        ) from error


@contextlib.contextmanager
def errors_of_user_code(what: str) -> Iterator[None]:
    """Turns what the code of a user raises into an InvalidInputError of one line, with file and line.

    Args:
        what: what was called, and with what; starts the message.
    """
    try:
        yield
    except SaganError:
        raise
    except (Exception, SystemExit) as error:  # a user's code may raise anything
        raise InvalidInputError(f"{what}: {type(error).__name__}{_place(error)}: {one_line(error)}.") from error


def _place(error: BaseException) -> str:
    """Returns the line of a user's file that an error came from, as ` in line 3 of 'networks.py'`; "" for none."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_own(Path(frame.filename))]
    return f" in line {frames[-1].lineno} of {Path(frames[-1].filename).name!r}" if frames else ""


def _is_own(path: Path) -> bool:
    return path.is_file() and not any(path.is_relative_to(folder) for folder in _INSTALLED)


def line_of(error: BaseException, path: str | Path) -> str:
    """Returns the line of a file that an error came from, or where the file cannot be parsed, as ` in line 3`."""
    if isinstance(error, SyntaxError) and error.lineno:
        return f" in line {error.lineno} of {Path(error.filename or path).name!r}"
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(Path(path).absolute())
    ]
    return f" in line {frames[-1].lineno}" if frames else ""


class _Source(SourceFileLoader):
    """Loads the current source. Python's cache would confuse two versions of equal size, saved in the same second."""

    def get_code(self, fullname: str) -> Any:
        return self.source_to_code(self.get_data(self.path), self.path)


def _module(place: str, what: str) -> ModuleType:
    """Returns the module of the first part of an import path."""
    if place.endswith(".py"):
        path = Path(place).absolute()
        if not path.is_file():
            raise InvalidInputError(f"{what}: there is no file {place!r}.")
        main = sys.modules["__main__"]  # a script that names its own class is not run again
        if getattr(main, "__file__", None) and Path(main.__file__).absolute() == path:
            return main
        with explained(path, f"{what}: the file"):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        known, module = _files.get(path, ("", None))
        return module if module and known == digest else run_file(path, f"{what}: the file")
    try:
        return importlib.import_module(place)
    except (Exception, SystemExit) as error:  # the user's module may raise anything
        absent = isinstance(error, ModuleNotFoundError) and f"{place}.".startswith(f"{error.name}.")
        hint = " Is its folder on PYTHONPATH? A file is named as path/to/file.py:NAME." if absent else ""
        raise InvalidInputError(
            f"{what}: the module {place!r} could not be imported: {type(error).__name__}{_place(error)}: "
            f"{one_line(error)}.{hint}"
        ) from error


def _modules_of(value: Any) -> Iterator[ModuleType]:
    """Yields the modules that may define an object: its own, then those of user files, then the main program."""
    for name in (getattr(value, "__module__", None), type(value).__module__):
        if isinstance(name, str) and name in sys.modules:
            yield sys.modules[name]
    yield from (module for _, module in _files.values())
    yield sys.modules["__main__"]


def _names_in(module: ModuleType, value: Any) -> list[str]:
    return [name for name, found in vars(module).items() if found is value]


def _place_of(module: ModuleType) -> str:
    """Returns the part of an import path before the colon."""
    file = getattr(module, "__file__", None)
    is_file = module.__name__ == "__main__" or any(module is known for _, known in _files.values())
    return str(Path(file).absolute()) if file and is_file else module.__name__


def _get(module: ModuleType, attribute: str) -> Any:
    """Returns the object of a dotted name in a module, or None."""
    found: Any = module
    for part in attribute.split("."):
        found = getattr(found, part, None)
    return found


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:60]}..."
