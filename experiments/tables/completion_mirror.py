"""What only a layer that looks far can complete: textures whose right half mirrors the left, with one half hidden.

Asked before the runs: the other side of the image determines the hidden half exactly, and no pixel says anything about
one farther than five pixels away. Does a layer that looks everywhere complete what convolutions must carry across step
by step? There are only four latents, which see the whole image, and a half is 828 numbers (23 x 12 corners of the
texture, three colours each). So a completion comes through the feature maps.

    python experiments/run_table.py completion_mirror --out runs/completion_mirror

Three seeds a row. Rows differ only in the layer at 8x8. There every position stands for a square of 8x8 pixels, and its
twin is one of 64. At 16x16 it is one of 256, and no run of ours found it in 600 steps. The settings were varied until
one run with attention learned to use it. The number of settings was not recorded, and there was no such search for the
control.
"""

from dataclasses import replace

from sagan_jax.config import CompletionExperiment, Data, Recording, Table


def table() -> Table:
    """Returns twelve runs of about two minutes on two CPU cores."""
    article = CompletionExperiment(
        name="completion_mirror",
        data=Data(source="mirror:grain=3", held_out="mirror:grain=3,seed=1,images=500"),
        recording=Recording(log_every_steps=50, sample_every_steps=250, save_every_steps=1000, keep_checkpoints=1),
    )
    article = replace(
        article,
        networks=replace(
            article.networks, base_channels=16, latent_size=4, attention_resolutions=(8,), attention="article"
        ),
        training=replace(article.training, total_steps=2000, batch_size=16, holes="half_right"),
    )
    networks = article.networks
    return Table(
        rows={
            "none": replace(article, networks=replace(networks, attention_resolutions=())),
            "residual": replace(article, networks=replace(networks, attention="residual")),
            "article": article,
            "release": replace(article, networks=replace(networks, attention="release")),
        },
        seeds=(0, 1, 2),
        scores={"half_right/psnr": "hidden half, dB", "half_right/l1": "L1", "half_right/ssim": "SSIM"},
        evaluation={"holes": ("half_right",), "samples": 0},
        baselines=dict.fromkeys(("none", "article", "release"), "residual"),
        curves=("held_out/psnr",),
    )
