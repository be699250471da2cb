"""Services for long computations of any kind: files, devices, processes, checkpoints, signals and the loop.

Import from the modules: nothing is loaded here, so that writing a file loads neither jax nor orbax.
"""

__all__ = [
    "cache_folders",
    "callbacks",
    "checkpoints",
    "chips",
    "collectives",
    "compilation_cache",
    "compiled_programs",
    "coordinator",
    "devices",
    "environment",
    "files",
    "full_precision",
    "gpu_topologies",
    "image_files",
    "leftovers",
    "lock",
    "loop",
    "lost_output",
    "manifest",
    "memory",
    "metrics_log",
    "packages",
    "prefetch",
    "processes",
    "progress",
    "removals",
    "signal_listener",
    "signals",
    "step_profiler",
    "tensorboard",
    "topologies",
    "weights_and_biases",
]
