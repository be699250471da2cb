"""The programs of `experiments/`, which are not modules of the package."""

import importlib.util
from pathlib import Path
from types import ModuleType

from support.paths import ROOT

EXPERIMENTS = ROOT / "experiments"
BENCHMARKS = EXPERIMENTS / "benchmarks"


def load_program(path: Path) -> ModuleType:
    """Returns the program as a new module, which a test may change."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
