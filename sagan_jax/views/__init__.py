"""Figures and pages of a run: arrays and files in, images and HTML out. Import from the modules."""

__all__ = [
    "animation",
    "attention",
    "curves",
    "explorer",
    "figures",
    "plan",
    "report",
    "templates",
]
