"""A tiny run that kills itself (SIGKILL) at a write that was named: `python killed_run.py WORKDIR IMAGES [WRITE]`.

A write is `before NAME` or `after NAME` for a file that is renamed to its final name, and for a line of the metrics,
which is called `line STEP METRIC` by its first metric. Without WRITE the run is whole, and prints all its writes.
"""

import os
import signal
import sys
from pathlib import Path

import sagan_jax
from sagan_jax.config import Data, Evaluation, Experiment, Networks, Recording, Training
from sagan_jax.runtime.checkpoints import Checkpoints
from sagan_jax.runtime.metrics_log import MetricsWriter

STEPS = 4


def experiment_on(images: str) -> Experiment:
    """Returns a run of four steps, which is saved, drawn and scored at the second and the fourth."""
    return Experiment(
        name="tiny",
        data=Data(source=images, cache=""),
        networks=Networks(
            resolution=32,
            num_classes=2,
            base_channels=1,
            latent_size=5,
            generator_attention_resolutions=(16,),
            discriminator_attention_resolutions=(16,),
        ),
        training=Training(total_steps=STEPS, batch_size=4, ema_decay=0.5),
        recording=Recording(log_every_steps=2, sample_every_steps=2, save_every_steps=2),
        evaluation=Evaluation(("fd20_train_random",), evaluate_every_steps=2),
    )


def plant(where: str) -> None:
    """Makes this process kill itself at a write, or print all of them where none is named."""

    def reach(write: str) -> None:
        if not where:
            print(write, flush=True)
        if write == where:
            os.kill(os.getpid(), signal.SIGKILL)

    rename, write_line, save = Path.replace, MetricsWriter._write_line, Checkpoints.save

    def watched_rename(path, target):
        reach(f"before {Path(target).name}")
        renamed = rename(path, target)
        reach(f"after {Path(target).name}")
        return renamed

    def watched_line(writer, line):
        name = f"line {line['step']} {next((name for name in line if name != 'step'), '')}"
        reach(f"before {name}")
        write_line(writer, line)
        reach(f"after {name}")

    def whole_save(checkpoints, step, state, meta):
        save(checkpoints, step, state, meta)
        checkpoints._wait()  # what follows in the run is after the save, not beside it
        reach(f"after {checkpoints.directory.name} {step}")

    Path.replace, MetricsWriter._write_line, Checkpoints.save = watched_rename, watched_line, whole_save


if __name__ == "__main__":
    workdir, images, *where = sys.argv[1:]
    plant(*(where or [""]))
    sagan_jax.train(experiment_on(images), workdir)
