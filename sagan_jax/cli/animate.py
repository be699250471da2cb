"""`sagan-jax animate`: an animation of training."""

import dataclasses
from pathlib import Path

from sagan_jax.cli.arguments import parse_arguments
from sagan_jax.errors import InvalidInputError
from sagan_jax.runtime.files import check_can_write


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Show training as an animation: the pictures of samples that a run has drawn, each with its step.

    No new images are generated: a run has a picture every --sample-every-steps steps.
    """

    workdir: Path
    """the folder of the run, which may still train"""
    out: Path
    """a .gif, .webp or .png file; the last is an APNG"""
    max_frames: int = 100
    """largest number of frames. If there are more pictures, some are left out, evenly over the run"""
    pixels: int = 640
    """longest side of a picture; a larger one is made smaller"""
    milliseconds: int = 120
    """duration of a frame; the last one stays eight times as long"""
    megabytes: float = 10.0
    """largest size of the file. Pictures are left out evenly to fit"""


def run(arguments: list[str]) -> None:
    """Runs the command.

    Args:
        arguments: the words after the name of the command.
    """
    parsed = parse_arguments(Arguments, arguments, "sagan-jax animate")
    if parsed.out.suffix.lower() not in (".gif", ".webp", ".png"):
        raise InvalidInputError(f"--out needs a .gif, .webp or .png file; got {str(parsed.out)!r}.")
    for name, low, high in (("max_frames", 2, 1000), ("pixels", 16, 4096), ("milliseconds", 20, 10_000)):
        if not low <= getattr(parsed, name) <= high:
            flag = name.replace("_", "-")
            raise InvalidInputError(f"--{flag} needs to be in [{low}, {high}]; got {getattr(parsed, name)}.")
    if not 0.1 <= parsed.megabytes <= 1000:
        raise InvalidInputError(f"--megabytes needs to be in [0.1, 1000]; got {parsed.megabytes}.")
    check_can_write(parsed.out)
    from sagan_jax.runs.animation import animate

    made = animate(
        parsed.workdir,
        parsed.out,
        max_frames=parsed.max_frames,
        pixels=parsed.pixels,
        milliseconds=parsed.milliseconds,
        budget=int(parsed.megabytes * 1e6),
    )
    for line in made.left_out:
        print(f"left out: {line}")
    shown = f"{len(made.steps)} frames of steps {made.steps[0]:,} to {made.steps[-1]:,}"
    print(f"{parsed.out}: {shown}, {made.size / 1e6:.2f} MB")
