"""The examples of the README and the manual run as written, and their sentences are short."""

import contextlib
import importlib.util
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from sagan_jax.cli.main import COMMANDS
from sagan_jax.runs.experiments import experiment_names
from support.archives import write_zip
from support.commands import command
from support.images import encoded, noise
from support.paths import ROOT

pytestmark = pytest.mark.one_jax

README = ROOT / "README.md"
MANUAL = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, ROOT / "CONTRIBUTING.md", *MANUAL]

_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<why>.*?) -->\n)?^```(?P<kind>python|sh)\n(?P<code>.*?)^```", re.DOTALL | re.MULTILINE
)

# Runs of a page are made tiny. Everything else runs as the page shows it.
_TINY = {"total": 2, "save-every": 2, "log-every": 1, "sample-every": 2}
_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
_TINY_TRAINING = [word for name, count in _TINY.items() for word in (f"--{name}-steps", str(count))]
_TINY_TRAINING += ["--batch-size", "8", "--base-channels", "2"]


class Block(NamedTuple):
    """A block of code of a page. `why_not` is the reason why it is not run, and empty if it is run."""

    kind: str
    code: str
    why_not: str


def blocks(page: Path) -> list[Block]:
    return [
        Block(found["kind"], found["code"], found["why"] or "") for found in _BLOCK.finditer(page.read_text("utf-8"))
    ]


def commands(code: str) -> list[list[str]]:
    """Returns the words of each line of a shell block, without its comments."""
    words = [shlex.split(line, comments=True) for line in code.splitlines()]
    return [line for line in words if line]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A folder with small files of the names that the pages use, and with trained runs that they start from."""
    folder = tmp_path_factory.mktemp("prepared")
    with contextlib.chdir(folder):
        prepare(folder)
    return folder


def prepare(folder: Path) -> None:
    labelled = {
        f"{_CLASSES[label]}/{number}.png": encoded(noise(32, 32, 3, seed=label + 10 * number))
        for label in range(10)
        for number in range(2)
    }
    plain = {f"{number}.png": encoded(noise(64, 64, 3, seed=number)) for number in range(20)}
    for name, files in {"cifar10-train.zip": labelled, "cifar10-test.zip": labelled, "photos.zip": plain}.items():
        write_zip(folder / name, files)
    for name in ("faces-train.zip", "faces-test.zip"):
        write_zip(folder / name, plain)
    np.savez(folder / "digits.npz", images=noise(40, 32, 32, 3), labels=np.arange(40) % 10)
    np.savez(folder / "samples.npz", arr_0=noise(100, 32, 32, 3), arr_1=np.arange(100) % 10)
    (folder / "photo.png").write_bytes(encoded(noise(64, 64, 3)))
    (folder / "mask.png").write_bytes(encoded(np.pad(np.full((32, 32), 255, np.uint8), 16)))
    digits = ["--source", "digits.npz"]
    for experiment, name, source in (
        ("digits_32", "digits_32", digits),
        ("cifar10_32", "cifar10_32", ["--source", "cifar10-train.zip"]),
    ):
        assert command("train", experiment, *source, "--workdir", f"runs/{name}", *_TINY_TRAINING) == 0
    faces = ["--source", "faces-train.zip", "--held-out", "faces-test.zip"]
    assert command("train", "faces_completion_64", *faces, "--workdir", "runs/completion", *_TINY_TRAINING) == 0


def tiny(words: list[str]) -> list[str]:
    """Returns the words of a command, with flags that make it small."""
    if words[0] == "train":
        given = {word for word in words if word.startswith("--")}
        source = (
            [] if "--source" in given or any(word.startswith("pairs") for word in words) else ["--source", "digits.npz"]
        )
        profiled = ["--profile-steps", "1:2"] if "--profile-steps" in given else []
        scores = ["--evaluate-every-steps", "2", "--protocols", "fd20_train_random"] if "--protocols" in given else []
        own = any(word.endswith(".py") for word in words)  # its networks have a width of their own
        return [
            *words,
            *(_TINY_TRAINING[:-2] if own else _TINY_TRAINING),
            *source,
            *scores,
            *profiled,
            *([] if "--workdir" in given else ["--workdir", "runs/unnamed", "--fresh"]),
        ]
    if words[0] == "invert":
        return [*words, "--starts", "2", "--steps", "2"]
    if words[0] == "evaluate" and "--protocol" not in words and "--holes" not in words:
        return [*words, "--protocol", "fd20_train_random"]
    return words


def run_shell_line(words: list[str]) -> None:
    variables = dict(word.split("=", 1) for word in words if re.match(r"^[A-Z_]+=", word))
    words = words[len(variables) :]
    assert words[0] == "sagan-jax", (
        f"a page may run sagan-jax only; {words[0]} needs a line that says why it is not run"
    )
    words = tiny(words[1:])
    if variables:
        run = [sys.executable, "-m", "sagan_jax.cli.main", *words]
        subprocess.run(run, env={**os.environ, **variables}, check=True, stdin=subprocess.DEVNULL)
    else:
        assert command(*words) == 0, words


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_page_runs_as_it_stands(page, prepared, tmp_path, monkeypatch):
    shown = [block for block in blocks(page) if not block.why_not]
    if not shown:
        pytest.skip("shows nothing that is run")
    shutil.copytree(prepared, tmp_path / "page")
    monkeypatch.chdir(tmp_path / "page")
    names: dict = {}
    for block in shown:
        file = re.match(r"# (\w+\.py)\n", block.code)
        if file:  # the page shows a file of its own
            Path(file[1]).write_text(block.code)
        elif block.kind == "python":
            exec(compile(block.code, name_of(page), "exec"), names)
        else:
            for words in commands(block.code):
                run_shell_line(words)


@pytest.mark.parametrize("page", [README, ROOT / "docs" / "functions.md"], ids=name_of)
def test_python_of_the_first_pages_runs(page):
    for block in blocks(page):
        if block.kind == "python":
            exec(compile(block.code, name_of(page), "exec"), {})


def test_readme_has_the_functions_in_twelve_lines():
    code = next(block.code for block in blocks(README) if block.kind == "python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 12


def test_readme_has_at_most_150_lines():
    assert len(README.read_text("utf-8").splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_page_shows_commands_that_there_are(page):
    used = []
    for block in blocks(page):
        lines = commands(block.code) if block.kind == "sh" else []
        used += [
            line[place + 1] for line in lines for place, word in enumerate(line[:-1]) if word.endswith("sagan-jax")
        ]
    assert {word for word in used if not word.startswith("--")} <= COMMANDS.keys()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_page_imports_the_package_that_it_calls(page):
    code = [block.code for block in blocks(page) if block.kind == "python"]
    calls = [block for block in code if re.search(r"^(?!(from|import) ).*\bsagan_jax\.\w+", block, re.MULTILINE)]
    assert [block for block in calls if not re.search(r"^import sagan_jax$", block, re.MULTILINE)] == []


def test_tables_have_rows_of_experiments_that_there_are():
    for page in (README, ROOT / "docs" / "results.md"):
        rows = set(re.findall(r"^\| `(\w+_\d+)` \|", page.read_text("utf-8"), re.MULTILINE))
        assert "digits_32" in rows
        assert rows <= set(experiment_names())


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_page_points_at_files_that_are_there(page):
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    files = [page.parent / target for target in targets if not target.startswith(("http", "examples/"))]
    assert [str(file) for file in files if not file.is_file()] == []


def test_manual_has_all_its_pages_in_its_contents():
    contents = (ROOT / "zensical.toml").read_text("utf-8")
    assert tomllib.loads(contents)["project"]["docs_dir"] == "docs"
    pages = [*MANUAL, *sorted((ROOT / "docs" / "api").glob("*.md"))]
    assert [page.name for page in pages if f'"{page.relative_to(ROOT / "docs").as_posix()}"' not in contents] == []


def script(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_sentences_are_short():
    counter = script("sentences")
    words = counter.lengths([found for page in counter.pages() for found in counter.sentences(page.read_text("utf-8"))])
    assert len(words) > 500
    assert statistics.median(words) <= 17
    assert counter.percentile_90(words) <= 30


def test_sentences_are_counted_in_prose_alone():
    page = "# A title. No.\n\nOne *two* [three](a.md). Four!\nFive `x.y` six?\n\n"
    page += "```sh\nno. no.\n```\n\n| no. | no |\n\n- an item\n- one more\n"
    assert script("sentences").sentences(page) == [
        "One *two* three.",
        "Four!",
        "Five `x.y` six?",
        "an item",
        "one more",
    ]


def test_diagrams_are_those_that_their_script_draws():
    diagrams = script("diagrams")
    drawn = {"packages": diagrams.packages(), "training_step": diagrams.training_step()}
    assert {name: (ROOT / "docs" / "pictures" / f"{name}.svg").read_text("utf-8") for name in drawn} == drawn
