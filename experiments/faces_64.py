"""Unconditional SAGAN on photographs of faces at 64x64, at a width that a small CPU can train.

    sagan-jax train faces_64 --source faces-train.zip

Costs: 47 minutes on two CPU cores, shared with other jobs most of the time: 37 images/s (median), and 60 without them;
23.15 GFLOP a step (counted by `step_flops`).
Reached: gamma is 0.26 in D and -0.08 in G after 3,000 steps. Samples are heads with eyes, nose and mouth in their
places, with several skin tones, hair and backgrounds. Most are distorted. About one in seven of a hundred is the same
striped face: G has partly collapsed to this mode. The paper has no such run.

`--source` takes a zip or folder of images in one folder. We used 11,685 aligned faces, resized from 128 pixels. They
are photographs of real people, so images made from them are not stored in this repository.

Departs from the paper (its settings in brackets): an unconditional 64-pixel network of width 12 (128 pixels, width 64),
with attention at 32x32 as in the paper; batch 32 (256); learning rates 4e-4 and 1.6e-3 (1e-4 and 4e-4), in the paper's
ratio; 3,000 steps (1,000,000); running statistics with decay 0.99; a moving average of G with decay 0.995 from step 500
on (none).
"""

from sagan_jax.config import Data, Experiment, Networks, Recording, Training


def experiment() -> Experiment:
    """Returns a run of three quarters of an hour on two CPU cores."""
    return Experiment(
        name="faces_64",
        data=Data(source="../shared/data/faces-train.zip", held_out="../shared/data/faces-test.zip"),
        networks=Networks(
            resolution=64,
            num_classes=0,
            base_channels=12,
            norm_decay=0.99,
            final_norm_decay=0.99,
        ),
        training=Training(
            total_steps=3000,
            batch_size=32,
            generator_learning_rate=4e-4,
            discriminator_learning_rate=1.6e-3,
            ema_decay=0.995,
            ema_start_step=500,
        ),
        recording=Recording(log_every_steps=50, sample_every_steps=500, save_every_steps=500),
    )
