"""Shows where the time of a run goes: runs `sagan-jax train` in this process, with a timer around each part.

    python experiments/benchmarks/run_parts.py digits_32 --workdir runs/parts --fresh

The arguments are those of `sagan-jax train`. Call it twice: the second run reuses the compiled programs of the first.
At the end it prints a table with the seconds of each part, excluding nested parts. The first call of a part is listed
separately, because it traces and loads programs. On a GPU, waiting is the time in which the main thread waits for a
step, and handing over includes the launch of each kernel.
"""

import functools
import importlib
import sys
import time
from collections.abc import Callable
from typing import Any

START = time.perf_counter()

PARTS = {
    "imports of figures": "",
    "opening the images": "runs.generation:GenerationJob.__init__",
    "initial state": "runs.generation:GenerationJob.initial_state",
    "reading a checkpoint": "runtime.checkpoints:Checkpoints.restore",
    "handing a step over": "runtime.devices:ParallelStep.run",
    "placing a batch": "runtime.devices:ParallelStep.shard",
    "waiting for steps, and the loop": "runs.session:run_loop",
    "logging": "runs.session:_Session.log",
    "saving": "runs.session:_Session.save",
    "the last save": "runtime.checkpoints:Checkpoints._close",
    "G and D for drawing": "runs.generation:trained_generator runs.generation:trained_discriminator",
    "images of G": "evaluation.generator:TrainedGenerator.generate",
    "attention maps": "runs.generation:attention_records",
    "statistics of attention": "evaluation.attention:AttentionRecord.statistics",
    "figures of attention": "runs.attention_figures:draw_record",
    "the picture of samples": "runtime.metrics_log:MetricsWriter.image",
    "drawing, the rest": "runs.session:_Session.draw",
    "scores": "runs.session:_Session.evaluate",
    "curves of the report": "views.report:curve_sections",
    "report, the rest": "runs.session:_Session.report",
}
"""The timed functions by the name of their row, as `module:name` in `sagan_jax`."""


class Timers:
    """Seconds of calls by part, excluding nested parts."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, list[float]] = {}
        self._clock, self._inner = clock, [0.0]

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns the function, wrapped so that its time counts for a part."""

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            start = self._clock()
            self._inner.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                whole = self._clock() - start
                self.seconds.setdefault(part, []).append(whole - self._inner.pop())
                self._inner[-1] += whole

        return call

    def patch(self, part: str, where: str) -> None:
        """Replaces a function, in the place where it is looked up, by its timed version."""
        module, _, name = where.partition(":")
        owner: Any = importlib.import_module(f"sagan_jax.{module}")
        *path, name = name.split(".")
        owner = functools.reduce(getattr, path, owner)
        setattr(owner, name, self.timed(part, getattr(owner, name)))

    def table(self, total: float) -> str:
        """Returns the rows of all parts that were called, in the order of `PARTS`, and the rest of the total."""
        rows = [
            f"| {part} | {len(times)} | {times[0]:.2f} | {sum(times[1:]):.2f} |"
            for part in PARTS
            if (times := self.seconds.get(part))
        ]
        rest = total - sum(map(sum, self.seconds.values()))
        return "\n".join(
            [
                "| part | calls | first call, s | the others, s |",
                "|---|---|---|---|",
                *rows,
                f"| imports and all else | | {rest:.2f} | |",
                f"| **whole** | | **{total:.2f}** | |",
            ]
        )


def main() -> int:
    """Trains and prints the table. Returns the exit code of the command."""
    from sagan_jax.cli import main as cli

    timers = Timers()
    importlib.import_module("sagan_jax.runs.generation")
    timers.timed("imports of figures", importlib.import_module)("sagan_jax.runs.attention_figures")
    for part, places in PARTS.items():
        for where in places.split():
            timers.patch(part, where)
    code = cli.main(["train", *sys.argv[1:]])
    print(timers.table(time.perf_counter() - START))
    return code


if __name__ == "__main__":
    sys.exit(main())
