"""`sagan-jax completion`: a script that lets a shell complete commands and flags."""

import contextlib
import dataclasses
import io
from collections.abc import Callable
from importlib import import_module
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from sagan_jax import cli
from sagan_jax.cli.arguments import parse_arguments


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Print a script that completes commands and flags.

    For bash, put this into ~/.bashrc: eval "$(sagan-jax completion bash)". For zsh, write the script to a file
    _sagan-jax in a folder of $fpath. For fish, write it to ~/.config/fish/completions/sagan-jax.fish.
    """

    shell: tyro.conf.Positional[Literal["bash", "zsh", "fish"]]
    """the shell"""


def run(arguments: list[str]) -> None:
    """Runs the command.

    Args:
        arguments: the words after the name of the command.
    """
    parsed = parse_arguments(Arguments, arguments, "sagan-jax completion")
    names = ConstructorRegistry()
    names.primitive_rule(_known_names)
    script = io.StringIO()
    # tyro prints the script, and then ends the program
    with names, contextlib.redirect_stdout(script), contextlib.suppress(SystemExit):
        tyro.extras.subcommand_cli_from_dict(
            _commands(),
            prog="sagan-jax",
            args=["--tyro-print-completion", parsed.shell],
            config=(tyro.conf.OmitArgPrefixes,),
        )
    print(_one_line_each(script.getvalue()), end="")


def _one_line_each(script: str) -> str:
    """Returns the script with each description on one line: the script offers every line as a word."""
    lines = script.split("\n")
    return "\n".join(line.replace(r"\n", " ") if line.startswith("COMPLETION_SPEC = ") else line for line in lines)


def _known_names(kind: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Returns the fixed names of a flag that also takes a user's objects, for a shell; None for other flags."""
    if get_origin(kind.type) not in (Union, UnionType):
        return None
    names = tuple(name for part in get_args(kind.type) if get_origin(part) is Literal for name in get_args(part))
    if not names or not all(isinstance(name, str) for name in names):
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{{{','.join(names)}}}|STR",
        instance_from_str=lambda words: words[0],
        is_instance=lambda value: True,
        str_from_instance=lambda value: [str(value)],
        choices=names,
    )


def _commands() -> dict[str, Callable[..., Any]]:
    """Returns the arguments of each command by its name."""
    modules = {name: import_module(f"sagan_jax.cli.{name}") for name in cli.__all__}
    found = {
        name.replace("_", "-"): module.Arguments for name, module in modules.items() if hasattr(module, "Arguments")
    }
    found["completion"] = found.pop("shell-completion")
    experiment = modules["train"].Experiment
    return found | {name: modules[name].Arguments[experiment] for name in ("train", "plan")}
