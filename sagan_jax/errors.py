"""The errors that a user can cause or has to know about. Each class has the exit code of a command that it ends."""


class SaganError(Exception):
    """The base class. The message is one line: what was needed, what was given and the likely cause."""

    exit_code = 1


class InvalidInputError(SaganError, ValueError):
    """An input is wrong: the command, the config, the data, the weights or a checkpoint."""

    exit_code = 2


class NonFiniteError(SaganError, ArithmeticError):
    """A loss or a gradient became NaN or infinite.

    Attributes:
        step: the first training step that was not finite, or None if the error did not occur in a training step.
    """

    exit_code = 5

    def __init__(self, message: str = "", step: int | None = None) -> None:
        super().__init__(message)
        self.step = step


class CollapsedError(SaganError):
    """The run collapsed: D or G no longer learns, the images lost their variety, or the score stayed bad."""

    exit_code = 5


class StorageError(SaganError, OSError):
    """A file could not be written or a checkpoint not read: for example, the disk is full or permission is denied."""

    exit_code = 6


class BusyError(SaganError, OSError):
    """Another run uses the workdir."""

    exit_code = 7


class PeerLostError(SaganError, ConnectionError):
    """Another process of the same run has ended, or it never connected."""

    exit_code = 8


class StoppedError(SaganError):
    """A signal stopped the run. The run saved a checkpoint first."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number

    def __reduce__(self) -> tuple[type, tuple[str, int]]:  # pickles the error, to send it to another process
        return type(self), (str(self), self.exit_code - 128)


def one_line(error: BaseException) -> str:
    """Returns the message of `error` as one printable line without a full stop.

    An error without a message gives the name of its class.
    """
    line = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)
