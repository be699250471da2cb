"""`sagan-jax`: dispatches to the commands, and turns an error into one line and an exit code."""

import difflib
import logging
import sys
from collections.abc import Callable, Sequence

import sagan_jax
from sagan_jax.cli import (
    attend,
    complete,
    convert,
    evaluate,
    explore,
    export,
    fetch_weights,
    interpolate,
    neighbours,
    report,
    sample,
    train,
)
from sagan_jax.errors import InvalidInputError, SaganError, StoppedError

COMMANDS = {
    "train": train.run,
    "sample": sample.run,
    "evaluate": evaluate.run,
    "complete": complete.run,
    "attend": attend.run,
    "explore": explore.run,
    "interpolate": interpolate.run,
    "neighbours": neighbours.run,
    "report": report.run,
    "export": export.run,
    "convert": convert.run,
    "fetch-weights": fetch_weights.run,
}

USAGE = """usage: sagan-jax COMMAND [...]

Self-attention for image generation in JAX.

  train [EXPERIMENT] [--workdir DIR] [...]   train an experiment (default: digits_32)
  sample --workdir DIR --out FILE [...]      draw samples of a trained run
  evaluate --workdir DIR [--protocol NAME]   score a trained run, or images against images
  complete PHOTO --workdir DIR --mask FILE   fill the hole of a photograph
  attend --workdir DIR                       figures of where the attention of a run looks
  explore --workdir DIR --out FILE.html      an interactive page of where the attention looks
  interpolate --workdir DIR --out FILE       images between two samples, as a picture or an animation
  neighbours --workdir DIR --out FILE.png    the training images nearest to samples: are any memorised?
  report --workdir DIR [--out FILE]          the report of a run, which a run also writes itself
  export --workdir DIR [--out DIR]           the generator as weights, and as a function that needs jax alone
  fetch-weights                              download the FID network
  convert --from SOURCE [...] OUT            convert released weights: networks to a run, the FID network to a file

  sagan-jax COMMAND --help                   the arguments of a command
  sagan-jax --version
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code of a command line.

    Args:
        arguments: defaults to those of the process, without its name.

    Returns:
        0 finished; 2 something given is wrong; 5 not finite or collapsed; 6 storage; 7 workdir in use; 8 another
        process of the run is lost; 130 or 143 stopped by Ctrl-C or SIGTERM.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns where there is no home folder for its cache
    given = list(sys.argv[1:] if arguments is None else arguments)
    command, rest = (given[0], given[1:]) if given else ("", [])
    if command in ("--help", "-h", "help"):
        print(USAGE, end="")
        return 0
    if command == "--version":
        print(sagan_jax.__version__)
        return 0
    return explained(lambda: _command(command)(rest))


def explained(work: Callable[[], None], program: str = "sagan-jax") -> int:
    """Calls a function and returns an exit code: 0, or that of its error, which is printed as one line.

    Args:
        work: the function.
        program: the name in front of the line.
    """
    try:
        work()
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        return _explain(error, program)
    return 0


def _command(name: str) -> Callable[[list[str]], None]:
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1, 0.4)
        hint = f" Perhaps you meant {near[0]!r}." if near else ""
        raise InvalidInputError(
            f"sagan-jax needs a command, {' or '.join(COMMANDS)}; got {name!r}.{hint} See sagan-jax --help."
        )
    return COMMANDS[name]


def _explain(error: Exception, program: str) -> int:
    """Prints an error as one line and returns its exit code; an error that is not the user's keeps its traceback."""
    # Imported here, because importing jax takes a second.
    from sagan_jax.runtime.devices import backend_error
    from sagan_jax.runtime.files import system_error
    from sagan_jax.runtime.processes import exit_if_distributed, peer_lost_error

    known = peer_lost_error(error) or backend_error(error) or error
    if not isinstance(known, SaganError):
        known = system_error(known) or known
    if not isinstance(known, SaganError):
        raise error
    print(f"{program}: {known}", file=sys.stderr, flush=True)
    if not isinstance(known, StoppedError):
        exit_if_distributed(known.exit_code)
    return known.exit_code


if __name__ == "__main__":
    sys.exit(main())
