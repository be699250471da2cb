"""Everything that is done with a run: the only room that reads a config.

Import from the modules: nothing is loaded here, so that the command line answers at once. The functions for users are
those of `sagan_jax` itself.
"""

__all__ = [
    "attention_figures",
    "best_checkpoint",
    "build",
    "collapse",
    "completion",
    "completion_scores",
    "convert",
    "evaluate",
    "evaluators",
    "experiments",
    "explorer",
    "export",
    "families",
    "fetch",
    "generation",
    "load",
    "neighbours",
    "photographs",
    "protocol_choice",
    "reference_statistics",
    "report",
    "result_files",
    "resume",
    "samples",
    "score_curve",
    "score_monitor",
    "scores",
    "session",
    "train",
    "training_job",
    "validate",
]
