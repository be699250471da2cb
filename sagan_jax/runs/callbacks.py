"""Finds the callbacks of a run by name, and calls them so that a failing callback cannot damage the run."""

import inspect
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np

from sagan_jax.errors import InvalidInputError, SaganError, one_line
from sagan_jax.import_paths import find_object
from sagan_jax.runs.contracts import errors_of_user_code
from sagan_jax.runtime.callbacks import Callback, HowEnded, RunStart
from sagan_jax.runtime.weights_and_biases import require_wandb

NamedCallback = tuple[str, Callback]
"""The name of a callback in messages, and the callback."""

_OURS = {
    "tensorboard": "sagan_jax.runtime.tensorboard:TensorBoard",
    "wandb": "sagan_jax.runtime.weights_and_biases:WeightsAndBiases",
}
_METHODS = {
    name: list(inspect.signature(getattr(Callback, name)).parameters)[1:]
    for name in ("start", "metrics", "images", "scores", "end")
}


def find_callbacks(names: Sequence[str], given: Sequence[Callback] = ()) -> list[NamedCallback]:
    """Returns the callbacks of a config, followed by those that were passed in Python.

    Args:
        names: `tensorboard`, `wandb`, or import paths of a callback or of a callable that makes one without arguments.
        given: callbacks that were passed in Python.

    Raises:
        InvalidInputError: there is no such object, it lacks a method of `Callback`, or its package is not installed.
    """
    found = [(name, _found(name)) for name in dict.fromkeys(names)]
    found += [(type(callback).__qualname__, callback) for callback in given]
    for name, callback in found:
        _check(name, callback)
    return found


def _found(name: str) -> Any:
    if name == "wandb":
        require_wandb()
    found = find_object(_OURS.get(name, name), "--callbacks")
    if isinstance(found, type) or (callable(found) and not hasattr(found, "metrics")):
        with errors_of_user_code(f"--callbacks {name} could not be called without arguments"):
            found = found()
    return found


def _check(name: str, callback: Any) -> None:
    """Raises InvalidInputError if an object lacks a method of a callback, or if a method takes other arguments."""
    for method, arguments in _METHODS.items():
        wanted = f"--callbacks {name} needs a method {method}({', '.join(arguments)})"
        function = getattr(callback, method, None)
        if not callable(function):
            has = f"an object of type {type(callback).__name__} has none"
            raise InvalidInputError(f"{wanted}; {has}. A subclass of sagan_jax.Callback has all of them.")
        signature = inspect.signature(function)
        try:
            signature.bind(*arguments)
        except TypeError:
            raise InvalidInputError(f"{wanted}; its own is {method}{signature}.") from None


class CallbackCalls(Callback):
    """Calls the callbacks of a run. As a context manager it starts them on entry and ends them on exit.

    After a callback fails, only its `end` is still called. A line on stderr names the callback and the line of its
    file.

    Args:
        callbacks: as `find_callbacks` returns them.
        run: the argument of their `start`.

    Raises:
        InvalidInputError: on entry, if a callback fails to start. The callbacks that had started are ended first.
    """

    def __init__(self, callbacks: Sequence[NamedCallback], run: RunStart) -> None:
        self._callbacks, self._run = callbacks, run
        self._failed: list[Callback] = []
        self._begun: list[NamedCallback] = []

    def __enter__(self) -> Self:
        try:
            self.start(self._run)
        except BaseException as error:
            self.end("failed", one_line(error))
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end("failed", one_line(error) if error else "")  # does nothing if they have ended already

    def start(self, run: RunStart) -> None:
        """Starts all callbacks; see `Callback` for this method and the others."""
        for name, callback in self._callbacks:
            with errors_of_user_code(f"The callback {name} could not start"):
                callback.start(run)
            self._begun.append((name, callback))

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Passes metrics to the callbacks."""
        self._call("metrics", step, values)

    def images(self, name: str, step: int, image: np.ndarray) -> None:
        """Passes a picture to the callbacks, as a read-only view."""
        image = image.view()
        image.flags.writeable = False
        self._call("images", name, step, image)

    def scores(self, step: int, values: Mapping[str, float]) -> None:
        """Passes scores to the callbacks."""
        self._call("scores", step, values)

    def end(self, how: HowEnded, message: str) -> None:
        """Ends the callbacks that have started. A second call does nothing."""
        self._failed.clear()
        self._call("end", how, message)
        self._begun = []

    def _call(self, method: str, *arguments: Any) -> None:
        for name, callback in self._begun:
            if any(callback is failed for failed in self._failed):
                continue
            copies = [dict(value) if isinstance(value, Mapping) else value for value in arguments]
            what = f"The callback {name} failed in {method}"
            try:
                with errors_of_user_code(what):
                    getattr(callback, method)(*copies)
            except SaganError as error:
                self._failed.append(callback)
                reason = str(error) if str(error).startswith(what) else f"{what}: {one_line(error)}."
                goes_on = "" if method == "end" else " The run goes on without it."
                print(f"warning: {reason}{goes_on}", file=sys.stderr, flush=True)
