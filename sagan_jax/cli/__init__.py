"""The command line: one thin parser for each command, progress display and exit codes."""

__all__ = [
    "announcement",
    "attend",
    "complete",
    "convert",
    "evaluate",
    "explore",
    "export",
    "fetch_weights",
    "interpolate",
    "main",
    "neighbours",
    "progress",
    "report",
    "sample",
    "train",
]
