"""The classes of a run by name, as its data set calls them: the names of class folders, or those in its files."""

import difflib
from collections.abc import Sequence

from sagan_jax.errors import InvalidInputError
from sagan_jax.runs.load import GenerationRun

_SHOWN = 10  # names in one line


def class_numbers(run: GenerationRun, classes: Sequence[int | str]) -> list[int]:
    """Returns the numbers of classes that are given by number or by name.

    A whole number is a number, also where a class has that name. The names are those that the checkpoint holds. Older
    checkpoints hold none; for them the training images are opened.

    Args:
        run: at a checkpoint.
        classes: numbers, or names such as those of class folders.

    Raises:
        InvalidInputError: there is no class of a name, or the names are not known. A number is not checked.
    """
    numbers = [number_of(word) for word in classes]
    if None not in numbers:
        return [number for number in numbers if number is not None]
    unnamed = next(word for word, number in zip(classes, numbers, strict=True) if number is None)
    names = _names(run, str(unnamed))
    return [
        _named(str(word), names) if number is None else number for word, number in zip(classes, numbers, strict=True)
    ]


def number_of(word: int | str) -> int | None:
    """Returns the whole number that a word is, or None.

    Examples:
        >>> number_of("7"), number_of("-1"), number_of("seven")
        (7, -1, None)
    """
    try:
        return int(word)
    except ValueError:
        return None


def _names(run: GenerationRun, wanted: str) -> Sequence[str]:
    """Returns the name of each class; `wanted` is one that was asked for."""
    classes = run.experiment.networks.num_classes
    if not classes:
        raise InvalidInputError(f"The generator has no classes; got the class {wanted!r}.")
    if run.class_names:
        return run.class_names
    try:
        return run.images().class_names
    except InvalidInputError as error:
        raise InvalidInputError(
            f"The run has no names of its classes, and its training images cannot be opened: give the number of "
            f"{wanted!r}, 0 to {classes - 1}. ({error})"
        ) from error


def _named(word: str, names: Sequence[str]) -> int:
    if word in names:
        return list(names).index(word)
    lower = {name.lower(): name for name in names}
    near = [lower[name] for name in difflib.get_close_matches(word.lower(), lower, 3, 0.5)]
    if near:
        raise InvalidInputError(f"There is no class {word!r}. Perhaps you meant {' or '.join(map(repr, near))}.")
    shown = ", ".join(map(repr, names[:_SHOWN])) + (", .." if len(names) > _SHOWN else "")
    raise InvalidInputError(f"There is no class {word!r}. There are {len(names)}: {shown}.")
