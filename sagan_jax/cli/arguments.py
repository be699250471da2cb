"""Parses the arguments of a command with tyro. An error is one line that names the flag and the values it takes."""

import dataclasses
import difflib
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar, get_origin, get_type_hints

import tyro

from sagan_jax.errors import InvalidInputError

Kind = TypeVar("Kind")

# Flags of other tools, and our flags for the same thing. A command suggests only flags of its own.
_KNOWN_ELSEWHERE = {
    "batch": "batch-size",
    "beta1": "adam-beta1",
    "beta2": "adam-beta2",
    "bs": "batch-size",
    "ckpt": "checkpoint",
    "class": "classes",
    "d-lr": "discriminator-learning-rate",
    "d-steps": "discriminator-steps",
    "data": "source images photos",
    "data-dir": "source",
    "data-path": "source",
    "dataroot": "source",
    "dataset": "source images",
    "ema": "ema-decay",
    "epochs": "total-steps",
    "eps": "adam-epsilon",
    "g-lr": "generator-learning-rate",
    "image-size": "resolution",
    "img-size": "resolution",
    "input": "source images",
    "iterations": "total-steps",
    "iters": "total-steps",
    "learning-rate": "generator-learning-rate discriminator-learning-rate",
    "logdir": "workdir",
    "logger": "callbacks",
    "loggers": "callbacks",
    "lr": "learning-rate generator-learning-rate discriminator-learning-rate",
    "lr-d": "discriminator-learning-rate",
    "lr-g": "generator-learning-rate",
    "max-steps": "total-steps",
    "metric": "protocol protocols",
    "metrics": "protocol protocols",
    "model-dir": "workdir",
    "n": "num-images num-samples samples",
    "n-classes": "num-classes",
    "n-critic": "discriminator-steps",
    "num": "num-images num-samples samples",
    "num-epochs": "total-steps",
    "num-samples": "num-images samples",
    "num-steps": "total-steps steps",
    "nz": "latent-size",
    "output": "out workdir",
    "output-dir": "out workdir",
    "outdir": "out workdir",
    "real": "reference",
    "restore": "workdir",
    "resume": "workdir",
    "run": "workdir",
    "size": "resolution",
    "step": "checkpoint total-steps",
    "steps": "total-steps",
    "tensorboard": "callbacks",
    "trunc": "truncation",
    "wandb": "callbacks",
    "weights": "inception-weights init-from generator",
    "z-dim": "latent-size",
}


def parse_arguments(
    kind: type[Kind],
    arguments: Sequence[str],
    prog: str,
    *,
    hint: Callable[[str], str] = lambda word: "",
    **options: Any,
) -> Kind:
    """Returns the arguments of a command. `--help` prints them and ends the program.

    Args:
        kind: a dataclass with a field for each argument.
        arguments: the words after the name of the command.
        prog: the words before them, such as `sagan-jax sample`.
        hint: returns a sentence about an unexpected word, or "".
        options: further options of `tyro.cli`.

    Raises:
        InvalidInputError: an argument is unknown, absent, or has a value of the wrong type.
    """
    flags = list(_flags(kind, options.get("default")))

    def refuse(event: Any) -> None:
        reason = _refusal(event, flags, hint)
        if reason:
            command = prog.removeprefix("sagan-jax ")
            raise InvalidInputError(f"{command}: {reason} See {prog.split()[0]} {command.split()[0]} --help.")

    with _on_parse_error(refuse):
        return tyro.cli(kind, args=[*arguments], prog=prog, **options)


def refuse_given(parsed: Any, names: Collection[str], why: str) -> None:
    """Raises InvalidInputError if a flag without effect was given: the first whose value is not its default.

    Args:
        parsed: the arguments, a dataclass.
        names: the names of the fields whose flags have no effect.
        why: the rest of the message, after the flag.
    """
    for field in dataclasses.fields(parsed):
        if field.name in names and getattr(parsed, field.name) != field.default:
            raise InvalidInputError(f"--{field.name.replace('_', '-')} {why}")


def expand_home(arguments: Sequence[str]) -> list[str]:
    """Returns the words of a command with `~` and `~name` expanded also after `=`, where a shell does not do it.

    Examples:
        >>> expand_home(["--seed=3", "~nobody-of-this-name/x"])
        ['--seed=3', '~nobody-of-this-name/x']
    """

    def expand(word: str) -> str:
        flag, equals, value = word.partition("=")
        if equals and flag.startswith("--"):
            return f"{flag}={os.path.expanduser(value)}"  # noqa: PTH111  pathlib raises for an unknown name
        return os.path.expanduser(word)  # noqa: PTH111

    return [expand(word) for word in arguments]


def _on_parse_error(hook: Callable[[Any], None]) -> AbstractContextManager[None]:
    """Returns a context that installs `hook` for tyro's errors. If tyro lacks this private API, it prints its own."""
    register = getattr(getattr(tyro, "_errors", None), "on_parse_error", None)
    return register(hook) if register else nullcontext()


def _flags(kind: Any, values: Any) -> Iterator[str]:
    """Yields the flags of a dataclass, and of the dataclasses that its fields have in `values`, without `--`."""
    kind = get_origin(kind) or kind  # of a generic class
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        value = getattr(values, field.name, None)
        metadata = getattr(hints[field.name], "__metadata__", ())
        if dataclasses.is_dataclass(value):
            yield from _flags(type(value), value)
        elif tyro.conf.Positional not in metadata:
            renamed = [entry.name for entry in metadata if getattr(entry, "name", None)]
            yield renamed[0] if renamed else field.name.replace("_", "-")


def _refusal(event: Any, flags: Sequence[str], hint: Callable[[str], str]) -> str:
    """Returns a sentence that says what is wrong; "" for an unknown kind of error."""
    kind = type(event).__name__
    if kind == "UnrecognizedArgs":
        return _unknown(event.tokens, flags, hint)
    if kind == "MissingArgs":
        unknown = _unknown(event.unrecognized_tokens, flags, hint) if event.unrecognized_tokens else ""
        missing = " and ".join(_name(missing.arg) for missing in event.missing_arguments)
        return f"{unknown} {missing} must be given.".lstrip()
    if kind == "InvalidChoice":
        near = difflib.get_close_matches(event.value, event.choices, 1)
        perhaps = f" Perhaps you meant {near[0]}." if near else ""
        return (
            f"{_name(event.argument)} needs to be one of {', '.join(event.choices)}; got {event.value!r}."
            f"{perhaps or hint(event.value)}"
        )
    if kind == "BadValue" and event.reason == "too_few_values":
        return f"{_name(event.argument)} needs a value, {_type(event.argument)}; got none."
    if kind == "InstantiationFailure" and event.argument is not None:
        # tyro's own messages name Python types. Messages of our parsers are written for the user.
        return f"{_name(event.argument)} needs {_type(event.argument)}; {_given(event.message)}.{hint(event.message)}"
    return ""


def _unknown(tokens: Sequence[str], flags: Sequence[str], hint: Callable[[str], str]) -> str:
    """Returns a sentence about the first unknown flag, or else about the first unexpected word."""
    unknown = next((token for token in tokens if token.startswith("-")), "")
    if not unknown:
        return f"{tokens[0]!r} is not expected here.{hint(tokens[0])}"
    given = unknown.lstrip("-").partition("=")[0].replace("_", "-")
    near = [name for name in _KNOWN_ELSEWHERE.get(given, "").split() if name in flags]
    near = near or [name for name in difflib.get_close_matches(given, flags, 3, 0.7) if name != given]
    perhaps = f" Perhaps you meant {' or '.join(f'--{name}' for name in near)}." if near else ""
    return f"there is no flag {unknown.partition('=')[0]!r}.{perhaps}"


def _name(argument: Any) -> str:
    name = argument.lowered.name_or_flags[0]
    return name.upper() if argument.is_positional() else name


def _type(argument: Any) -> str:
    """Returns the type of an argument in words, from its metavar in tyro: `{None}|INT`, `[INT [INT ...]]`."""
    names = {"INT": "a whole number", "FLOAT": "a number", "PATH": "a path", "STR": "a text"}
    metavar = argument.lowered.metavar or ""
    single = metavar.removeprefix("[").split()[0].rstrip("]") if metavar else "a value"
    kinds = [names.get(kind, kind.strip("{}").replace(",", ", ")) for kind in single.split("|") if kind != "{None}"]
    return f"values that are each {' or '.join(kinds)}" if metavar.startswith("[") else " or ".join(kinds)


def _given(message: str) -> str:
    """Returns the given words, taken from the end of tyro's message."""
    line = message.partition("\n")[0].rstrip(".")
    for start in ("base 10: ", "to float: ", "for arguments: ", "instantiated from "):
        if start in line:
            words = line.partition(start)[2].strip("[]")
            return f"got {words}"
    return line
