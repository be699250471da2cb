"""`sagan-jax`: dispatches to the commands, and turns an error into one line and an exit code.

A command is imported when it is called, so that signal handlers are in place before its slow imports.
"""

import errno
import sys
from collections.abc import Callable, Sequence
from signal import Signals

import sagan_jax
from sagan_jax.errors import InvalidInputError, SaganError, StoppedError, StorageError
from sagan_jax.runtime.lost_output import flush_outputs, lost_outputs
from sagan_jax.runtime.signal_listener import SignalListener, end_process, stop_signals

# The module of each command, in `sagan_jax.cli`.
COMMANDS = {
    "train": "train",
    "sample": "sample",
    "evaluate": "evaluate",
    "complete": "complete",
    "attend": "attend",
    "explore": "explore",
    "interpolate": "interpolate",
    "animate": "animate",
    "invert": "invert",
    "neighbours": "neighbours",
    "report": "report",
    "plan": "plan",
    "benchmark": "benchmark",
    "reproduce": "reproduce",
    "export": "export",
    "convert": "convert",
    "fetch-weights": "fetch_weights",
    "info": "info",
    "completion": "shell_completion",
}

USAGE = """usage: sagan-jax COMMAND [...]

Self-attention for image generation in JAX.

  train [EXPERIMENT] [--workdir DIR] [...]   train an experiment (default: digits_32)
  sample --workdir DIR --out FILE [...]      draw samples of a trained run
  evaluate --workdir DIR [--protocol NAME]   score a trained run, or images against images
  complete PHOTO --workdir DIR --mask FILE   fill the hole of a photograph
  attend --workdir DIR                       figures of the attention maps of a run
  explore --workdir DIR --out FILE.html      an interactive page of the attention maps of a run
  interpolate --workdir DIR --out FILE       images between two samples, as a picture or an animation
  animate --workdir DIR --out FILE           training as an animation, from the pictures that the run has drawn
  invert PHOTO... --workdir DIR              the latent and class that best reproduce a photograph
  neighbours --workdir DIR --out FILE.png    the training images nearest to samples: are any memorised?
  report --workdir DIR [--out FILE]          the report of a run, which a run also writes itself
  plan EXPERIMENT [--topology v5e:2x4 ...]   memory, collectives and time on TPUs and GPUs that are not here
  benchmark long_range --attention LAYER     compare an attention layer with ours on long-range tasks
  reproduce {figure4,cifar10} --source DIR   train published rows again, score them, and compare
  export --workdir DIR [--out DIR]           the generator as weights and function, or a folder for the HF hub
  fetch-weights                              download the FID network or DINOv2
  convert --from SOURCE [...] OUT            convert released weights: to a run, or the FID network and DINOv2 to a file
  info                                       versions, devices, caches and weights: what a bug report needs
  completion {bash,zsh,fish}                 completion of commands and flags for a shell

  sagan-jax COMMAND --help                   the arguments of a command
  sagan-jax --version
"""


# The flag to lower when memory runs out. Training gives its own advice, with its batch size.
_MEMORY_FLAGS = {
    "sample": "--batch-size",
    "evaluate": "--batch-size",
    "complete": "--samples",
    "attend": "--num-images",
    "explore": "--steps",
    "interpolate": "--rows or --steps",
    "invert": "--starts",
    "neighbours": "--num-images",
    "plan": "--batch-size",
    "reproduce": "--batch-size",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code of a command line.

    Args:
        arguments: the words of the command line. Defaults to those of the process, without its name.

    Returns:
        0 finished; 2 invalid input; 5 not finite or collapsed; 6 storage; 7 workdir in use; 8 another process of the
        run is lost; 129, 130 or 143 ended by SIGHUP, Ctrl-C or SIGTERM; 141 the output was closed by its reader.
    """
    if arguments is not None:
        return _exit_code(list(arguments))
    listener = SignalListener(stop_signals(), _end)
    listener.__enter__()  # until the process ends, because its exit takes a while too
    try:
        return _exit_code(sys.argv[1:])
    finally:
        flush_outputs()


def _exit_code(given: list[str]) -> int:
    if not given:
        print(USAGE, end="", file=sys.stderr)
        return 2
    return explained(lambda: _run(given), memory_flag=_MEMORY_FLAGS.get(given[0], ""))


def _end(number: Signals) -> None:
    """Ends the process. An exception in the main thread would wait while jax compiles, or be lost in its callbacks."""
    end_process(number, f"sagan-jax: interrupted by {number.name}")


def _run(given: list[str]) -> None:
    command, rest = given[0], given[1:]
    if command in ("--help", "-h", "help"):
        print(USAGE, end="")
    elif command == "--version":
        print(sagan_jax.__version__)
    else:
        run = _command(command)
        import logging

        from sagan_jax.cli.arguments import expand_home

        logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns if there is no home folder for its cache
        run(expand_home(rest))
    sys.stdout.flush()  # here a write error is still reported in one line


def explained(work: Callable[[], None], program: str = "sagan-jax", memory_flag: str = "") -> int:
    """Calls a function, prints its error as one line, and returns the exit code: 0, or that of the error.

    Args:
        work: the function.
        program: the name in front of the line.
        memory_flag: the flag to lower when memory runs out, if there is one.
    """
    try:
        work()
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        return _explain(error, program, memory_flag)
    return 0


def _command(name: str) -> Callable[[list[str]], None]:
    import importlib

    if name not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(name, COMMANDS, 1, 0.4)
        hint = f" Perhaps you meant {near[0]!r}." if near else ""
        raise InvalidInputError(f"there is no command {name!r}.{hint} There are {', '.join(COMMANDS)}.")
    return importlib.import_module(f"sagan_jax.cli.{COMMANDS[name]}").run


def _explain(error: Exception, program: str, memory_flag: str) -> int:
    """Prints a known error as one line, and returns its exit code. Raises an unknown error again."""
    if isinstance(error, BrokenPipeError) and lost_outputs():
        return 141  # the exit code of a program that SIGPIPE ended
    if isinstance(error, SaganError) and "jax" not in sys.modules:
        print(f"{program}: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    # Imported here, because importing jax takes a second.
    from sagan_jax.runtime.devices import backend_error
    from sagan_jax.runtime.files import system_error
    from sagan_jax.runtime.memory import memory_error
    from sagan_jax.runtime.processes import exit_if_distributed, peer_lost_error

    advice = f"Lower {memory_flag}." if memory_flag else "Do other programs use it?"
    known = peer_lost_error(error) or backend_error(error) or memory_error(error, advice) or _output_error(error)
    known = known or error
    if not isinstance(known, SaganError):
        known = system_error(known) or known
    if not isinstance(known, SaganError):
        raise error
    print(f"{program}: {known}", file=sys.stderr, flush=True)
    if not isinstance(known, StoppedError):
        exit_if_distributed(known.exit_code)
    return known.exit_code


def _output_error(error: Exception) -> StorageError | None:
    """Returns the error for printed output that went to a full disk; None for errors of files, which have a name."""
    if isinstance(error, OSError) and error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(f"the output could not be written: {error.strerror}")
    return None


if __name__ == "__main__":
    sys.exit(main())
