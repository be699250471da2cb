"""The command line: one thin parser for each command, progress display and exit codes."""

__all__ = [
    "animate",
    "announcement",
    "arguments",
    "attend",
    "complete",
    "convert",
    "evaluate",
    "explore",
    "export",
    "fetch_weights",
    "info",
    "interpolate",
    "main",
    "neighbours",
    "plan",
    "progress",
    "report",
    "sample",
    "shell_completion",
    "train",
]
