"""What only a layer that looks far can complete: textures whose right half is the mirror of the left, one half hidden.

Asked before the runs: the hidden half is known exactly, but from the other side of the image, and no pixel says
anything of one farther than four pixels away. Does a layer that looks everywhere complete what convolutions cannot
carry across? The latents, in which all of an image meets too, are 32 here: a half is 459 numbers (17 x 9 corners of the
texture, three colours each), and through the usual 256 a network without attention carries as much of them as one with.

    python experiments/run_table.py completion_mirror --out runs/completion_mirror

Three seeds a row; the rows differ in what sits at 16x16 alone.
"""

from dataclasses import replace

from sagan_jax.config import CompletionExperiment, Data, Recording, Table


def table() -> Table:
    """Returns twelve runs of about a minute and a half on two CPU cores."""
    release = CompletionExperiment(
        name="completion_mirror",
        data=Data(source="mirror", held_out="mirror:seed=1,images=500"),
        recording=Recording(log_every_steps=50, sample_every_steps=100, save_every_steps=1000, keep_checkpoints=1),
    )
    release = replace(
        release,
        networks=replace(release.networks, base_channels=16, latent_size=32),
        training=replace(release.training, total_steps=800, holes="half_right"),
    )
    networks = release.networks
    return Table(
        rows={
            "none": replace(release, networks=replace(networks, attention_resolutions=())),
            "residual": replace(release, networks=replace(networks, attention="residual")),
            "release": release,
            "article": replace(release, networks=replace(networks, attention="article")),
        },
        seeds=(0, 1, 2),
        scores={"half_right/psnr": "hidden half, dB", "half_right/l1": "L1", "half_right/ssim": "SSIM"},
        evaluation={"holes": ("half_right",), "samples": 0},
        baseline="residual",
        curve="held_out/psnr",
    )
