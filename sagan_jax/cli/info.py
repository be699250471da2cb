"""`sagan-jax info`: versions, devices, caches and weights, for a bug report."""

import dataclasses

from sagan_jax.cli.arguments import parse_arguments


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Print what a bug report needs: versions, devices, settings, caches and weights, and which of them fail."""


def run(arguments: list[str]) -> None:
    """Runs the command.

    Args:
        arguments: the words after the name of the command.
    """
    parse_arguments(Arguments, arguments, "sagan-jax info")
    from sagan_jax.runs.info import info_lines

    for line in info_lines():
        print(line, flush=True)
