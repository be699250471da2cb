"""Services for long computations of any kind: files, devices, processes, checkpoints, signals and the loop.

Import from the modules: nothing is loaded here, so that writing a file loads neither jax nor orbax.
"""

__all__ = [
    "checkpoints",
    "devices",
    "environment",
    "files",
    "image_files",
    "lock",
    "loop",
    "manifest",
    "metrics_log",
    "processes",
    "progress",
    "removals",
    "signals",
]
