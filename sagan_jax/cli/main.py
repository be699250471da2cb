"""`sagan-jax`: dispatches to the commands, and turns what goes wrong into one line and an exit code."""

import difflib
import sys
from collections.abc import Sequence

import sagan_jax
from sagan_jax.cli import sample, train
from sagan_jax.errors import InvalidInputError, SaganError

COMMANDS = {"train": train.run, "sample": sample.run}

USAGE = """usage: sagan-jax COMMAND [...]

Self-attention for image generation in JAX.

  train [EXPERIMENT] [--workdir DIR] [...]   train an experiment; digits_32 unless given
  sample --workdir DIR --out FILE [...]      draw images from a trained run

  sagan-jax COMMAND --help                   what a command takes
  sagan-jax --version
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code of a command line.

    Args:
        arguments: those of the process unless given, without its name.

    Returns:
        0 finished; 2 something given is wrong; 5 not finite; 6 storage; 130 interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    command, rest = (given[0], given[1:]) if given else ("", [])
    if command in ("--help", "-h", "help"):
        print(USAGE, end="")
        return 0
    if command == "--version":
        print(sagan_jax.__version__)
        return 0
    try:
        if command not in COMMANDS:
            near = difflib.get_close_matches(command, COMMANDS, 1, 0.4)
            hint = f" Perhaps you meant {near[0]!r}." if near else ""
            raise InvalidInputError(
                f"sagan-jax needs a command, {' or '.join(COMMANDS)}; got {command!r}.{hint} See sagan-jax --help."
            )
        COMMANDS[command](rest)
    except SaganError as error:
        print(f"sagan-jax: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("sagan-jax: interrupted; the last checkpoint is whole, the same command goes on from it", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
