"""Builds the manual into site/: `python docs/build.py` runs the worked examples, then zensical with warnings as errors.

`--keep-examples` uses the pages of the examples as an earlier call made them.
"""

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "docs" / "examples"


def render_example(script: Path) -> None:
    """Runs a script as a notebook and writes it, with what it printed and drew, as a page beside the script."""
    notebook = script.with_suffix(".ipynb")
    python = [sys.executable, "-m"]
    subprocess.run([*python, "jupytext", "--quiet", "--to", "ipynb", "--output", notebook, script], check=True)
    options = ["--ExecutePreprocessor.timeout=900", "--CoalesceStreamsPreprocessor.enabled=True"]
    subprocess.run(
        [*python, "nbconvert", "--log-level=ERROR", "--to=markdown", "--execute", *options, notebook], check=True
    )
    notebook.unlink()


def main() -> None:
    """Builds the manual."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep-examples", action="store_true", help="do not run the examples again")
    keep = parser.parse_args().keep_examples
    for script in sorted(EXAMPLES.glob("*.py")):
        if not (keep and script.with_suffix(".md").is_file()):
            print(f"running {script.relative_to(ROOT)}", flush=True)
            render_example(script)
    subprocess.run([Path(sys.executable).parent / "zensical", "build", "--strict", "--clean"], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
