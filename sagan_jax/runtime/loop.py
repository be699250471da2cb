"""The training loop of all tasks: it runs steps, checks and logs metrics, and runs periodic actions."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from sagan_jax.errors import NonFiniteError
from sagan_jax.runtime.prefetch import PrefetchedBatches

# Steps that are dispatched while an earlier one runs. The device stays busy while the host prepares the next batch, and
# a stop does not wait for many steps.
_STEPS_AHEAD = 2


class PeriodicAction(NamedTuple):
    """A function that the loop calls with the state every `every_steps` steps and after the last step."""

    every_steps: int
    run: Callable[[int, Any], None]
    """receives the number of completed steps and the state"""
    on_stop: bool = False
    """whether it also runs when the loop is stopped early"""


def run_loop(
    step: Callable[[Any, Any], tuple[Any, dict[str, Any]]],
    state: Any,
    batches: Iterable[Any],
    *,
    first_step: int,
    total_steps: int,
    finite_metrics: Sequence[str],
    log_every_steps: int,
    log: Callable[[int, dict[str, float]], None],
    place: Callable[[Any], Any] = lambda batch: batch,
    actions: Sequence[PeriodicAction] = (),
    stopped: Callable[[int], bool] = lambda done: False,
    started: Callable[[int], None] = lambda done: None,
) -> tuple[int, Any]:
    """Runs steps until `total_steps` or a stop, and returns the number of completed steps and the state.

    Args:
        step: `(state, batch) -> (state, metrics)`; its metrics hold a bool `finite` and all of `finite_metrics`.
        state: the state after `first_step` steps.
        batches: the data of the steps, from step `first_step`. One batch is fetched ahead, while the step before it
            runs. If fetching fails, the error is raised after the running step is checked, logged and saved as usual.
        first_step: the number of steps already completed.
        total_steps: the number of completed steps at the end.
        finite_metrics: the metrics behind `finite`: if it is False, one of them is not finite.
        log_every_steps: how often the metrics are fetched and logged.
        log: receives the number of completed steps and the metrics. They include `input_wait`, the share of the time
            since the last log in which the devices waited for data, in [0, 1].
        place: starts the transfer of a batch to the devices, and returns the batch for `step`.
        actions: the periodic actions. They run after the check, so they never see a state with NaN.
        stopped: receives the number of completed steps, before the first step and after each step. True ends the loop.
        started: receives the number of each step when it is compiled and dispatched to the device.

    Raises:
        ValueError: when the batches end before `total_steps`.
        NonFiniteError: when a step was not finite. The message names the first such step and the metric.
    """
    unchecked: list[dict[str, Any]] = []
    done = first_step
    if stopped(done):
        return done, state
    with PrefetchedBatches(batches, place) as prefetched:
        while done < total_steps:
            batch = _next_batch(prefetched, done, total_steps)
            state, metrics = step(state, batch)
            del batch  # so that the devices can use its memory again
            done += 1
            started(done)
            unchecked.append({name: metrics[name] for name in ("finite", *finite_metrics)})
            if len(unchecked) > _STEPS_AHEAD:
                jax.block_until_ready(unchecked[-1 - _STEPS_AHEAD])
            last, stopping = done == total_steps, stopped(done)
            if not last and not stopping:
                prefetched.fetch(metrics["finite"])
            due = [
                action for action in actions if last or done % action.every_steps == 0 or (stopping and action.on_stop)
            ]
            if due or last or stopping or done % log_every_steps == 0:
                _require_finite(jax.device_get(unchecked), done - len(unchecked) + 1)
                unchecked = []
                values = {name: float(value) for name, value in jax.device_get(metrics).items() if name != "finite"}
                log(done, values | {"input_wait": prefetched.waited_share()})
            for action in due:
                action.run(done, state)
            if stopping:
                break
    return done, state


def _next_batch(batches: PrefetchedBatches, done: int, total_steps: int) -> Any:
    try:
        return batches.take()
    except StopIteration:
        raise ValueError(f"run_loop needs batches up to step {total_steps}; they ended after step {done}.") from None


def _require_finite(metrics: list[dict[str, Any]], first: int) -> None:
    for number, values in enumerate(metrics, start=first):
        if not values["finite"]:
            wrong = {name: value for name, value in values.items() if name != "finite" and not np.isfinite(value)}
            quantity, value = next(iter(wrong.items()))
            raise NonFiniteError(
                f"Step {number}: {quantity} is {float(value)}, so the step did not change the state. Lower the "
                f"learning rates, or try another seed. Earlier checkpoints are valid.",
                step=number,
            )
