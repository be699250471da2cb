"""The drawing of the packages: their names, and which may import which.

`python tests/test_structure.py` prints the drawing, read off the imports; `docs/design.md` holds it.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.one_jax

ROOT = Path(__file__).resolve().parents[1]

# Imports point from a higher level to a strictly lower one, or stay in their own package.
LEVELS = {
    "cli": 7,
    "runs": 6,
    "views": 5,
    "evaluation": 4,
    "training": 3,
    "interop": 3,
    "models": 2,
    "data": 2,
    "config": 2,
    "functional": 1,
    "runtime": 1,
    "import_paths": 1,
    "errors": 0,
}
TOP_LEVEL = {
    "pyproject.toml",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "CITATION.cff",
    "LICENSE",
    "zensical.toml",
}
TOP_LEVEL |= {"sagan_jax", "experiments", "tests", "docs"}
TOP_LEVEL |= {".ci", ".gitignore", ".pre-commit-config.yaml"}
FUNCTIONAL_MAY_IMPORT = {"jax", "numpy", "chex"}
FUNCTIONAL_MAY_IMPORT |= {"__future__", "collections", "dataclasses", "functools", "itertools", "math", "os", "typing"}
NAMES_OF_NOTHING = {"utils", "helpers", "common", "misc"}
DEVICE_MAPS = {"pmap", "shard_map"}
DEVICE_MAPS_ARE_IN = Path("sagan_jax/runtime/devices.py")
READS_THE_CONFIG, BUILDS_PARSERS = "runs", "cli"
CONFIG_SECTIONS = {"data", "networks", "training", "recording", "evaluation"}
# Programs that measure the library, rather than configs that it reads.
BENCHMARKS_ARE_IN = Path("experiments/benchmarks")
PROGRAMS = {Path("experiments/run_table.py"), Path("experiments/ledger.py")}
# A table may load named experiments and those of the benchmark. Statistics may use the package's permutation test.
MAY_IMPORT = {
    Path("experiments/tables"): ("sagan_jax.runs.experiments.load_experiment", "sagan_jax.runs.long_range."),
    Path("experiments/comparisons"): ("sagan_jax.evaluation.permutation.",),
}


def python_files(root: Path) -> Iterator[tuple[Path, ast.Module]]:
    """Yields the path below `root` and the syntax tree of each file of the library and of the experiments."""
    for folder in ("sagan_jax", "experiments"):
        for path in sorted((root / folder).rglob("*.py")):
            yield path.relative_to(root), ast.parse(path.read_text(encoding="utf-8"))


def imported_modules(path: Path, tree: ast.Module) -> Iterator[str]:
    """Yields the absolute name of everything that the file imports, inside functions too, by name or by string."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # One dot is the folder of the file itself, whether or not the file is its __init__.
            package = path.parts[: len(path.parts) - node.level] if node.level else ()
            module = ".".join([*package, *([node.module] if node.module else [])])
            # `from package import name` may import a module of that name, so the name belongs to the answer.
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sagan_jax":
            yield f"sagan_jax.{node.attr}"
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                yield str(node.args[0].value)


def place(module: str) -> str:
    """Returns the package of `sagan_jax.package.file`, or "" for the package itself."""
    return [*module.split("."), ""][1]


def arrow_violations(root: Path) -> list[str]:
    """Returns each import that does not point down, and each package that is not in the drawing."""
    found = []
    for path, tree in python_files(root):
        package = place(".".join(path.with_suffix("").parts))
        if path.parts[0] == "experiments" or package == "__init__":
            continue
        if package not in LEVELS:
            found.append(f"{path} has no place in LEVELS")
            continue
        for module in imported_modules(path, tree):
            target = place(module)
            # The package itself loads nothing. Names that are taken from it count, except __version__ and __file__.
            if module.split(".")[0] != "sagan_jax" or target == "" or target.startswith("__"):
                continue
            if target not in LEVELS:
                found.append(f"{path} imports {module}, which has no place in LEVELS")
            elif target != package and LEVELS[target] >= LEVELS[package]:
                found.append(f"{path} imports {module}, which is not below it")
    return found


def functional_violations(root: Path) -> list[str]:
    """Returns each import of `functional` other than its few allowed ones and itself."""
    return [
        f"{path} imports {module}; functional needs jax, numpy and chex only"
        for path, tree in python_files(root)
        if path.is_relative_to("sagan_jax/functional")
        for module in imported_modules(path, tree)
        if module.split(".")[0] not in FUNCTIONAL_MAY_IMPORT and not module.startswith("sagan_jax.functional.")
    ]


def config_violations(root: Path) -> list[str]:
    """Returns imports of the config outside `runs` and `cli`, and experiments that import more than the config."""
    found = []
    for path, tree in python_files(root):
        for module in imported_modules(path, tree):
            ours, reads_config = module.split(".")[0] == "sagan_jax", place(module) == "config"
            experiment = path.parts[0] == "experiments" and path.parent != BENCHMARKS_ARE_IN and path not in PROGRAMS
            allowed = module.startswith(MAY_IMPORT.get(path.parent, ()))
            if experiment and ours and not reads_config and not allowed:
                found.append(f"{path} imports {module}; an experiment needs sagan_jax.config only")
            elif (
                path.parts[0] == "sagan_jax"
                and path.parts[1] not in (READS_THE_CONFIG, BUILDS_PARSERS, "__init__.py")
                and reads_config
            ):
                found.append(f"{path} imports {module}; only {READS_THE_CONFIG} reads a config")
    return found


def config_section_violations(root: Path) -> list[str]:
    """Returns each place in `cli` that reads a section of a config, such as `experiment.training`."""
    found = []
    for path, tree in python_files(root):
        if not path.is_relative_to(f"sagan_jax/{BUILDS_PARSERS}"):
            continue
        for node in ast.walk(tree):
            match node:
                # `sagan_jax.data` is a package.
                case ast.Attribute(value=ast.Name(id="sagan_jax")):
                    continue
                case ast.Attribute(attr=section):
                    pass
                case ast.Call(func=ast.Name(id="getattr"), args=[_, ast.Constant(value=section), *_]):
                    pass
                case _:
                    continue
            if section in CONFIG_SECTIONS:
                found.append(f"{path} reads .{section}; only {READS_THE_CONFIG} reads a config")
    return found


def words_of(node: ast.AST) -> set[str]:
    """Returns the names that the node itself uses in code."""
    match node:
        case ast.Name(id=word) | ast.Attribute(attr=word):
            return {word}
        case ast.alias(name=words):
            return set(words.split("."))
        case ast.ImportFrom(module=str(words)):
            return set(words.split("."))
    return set()


def device_map_violations(root: Path) -> list[str]:
    """Returns each use of `pmap` or `shard_map` in code, not in text, outside the one file for it."""
    return [
        f"{path} says {word}; only {DEVICE_MAPS_ARE_IN} maps over devices"
        for path, tree in python_files(root)
        if path != DEVICE_MAPS_ARE_IN
        for node in ast.walk(tree)
        for word in sorted(words_of(node) & DEVICE_MAPS)
    ]


def name_violations(root: Path) -> list[str]:
    """Returns each file or folder whose name says nothing about what is in it."""
    return [
        f"{path.relative_to(root)} has not found its name yet"
        for folder in ("sagan_jax", "experiments", "tests")
        for path in sorted((root / folder).rglob("*"))
        if path.stem.removeprefix("test_").strip("_") in NAMES_OF_NOTHING
    ]


def top_level(root: Path) -> set[str]:
    """Returns the first part of every path in the checkout that git does not ignore."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return {Path(line).parts[0] for line in listing.stdout.splitlines() if (root / line).exists()}


def room_imports(root: Path) -> dict[str, set[str]]:
    """Returns the packages that the files of each package import."""
    found: dict[str, set[str]] = {package: set() for package in LEVELS}
    for path, tree in python_files(root):
        package = place(".".join(path.with_suffix("").parts))
        if path.parts[0] == "sagan_jax" and package in found:
            targets = {place(module) for module in imported_modules(path, tree) if module.startswith("sagan_jax.")}
            found[package] |= (targets & set(LEVELS)) - {package}
    return found


def package_summary(root: Path, package: str) -> str:
    """Returns the first line of the docstring of a package."""
    path = root / "sagan_jax" / package / "__init__.py"
    path = path if path.is_file() else root / "sagan_jax" / f"{package}.py"
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.splitlines()[0]


def drawing(root: Path) -> str:
    """Returns the packages by level, what each holds, and which packages it imports."""
    imports = room_imports(root)
    lines = []
    for package, level in LEVELS.items():
        below = [other for other in LEVELS if other in imports[package]]
        lines.append(f"{level}  {package:<11} {package_summary(root, package)}")
        lines += [f"{'':15}-> {', '.join(below)}"] if below else []
    return "\n".join(lines)


RULES = [
    arrow_violations,
    functional_violations,
    config_violations,
    config_section_violations,
    device_map_violations,
    name_violations,
]


@pytest.mark.parametrize("rule", RULES)
def test_code_keeps_the_rule(rule):
    assert rule(ROOT) == []


def test_every_package_of_the_drawing_exists():
    packages = {path.stem for path in (ROOT / "sagan_jax").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert packages >= set(LEVELS)


PLANTED = [
    (arrow_violations, "sagan_jax/models/sagan.py", "from sagan_jax.training import adversarial", "is not below it"),
    (
        arrow_violations,
        "sagan_jax/models/sagan.py",
        "def f():\n    from ..training.updates import a",
        "is not below it",
    ),
    (arrow_violations, "sagan_jax/models/sagan.py", "from .. import cli", "is not below it"),
    (arrow_violations, "sagan_jax/models/__init__.py", "from ..views import figures", "is not below it"),
    (arrow_violations, "sagan_jax/training/updates.py", "import sagan_jax.interop", "is not below it"),
    (arrow_violations, "sagan_jax/runtime/loop.py", "import sagan_jax.functional", "is not below it"),
    (arrow_violations, "sagan_jax/evaluation/scores.py", "from sagan_jax.runs import load", "is not below it"),
    (arrow_violations, "sagan_jax/runs/train.py", "from sagan_jax.cli import progress", "is not below it"),
    (arrow_violations, "sagan_jax/views/a.py", "import importlib\nimportlib.import_module('sagan_jax.cli')", "below"),
    (arrow_violations, "sagan_jax/errors.py", "import sagan_jax.functional", "is not below it"),
    (arrow_violations, "sagan_jax/models/sagan.py", "import sagan_jax\nf = sagan_jax.train", "has no place"),
    (arrow_violations, "sagan_jax/models/sagan.py", "from sagan_jax import train", "has no place"),
    (arrow_violations, "sagan_jax/attic/ladder.py", "", "has no place"),
    (arrow_violations, "sagan_jax/ladder.py", "", "has no place"),
    (functional_violations, "sagan_jax/functional/losses.py", "import flax.linen as nn", "imports flax.linen"),
    (functional_violations, "sagan_jax/functional/losses.py", "from pathlib import Path", "imports pathlib.Path"),
    (functional_violations, "sagan_jax/functional/losses.py", "from ..errors import SaganError", "imports sagan_jax.e"),
    (config_violations, "sagan_jax/training/updates.py", "from sagan_jax.config import Training", "only runs reads"),
    (config_violations, "sagan_jax/views/report.py", "from sagan_jax import config", "only runs reads"),
    (
        config_section_violations,
        "sagan_jax/cli/train.py",
        "def f(run):\n    return run.training.seed",
        "reads .training",
    ),
    (config_section_violations, "sagan_jax/cli/sample.py", "x = getattr(run, 'networks')", "reads .networks"),
    (config_violations, "experiments/faces.py", "from sagan_jax.models.sagan import Generator", "config only"),
    (device_map_violations, "sagan_jax/runtime/loop.py", "import jax\nf = jax.pmap(abs)", "says pmap"),
    (device_map_violations, "sagan_jax/runtime/loop.py", "from jax import shard_map as s", "says shard_map"),
    (device_map_violations, "sagan_jax/runtime/loop.py", "from jax.experimental.shard_map import x", "says shard_map"),
    (device_map_violations, "sagan_jax/cli/parallel.py", "def f(pmap):\n    return pmap(f)", "says pmap"),
    (name_violations, "sagan_jax/data/utils.py", "", "has not found its name"),
    (name_violations, "sagan_jax/common/masks.py", "", "has not found its name"),
    (name_violations, "tests/test_misc.py", "", "has not found its name"),
]


@pytest.mark.parametrize(("rule", "path", "source", "message"), PLANTED)
def test_rule_finds_the_one_planted_violation(rule, path, source, message, tmp_path):
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(source)
    (found,) = rule(tmp_path)
    assert message in found


ALLOWED = [
    ("sagan_jax/models/sagan.py", "from sagan_jax.functional import attend\nfrom . import layers\nimport flax"),
    ("sagan_jax/models/layers.py", "import sagan_jax\nf = sagan_jax.__file__\nfrom sagan_jax import __version__"),
    ("sagan_jax/cli/train.py", "from sagan_jax import __version__, config\nfrom ..runs import load\nimport tyro"),
    ("sagan_jax/cli/info.py", "import sagan_jax\nf = sagan_jax.data"),
    ("sagan_jax/runs/build.py", "from sagan_jax.config import Networks\ndef f(run):\n    return run.training.seed"),
    ("sagan_jax/runtime/devices.py", "import jax\nf = jax.pmap(abs)\ng = jax.shard_map"),
    ("sagan_jax/runtime/loop.py", "'pmap'\nfrom sagan_jax.runtime.devices import pmap_step"),
    ("sagan_jax/__init__.py", "def f():\n    from sagan_jax.runs import load"),
    ("experiments/faces.py", "from sagan_jax.config import Experiment"),
    ("experiments/benchmarks/speed.py", "from sagan_jax.models.sagan import Generator"),
]


@pytest.mark.parametrize(("path", "source"), ALLOWED)
def test_rules_accept_what_the_drawing_allows(path, source, tmp_path):
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(source)
    assert [found for rule in RULES for found in rule(tmp_path)] == []


def test_document_of_the_design_holds_the_drawing():
    assert f"```text\n{drawing(ROOT)}\n```" in (ROOT / "docs" / "design.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_program_prints_the_drawing():
    answer = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=True)
    assert answer.stdout == drawing(ROOT) + "\n"


def test_drawing_shows_a_planted_arrow(tmp_path):
    for package in LEVELS:
        (tmp_path / "sagan_jax" / package).mkdir(parents=True)
        (tmp_path / "sagan_jax" / package / "__init__.py").write_text(f'"""The package {package}."""')
    (tmp_path / "sagan_jax" / "views" / "a.py").write_text("from sagan_jax.data import sources")
    before, after = drawing(tmp_path).split("views       The package views.\n")
    assert "->" not in before
    assert after.splitlines()[0].split() == ["->", "data"]


def test_top_level_of_the_checkout_is_the_drawing():
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout: this copy of the sources has no .git")
    assert top_level(ROOT) == TOP_LEVEL


def test_top_level_sees_a_planted_file_and_not_an_ignored_one(tmp_path):
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    for name, text in {".gitignore": "/ignored", "ignored": "", "planted": ""}.items():
        (tmp_path / name).write_text(text)
    assert top_level(tmp_path) == {".gitignore", "planted"}


if __name__ == "__main__":
    print(drawing(ROOT))
