"""Reading what a run has recorded, independently of the package's own reader."""

import json
from pathlib import Path
from typing import Any


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """Returns the lines of `metrics.jsonl`, in order; a NaN or an infinity, which JSON does not have, is an error."""

    def refuse(constant):
        raise AssertionError(f"metrics.jsonl holds {constant}")

    text = (workdir / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]
