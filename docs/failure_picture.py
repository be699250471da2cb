"""Draws what training looks like when it fails: `python docs/failure_picture.py LOST.jsonl GOOD.jsonl`.

Both files are the `metrics.jsonl` of a run on CIFAR-10 at width 64: one that lost its discriminator, and one that
trained. The last panel shows runs of `experiments/results`.
"""

import io
import json
import sys
from pathlib import Path

import matplotlib
from PIL import Image

from sagan_jax.runtime.metrics_log import read_metrics

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

DOCS = Path(__file__).resolve().parent
OUT = DOCS / "pictures" / "training_fails.png"
RESULTS = DOCS.parent / "experiments" / "results" / "attention_buys"
LOST, GOOD, OTHER = "#c23b22", "#1f6fb4", "#9a9a9a"
COLLAPSED_SEED = 3


def draw_training(panels: list[Axes], file: str, name: str, colour: str) -> None:
    """Draws D's logits, D's loss and G's gradient of a run."""
    curves = read_metrics(Path(file)).curves
    real, generated = (curves[f"discriminator/{kind}_logits"] for kind in ("real", "fake"))
    loss, gradient = curves["discriminator/loss"], curves["generator/gradient_norm"]
    for axes, values in zip(panels, (real.values - generated.values, loss.values, gradient.values), strict=True):
        axes.plot(real.steps, values, color=colour, linewidth=1.5, label=name)


def draw_scores(axes: Axes) -> None:
    """Draws the share of images that hold what they should, of five runs of one row."""
    for seed in range(5):
        result = json.loads((RESULTS / f"article at 16-{seed}" / "row.json").read_text("utf-8"))
        steps, shares = zip(*result["curves"]["score/rule1k/parts"], strict=True)
        collapsed = seed == COLLAPSED_SEED
        name = "collapsed" if collapsed else "others" if seed == 0 else None
        axes.plot(steps, shares, color=LOST if collapsed else OTHER, linewidth=2 if collapsed else 1.2, label=name)


def main(lost: str, good: str) -> None:
    """Writes the picture."""
    figure, grid = pyplot.subplots(2, 2, figsize=(9, 5.4), layout="constrained")
    panels = list(grid.flat)
    draw_training(panels[:3], good, "trained", GOOD)
    draw_training(panels[:3], lost, "lost its D", LOST)
    draw_scores(panels[3])
    titles = "D: logit of real − generated", "D: hinge loss", "G: norm of the gradient", "images with two clear blobs"
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_xlabel("steps", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    panels[0].axhline(0, color="black", linewidth=0.6)
    panels[1].axhline(2, color="black", linewidth=0.6, linestyle=":")
    panels[1].annotate("D says nothing", (28_000, 2.2), fontsize=8, ha="right", va="bottom")
    panels[1].set_ylim(0, 2.6)
    panels[2].set_yscale("log")
    picture = io.BytesIO()
    figure.savefig(picture, dpi=110)
    Image.open(picture).convert("RGB").quantize(64).save(OUT, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
