"""The worker's side of a measurement: a process that takes steps on request, and reports how long they took.

It answers each line on standard input with one line of JSON on standard output. This file needs only the standard
library, so any Python runs it. The other side is `measuring.Worker`.
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
        resolution: resolution of the images, in pixels.
        width: base channels of both networks.
        batch: real images per step.
        classes: number of classes.
        latent: number of entries of a latent.
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
        """The command-line flags that `read_work` reads."""
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
        facts: facts about this process for the other side, of JSON types.
        answers: functions by the first word of a line; the other words are their integer arguments.
    """
    out, sys.stdout = sys.stdout, sys.stderr  # stdout is only for answers, not for output of libraries

    def say(answer: Any) -> None:
        print(json.dumps(answer), file=out, flush=True)

    say(facts)
    for line in sys.stdin:
        name, *numbers = line.split()
        say(answers[name](*map(int, numbers)))
