"""The errors that a user can cause or must know of; each carries the exit code of the command it ends."""


class SaganError(Exception):
    """One line for the user: what was needed, what was got, the likely cause."""

    exit_code = 1


class InvalidInputError(SaganError, ValueError):
    """Something given is wrong: a command, a config, data, weights or a checkpoint."""

    exit_code = 2


class NonFiniteError(SaganError, ArithmeticError):
    """A loss or a gradient stopped being a number."""

    exit_code = 5


class CollapsedError(SaganError):
    """The generator's images lost their variety, or its score went bad for good."""

    exit_code = 5


class StorageError(SaganError, OSError):
    """The disk refused: full, read-only, or not a directory."""

    exit_code = 6


class BusyError(SaganError, OSError):
    """Another run holds the workdir."""

    exit_code = 7


class PeerLostError(SaganError, ConnectionError):
    """A process of the same run is gone, or never came."""

    exit_code = 8


class StoppedError(SaganError):
    """A signal ended the run, after it had saved."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


def one_line(error: BaseException) -> str:
    """Returns what `error` says as one printable line without its full stop, or its name where it says nothing."""
    line = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)
