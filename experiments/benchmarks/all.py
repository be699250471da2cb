"""Runs all speed benchmarks, one after another, and writes their results to one file.

    python experiments/benchmarks/all.py --out benchmarks.json --torch-python torch-env/bin/python
    python experiments/benchmarks/all.py --tables benchmarks.json                              # prints Markdown
    python experiments/benchmarks/all.py --tables benchmarks.json --into docs/benchmarks.md    # fills the page

The file is written after each program, and holds its command, duration, output and exit code. A program that fails is
named, and the others are still measured. Run it on an otherwise idle machine.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from measuring import HERE, machine, progress, read_result, write_result

from sagan_jax.cli.main import explained
from sagan_jax.errors import InvalidInputError
from sagan_jax.runtime.files import read_json, write_atomically

TITLES = {
    "step_vs_studiogan": "The step beside StudioGAN's",
    "scaling": "How cost grows",
    "convolutions": "Convolutions",
    "attention_speed": "Attention",
    "lite0_speed": "EfficientNet-Lite0",
    "input_speed": "Input",
    "start_time": "From the start to the end of step 1",
}
"""The programs, in the order in which they run, with the headings for their output."""

# The flags of the programs for each of our options. A program gets the first one that it has.
FLAGS = {
    "torch_python": ("--torch-python", "--torch"),
    "jax_python": ("--jax-python",),
    "precision": ("--precision",),
    "quick": ("--quick", "--rounds"),
}
NEEDS_IMAGES = "input_speed"
MARKS = "<!-- figures -->", "<!-- end of the figures -->"


def command(name: str, given: argparse.Namespace) -> list[str]:
    """Returns the command line of a program, with those of our flags that it supports."""
    path = HERE / f"{name}.py"
    source, words = path.read_text(encoding="utf-8"), [sys.executable, str(path)]
    if name == NEEDS_IMAGES:
        words.append(str(given.images))
    for field, flags in FLAGS.items():
        flag = next((flag for flag in flags if f'"{flag}"' in source), "")
        if flag and field == "quick":
            words += ([flag] if flag == "--quick" else [flag, "1"]) if given.quick else []
        elif flag:
            words += [word for one in getattr(given, field) for word in (flag, one)]
    return words


def measure(words: list[str]) -> dict[str, Any]:
    """Runs a program and returns its result. Its progress and errors are shown."""
    start = time.perf_counter()
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False, stdin=subprocess.DEVNULL)
    seconds = round(time.perf_counter() - start, 1)
    return {"command": words, "seconds": seconds, "exit_code": done.returncode, "output": done.stdout}


def tables(result: Mapping[str, Any]) -> str:
    """Returns the output of the programs, under their headings."""
    machine = result["machine"]
    parts = [f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}."]
    for name, entry in result["programs"].items():
        failed = entry["exit_code"] and f"It failed (exit {entry['exit_code']}). "
        parts.append(f"## {TITLES[name]}")
        parts.append(f"{failed or ''}`{name}.py` took {entry['seconds']:.0f} s.")
        parts.append(entry["output"].strip())
    return "\n\n".join(filter(None, parts))


def fill(page: Path, figures: str) -> None:
    """Writes figures into a page, between the two marks.

    Raises:
        InvalidInputError: there is no such page, or it does not have both.
    """
    if not page.is_file():
        raise InvalidInputError(f"There is no page {str(page)!r}. Is the path right?")
    before, found, rest = page.read_text(encoding="utf-8").partition(MARKS[0])
    _, ends, after = rest.partition(MARKS[1])
    if not (found and ends):
        raise InvalidInputError(f"{str(page)!r} needs the lines {MARKS[0]} and {MARKS[1]}.")
    write_atomically(page, f"{before}{MARKS[0]}\n\n{figures}\n\n{MARKS[1]}{after}".encode())


def parse(arguments: list[str]) -> argparse.Namespace:
    """Returns the flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    present = [name for name in TITLES if (HERE / f"{name}.py").is_file()]
    parser.add_argument("--program", action="append", choices=present, default=[], help="repeatable; default all")
    parser.add_argument("--torch-python", action="append", default=[], help="a Python with PyTorch, for the peers")
    parser.add_argument("--jax-python", action="append", default=[], help="another Python for our code; repeatable")
    parser.add_argument("--images", type=Path, help=f"folder of JPEGs for {NEEDS_IMAGES}, which is left out without it")
    parser.add_argument("--precision", action="append", default=[], help="for our step; repeatable; default float32")
    parser.add_argument("--out", type=Path, help="JSON file, written after each program")
    parser.add_argument("--tables", type=Path, help="print the tables of such a file, and measure nothing")
    parser.add_argument("--into", type=Path, help="with --tables: a page to write them into, between its two marks")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to check that all programs work")
    given = parser.parse_args(arguments)
    if given.into and not given.tables:
        raise InvalidInputError("--into needs --tables, a file with results.")
    given.program = given.program or [name for name in present if given.images or name != NEEDS_IMAGES]
    if NEEDS_IMAGES in given.program and not given.images:
        raise InvalidInputError(f"{NEEDS_IMAGES} needs --images, a folder of class folders with JPEGs.")
    return given


def run(arguments: list[str]) -> None:
    """Measures, writes and prints."""
    given = parse(arguments)
    if given.tables:
        figures = tables(read_result(given.tables))
        fill(given.into, figures) if given.into else print(figures)
        return
    result: dict[str, Any] = {"machine": machine(), "programs": {}}
    if given.out and given.out.is_file() and (before := read_json(given.out))["machine"] == result["machine"]:
        result["programs"] = before["programs"]  # of other programs, so that one can be measured again
    for name in given.program:
        progress(f"program {name}")
        result["programs"][name] = measure(command(name, given))
        write_result(given.out, result)
    print(tables(result))
    failed = [name for name in given.program if result["programs"][name]["exit_code"]]
    if failed:
        raise InvalidInputError(f"These programs failed, for the reasons above: {', '.join(failed)}.")


if __name__ == "__main__":
    sys.exit(explained(lambda: run(sys.argv[1:]), "all"))
