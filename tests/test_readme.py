"""What the README shows works as it stands there."""

import re
import shlex

import pytest

from sagan_jax.cli.main import COMMANDS
from sagan_jax.runs.experiments import experiment_names
from support.paths import ROOT

README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
SHELL = "\n".join(re.findall(r"^```sh\n(.*?)^```", README, re.DOTALL | re.MULTILINE)).splitlines()


@pytest.mark.parametrize("code", PYTHON, ids=lambda code: code.splitlines()[1])
def test_readme_python_runs(code):
    exec(compile(code, "README.md", "exec"), {})


BLOCKS = [
    block
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))
    for block in re.findall(r"^```(?:python|text)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
]


def test_every_block_imports_what_it_calls():
    calls = [block for block in BLOCKS if re.search(r"^(?!(from|import) ).*\bsagan_jax\.\w+", block, re.MULTILINE)]
    assert calls
    assert [block for block in calls if not re.search(r"^import sagan_jax$", block, re.MULTILINE)] == []


def test_readme_has_the_functions_in_ten_lines():
    assert len([line for line in PYTHON[0].splitlines() if line.strip()]) <= 12


def test_readme_commands_exist():
    words = [shlex.split(line.replace("[", "").replace("]", ""), comments=True) for line in SHELL]
    used = [line[index + 1] for line in words for index, word in enumerate(line) if word.endswith("sagan-jax")]
    assert len(used) >= 5
    assert set(used) <= COMMANDS.keys()


def test_readme_has_rows_of_experiments_that_there_are():
    rows = set(re.findall(r"^\| `(\w+_\d+)` \|", README, re.MULTILINE))
    assert "digits_32" in rows
    assert rows <= set(experiment_names())


def test_readme_shows_pictures_that_are_there():
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)
    assert pictures
    assert [name for name in pictures if not (ROOT / name).is_file()] == []
