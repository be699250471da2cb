"""The programs of `experiments/`, which are not modules of the package."""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def program_with_neighbours(path: Path) -> Iterator[ModuleType]:
    """Yields the program, which may import the programs beside it, as when it is run. They are forgotten afterwards."""
    known = set(sys.modules)
    sys.path.insert(0, str(path.parent))
    try:
        yield load_program(path)
    finally:
        sys.path.remove(str(path.parent))
        for name in set(sys.modules) - known:
            if (file := getattr(sys.modules[name], "__file__", None)) and Path(file).parent == path.parent:
                del sys.modules[name]
