"""`sagan-jax completion`: a script that lets a shell complete commands and flags."""

import contextlib
import dataclasses
from collections.abc import Callable
from importlib import import_module
from typing import Any, Literal

import tyro

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
        arguments: those after the name of the command.
    """
    parsed = parse_arguments(Arguments, arguments, "sagan-jax completion")
    with contextlib.suppress(SystemExit):  # tyro prints the script, and then ends the program
        tyro.extras.subcommand_cli_from_dict(
            _commands(),
            prog="sagan-jax",
            args=["--tyro-print-completion", parsed.shell],
            config=(tyro.conf.OmitArgPrefixes,),
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
