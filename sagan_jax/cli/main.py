"""`sagan-jax`: dispatches to the commands, and turns what goes wrong into one line and an exit code."""

import difflib
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

  train [EXPERIMENT] [--workdir DIR] [...]   train an experiment; digits_32 unless given
  sample --workdir DIR --out FILE [...]      draw images from a trained run
  evaluate --workdir DIR [--protocol NAME]   score a trained run, or images against images
  complete PHOTO --workdir DIR --mask FILE   fill the hole of a photograph
  attend --workdir DIR                       where the attention of a run looks, as figures
  explore --workdir DIR --out FILE.html      where the attention looks, as a page to move over
  interpolate --workdir DIR --out FILE       from one sample to another, as a picture or an animation
  neighbours --workdir DIR --out FILE.png    the training images nearest to samples: are they memorised?
  report --workdir DIR [--out FILE]          a page with all that a run did; a run writes it itself
  export --workdir DIR [--out DIR]           the generator as weights and as a function of jax alone
  fetch-weights                              download the network that FID is defined in
  convert --from SOURCE [...] OUT            released weights: networks to a run, the FID network to a file

  sagan-jax COMMAND --help                   what a command takes
  sagan-jax --version
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code of a command line.

    Args:
        arguments: those of the process unless given, without its name.

    Returns:
        0 finished; 2 something given is wrong; 5 not finite; 6 storage; 7 workdir in use; 8 another process of the run
        is gone; 130 or 143 stopped by Ctrl-C or SIGTERM.
    """
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
    """Returns the exit code of some work, which is 0 or that of what went wrong, then said in one line.

    Args:
        work: what is done.
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
    """Returns the exit code of an error, its line printed; what is no user's mistake keeps its traceback."""
    from sagan_jax.runtime.processes import leave, lost_peer  # here: jax takes a while to import

    known = lost_peer(error) or error
    if not isinstance(known, SaganError):
        raise error
    print(f"{program}: {known}", file=sys.stderr, flush=True)
    if not isinstance(known, StoppedError):
        leave(known.exit_code)
    return known.exit_code


if __name__ == "__main__":
    sys.exit(main())
