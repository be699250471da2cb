"""The worker's side of a measurement: a process that takes steps when it is told to, and says how long they took.

Each line on standard input is answered by one line of JSON on standard output. The standard library is all that this
file needs, so any Python runs it. The other side is `measuring.Worker`.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Work:
    """The training step that is measured: one update of D and one of G.

    Attributes:
        resolution: of the images, in pixels.
        width: base channels of both networks.
        batch: real images a step.
        classes: number of them.
        latent: entries of a latent.
        attention: feature-map size of the attention layers.
    """

    resolution: int
    width: int
    batch: int
    classes: int = 10
    latent: int = 128
    attention: int = 16

    @property
    def flags(self) -> list[str]:
        """The words that `read_work` reads."""
        return [word for name, value in dataclasses.asdict(self).items() for word in (f"--{name}", str(value))]


def read_work(parser: argparse.ArgumentParser, arguments: list[str]) -> tuple[Work, argparse.Namespace]:
    """Returns the work that flags describe, and the other flags of a worker.

    Examples:
        >>> parser = argparse.ArgumentParser()
        >>> read_work(parser, Work(32, 8, 4).flags)[0]
        Work(resolution=32, width=8, batch=4, classes=10, latent=128, attention=16)
    """
    names = [field.name for field in dataclasses.fields(Work)]
    for name in names:
        parser.add_argument(f"--{name}", type=int, required=True)
    given = parser.parse_args(arguments)
    return Work(**{name: getattr(given, name) for name in names}), given


def serve(facts: Mapping[str, Any], answers: Mapping[str, Callable[..., Any]]) -> None:
    """Prints the facts, then answers lines such as `step 3` until there are no more.

    Args:
        facts: what the other side should know of this process, of JSON types.
        answers: what the first word of a line calls; the other words are its integers.
    """
    out, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no answer

    def say(answer: Any) -> None:
        print(json.dumps(answer), file=out, flush=True)

    say(facts)
    for line in sys.stdin:
        name, *numbers = line.split()
        say(answers[name](*map(int, numbers)))
