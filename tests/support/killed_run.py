"""A tiny run with something done at its writes: `python killed_run.py kill|copy WORKDIR IMAGES [WRITE...]`.

`kill` kills the process (SIGKILL) at the write. `copy` copies the workdir at the write, and the run goes on. So one run
shows what a kill at each of many writes leaves.

A write is `before NAME` or `after NAME`. NAME is that of a file that is renamed to its final name. For a line of the
metrics, NAME is `line STEP METRIC` with its first metric. The run prints all its writes.
"""

import os
import shutil
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


def copy_at(workdir: Path, write: str) -> Path:
    """Returns where `copy` puts the workdir as it was at a write."""
    return workdir.with_name(f"{workdir.name}-{write.replace('/', '_')}")


def plant(action: str, workdir: Path, writes: list[str]) -> None:
    """Makes this process kill itself, or copy its workdir, at the writes."""

    def reach(write: str) -> None:
        print(write, flush=True)
        if write in writes and action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif write in writes and not copy_at(workdir, write).exists():  # at the first write of a name, as a kill
            shutil.copytree(workdir, copy_at(workdir, write))

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
        checkpoints._wait()  # so that the run goes on only after the save
        reach(f"after {checkpoints.directory.name} {step}")

    Path.replace, MetricsWriter._write_line, Checkpoints.save = watched_rename, watched_line, whole_save


if __name__ == "__main__":
    action, workdir, images, *writes = sys.argv[1:]
    plant(action, Path(workdir), writes)
    sagan_jax.train(experiment_on(images), workdir)
