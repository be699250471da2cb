"""Everything that is done with a run: the only room that reads a config.

Import from the modules: nothing is loaded here, so that the command line answers at once. The functions for users are
those of `sagan_jax` itself.
"""

__all__ = [
    "attention_figures",
    "best_checkpoint",
    "build",
    "completion",
    "completion_scores",
    "convert",
    "diversity",
    "dry_run",
    "evaluate",
    "experiments",
    "explorer",
    "export",
    "families",
    "fetch",
    "generation",
    "health",
    "health_watch",
    "info",
    "load",
    "memory_advice",
    "neighbours",
    "owed",
    "photographs",
    "report",
    "resume",
    "samples",
    "saved_config",
    "score_monitor",
    "scores",
    "session",
    "train",
    "training_job",
    "validate",
]
