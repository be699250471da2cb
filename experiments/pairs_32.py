"""Two blobs that share a hue and a form, at 32x32: SAGAN with attention at 16x16, scored by a program.

    sagan-jax train pairs_32

Costs: 5.90 GFLOP a step (counted by XLA as `step_flops` counts); 6 minutes on one CPU core beside another run.
Reached: 19.7% of 1,000 images follow the rule, in 4 of the 12 pairs of hue and form. 39% have two clear blobs. Of
these, hues agree in 77% and forms in 65%. The same blobs, paired at random, would agree in 64% and 66%. The samples are
one to three green and yellow blobs. G attends to the partner: 45% of a blob's attention falls on the other one, 5.0
times a uniform weight. This is one seed of `experiments/tables/attention_buys.py`, which compares several.

`rule1k` is measured every 250 steps: the share of images that have two clear blobs of one hue and one form. `--source
pairs:blobs=3,forms=4` makes it harder. `--source mirror` is another rule.

Departs from the paper as `digits_32` does, except that D's learning rate is 1e-3 and that there are no classes.
"""

from sagan_jax.config import Data, Evaluation, Experiment, Networks, Recording, Training


def experiment() -> Experiment:
    """Returns a run of minutes on two CPU cores."""
    return Experiment(
        name="pairs_32",
        data=Data(source="pairs"),
        networks=Networks(
            resolution=32,
            num_classes=0,
            base_channels=8,
            latent_size=64,
            generator_attention_resolutions=(16,),
            discriminator_attention_resolutions=(16,),
            norm_decay=0.99,
            final_norm_decay=0.99,
        ),
        training=Training(
            total_steps=2000,
            batch_size=32,
            generator_learning_rate=5e-4,
            discriminator_learning_rate=1e-3,
            ema_decay=0.99,
        ),
        recording=Recording(log_every_steps=50, sample_every_steps=500, save_every_steps=500),
        evaluation=Evaluation(protocols=("rule1k",), evaluate_every_steps=250),
    )
