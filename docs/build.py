"""Builds the manual into site/: `python docs/build.py` runs the worked examples, then zensical with warnings as errors.

`--keep-examples` uses the pages of the examples as an earlier call made them. `--quick` trains them for 20 steps.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "docs" / "examples"


def render_example(script: Path, quick: bool) -> None:
    """Runs a script as a notebook and writes it, with what it printed and drew, as a page beside the script."""
    notebook = script.with_suffix(".ipynb")
    python = [sys.executable, "-m"]
    code = script.read_text("utf-8")
    if quick:
        code = re.sub(r"\btotal_steps=\d+", "total_steps=20", code)
    convert = [*python, "jupytext", "--quiet", "--from", "py:percent", "--to", "ipynb", "--output", notebook, "-"]
    subprocess.run(convert, input=code, text=True, check=True)
    options = ["--ExecutePreprocessor.timeout=900", "--CoalesceStreamsPreprocessor.enabled=True"]
    subprocess.run(
        [*python, "nbconvert", "--log-level=ERROR", "--to=markdown", "--execute", *options, notebook], check=True
    )
    notebook.unlink()


def main() -> None:
    """Builds the manual."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep-examples", action="store_true", help="do not run the examples again")
    parser.add_argument("--quick", action="store_true", help="train for 20 steps: enough to see that all of it runs")
    given = parser.parse_args()
    for script in sorted(EXAMPLES.glob("*.py")):
        if not (given.keep_examples and script.with_suffix(".md").is_file()):
            print(f"running {script.relative_to(ROOT)}", flush=True)
            render_example(script, given.quick)
    subprocess.run([Path(sys.executable).parent / "zensical", "build", "--strict", "--clean"], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
