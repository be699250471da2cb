"""Running `sagan-jax` in this process, and reading what it says."""

import pytest

from sagan_jax.cli.main import main


def command(*words: object) -> int:
    """Runs `sagan-jax` with these words and returns its exit code."""
    return main([str(word) for word in words])


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """Returns the one line that a failed command writes to stderr, and fails where there are more."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("sagan-jax: ")
    return lines[0]
