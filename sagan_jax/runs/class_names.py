"""Finds classes of a run by name. The names come from its data set: from class folders, or from its files."""

import difflib
import re
from collections.abc import Iterable, Sequence

from sagan_jax.errors import InvalidInputError
from sagan_jax.runs.load import GenerationRun

_SHOWN = 10  # names in one line


def class_numbers(run: GenerationRun, classes: Sequence[int | str]) -> list[int]:
    """Returns the numbers of classes that are given by number or by name.

    An integer is always read as a class number, even if a class has that name. Names come from the checkpoint. Older
    checkpoints hold no names; for them the training images are opened.

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
    """Returns a word as an integer, or None if it is not one.

    Examples:
        >>> number_of("7"), number_of("-1"), number_of("seven"), number_of("2019_01")
        (7, -1, None, None)
    """
    return int(word) if re.fullmatch(r"[+-]?[0-9]+", str(word)) else None


def _names(run: GenerationRun, wanted: str) -> Sequence[str]:
    """Returns the name of each class; `wanted` is a requested name, for error messages."""
    classes = run.experiment.networks.num_classes
    if not classes:
        raise InvalidInputError(f"The generator has no classes; got the class {wanted!r}.")
    if run.class_names:
        return run.class_names
    try:
        return run.images().class_names
    except InvalidInputError as error:
        raise InvalidInputError(
            f"The run has no class names, and its training images cannot be opened: give the number of "
            f"{wanted!r}, 0 to {classes - 1}. ({error})"
        ) from error


def _named(word: str, names: Sequence[str]) -> int:
    numbers = [number for number, name in enumerate(names) if name == word]
    if len(numbers) > 1:
        raise InvalidInputError(f"There are {len(numbers)} classes {word!r}: give a number, {_either(numbers)}.")
    if numbers:
        return numbers[0]
    lower = {name.lower(): name for name in names}
    near = [lower[name] for name in difflib.get_close_matches(word.lower(), lower, 3, 0.5)]
    if near:
        raise InvalidInputError(f"There is no class {word!r}. Perhaps you meant {_either(map(repr, near))}.")
    shown = ", ".join(map(repr, names[:_SHOWN])) + (", .." if len(names) > _SHOWN else "")
    raise InvalidInputError(f"There is no class {word!r}. There are {len(names)}: {shown}.")


def _either(words: Iterable[object]) -> str:
    return " or ".join(map(str, words))
