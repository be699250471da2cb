"""Does self-attention help to complete faces?

Asked before the runs: a self-attention layer sits at 16x16 in encoder and decoder. At equal parameters and equal steps,
does it raise the PSNR inside the hole, on people that were not trained on? It is compared with a residual block of as
many parameters in its place, and with nothing in its place. And where does it help: in holes in the middle, which have
surroundings on all sides, or where half of the face is missing? The article that describes such a system says that
attention improves its completions visibly, and gives no number.

    python experiments/run_table.py completion_attention --out runs/completion_attention

Three seeds a row. Rows differ only in the layer. All runs of a seed see the same images with the same holes in the same
order. The last row was added after the others: mirrored textures (`completion_mirror.py`) had shown that a layer at 8x8
learns to look across an image sooner than one at 16x16. It has 17,756 parameters more than the residual control at
16x16 that it is compared with, 0.4% of the network.
"""

from dataclasses import replace

from sagan_jax.config import CompletionExperiment, Data, Recording, Table

_FACES = Data(source="../shared/data/faces-train.zip", held_out="../shared/data/faces-test.zip")
SCORES = {
    "centre/psnr": "centre, dB",
    "half_left/psnr": "left half, dB",
    "half_right/psnr": "right half, dB",
    "half_top/psnr": "upper half, dB",
    "half_bottom/psnr": "lower half, dB",
    "strokes/psnr": "strokes, dB",
}
_RECORDING = Recording(log_every_steps=50, sample_every_steps=500, save_every_steps=1000, keep_checkpoints=1)


def table() -> Table:
    """Returns twelve runs of about eight minutes on two CPU cores."""
    attention = CompletionExperiment(name="completion_attention", data=_FACES, recording=_RECORDING)
    attention = replace(attention, training=replace(attention.training, total_steps=3000))
    networks = attention.networks
    return Table(
        rows={
            "none": replace(attention, networks=replace(networks, attention_resolutions=())),
            "residual": replace(attention, networks=replace(networks, attention="residual")),
            "attention": attention,
            "article at 8": replace(
                attention, networks=replace(networks, attention_resolutions=(8,), attention="article")
            ),
        },
        seeds=(0, 1, 2),
        scores=SCORES,
        evaluation={"holes": ("centre", "half_left", "half_right", "half_top", "half_bottom", "strokes"), "samples": 0},
        tested=tuple(SCORES),
        baselines=dict.fromkeys(("none", "attention", "article at 8"), "residual"),
        curves=("held_out/psnr",),
    )
