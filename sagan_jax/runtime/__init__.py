"""Services for long computations of any kind: files, devices, processes, checkpoints, signals and the loop.

Import from the modules: nothing is loaded here, so that writing a file loads neither jax nor orbax.
"""

__all__ = [
    "checkpoints",
    "coordinator",
    "devices",
    "environment",
    "files",
    "image_files",
    "leftovers",
    "lock",
    "loop",
    "lost_output",
    "manifest",
    "memory",
    "metrics_log",
    "processes",
    "progress",
    "removals",
    "signal_listener",
    "signals",
    "step_profiler",
]
