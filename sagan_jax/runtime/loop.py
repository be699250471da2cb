"""The loop of every task: it steps, looks, and hands the state to the actions that are due."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from sagan_jax.errors import NonFiniteError


class Action(NamedTuple):
    """Something to do with the state every so many steps, and after the last one."""

    every_steps: int
    run: Callable[[int, Any], None]
    """called with the number of steps done and the state"""
    when_stopped: bool = False
    """whether it is also done when the loop is stopped before its end"""


def run_loop(
    step: Callable[[Any, Any], tuple[Any, dict[str, Any]]],
    state: Any,
    batches: Iterable[Any],
    *,
    first_step: int,
    total_steps: int,
    guarded: Sequence[str],
    log_every_steps: int,
    log: Callable[[int, dict[str, float]], None],
    actions: Sequence[Action] = (),
    stopped: Callable[[int], bool] = lambda done: False,
) -> tuple[int, Any]:
    """Returns how many steps are done, and the state after them.

    Args:
        step: `(state, batch) -> (state, metrics)`; its metrics hold a bool `finite` and the guarded quantities.
        state: after `first_step` steps.
        batches: the data of the steps from `first_step` on.
        first_step: steps already done.
        total_steps: steps to have been done at the end.
        guarded: the metrics of which one is not finite when `finite` is False.
        log_every_steps: how often the metrics are fetched and logged.
        log: called with the number of steps done and the metrics.
        actions: run after the look, so never on a state that went wrong.
        stopped: asked with the number of steps done, before the first step and after each; True ends the loop.

    Raises:
        ValueError: when the batches end before `total_steps`.
        NonFiniteError: at the look after the first step that was not finite, naming it and the quantity.
    """
    unseen: list[dict[str, Any]] = []
    done = first_step
    if stopped(done):
        return done, state
    for done, batch in zip(range(first_step + 1, total_steps + 1), batches, strict=False):
        state, metrics = step(state, batch)
        unseen.append({name: metrics[name] for name in ("finite", *guarded)})
        last, stopping = done == total_steps, stopped(done)
        due = [
            action for action in actions if last or done % action.every_steps == 0 or (stopping and action.when_stopped)
        ]
        if due or last or stopping or done % log_every_steps == 0:
            _require_finite(jax.device_get(unseen), done - len(unseen) + 1)
            unseen = []
            log(done, {name: float(value) for name, value in jax.device_get(metrics).items() if name != "finite"})
        for action in due:
            action.run(done, state)
        if stopping:
            return done, state
    if done < total_steps:
        raise ValueError(f"run_loop needs batches up to step {total_steps}; they ended after step {done}.")
    return done, state


def _require_finite(looks: list[dict[str, Any]], first: int) -> None:
    for number, look in enumerate(looks, start=first):
        if not look["finite"]:
            wrong = {name: value for name, value in look.items() if name != "finite" and not np.isfinite(value)}
            quantity, value = next(iter(wrong.items()))
            raise NonFiniteError(
                f"Step {number}: {quantity} is {float(value)}, so the state was left as it was before that step. "
                f"Lower the learning rates or try another seed; what was saved before is whole."
            )
