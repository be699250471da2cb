"""What does self-attention buy on `pairs` in DCGAN's networks, which have one convolution where SAGAN's have two?

Asked before the runs, and apart from `attention_buys`, because DCGAN needs its own recipe. It was searched for on runs
without attention until one drew clear blobs. D has spectral normalisation in place of DCGAN's batch norm. The loss and
Adam's betas are DCGAN's. Both rates are 1e-3. There are 4,000 steps, since a step costs half of one in SAGAN's
networks. With batch norm in D, at rates of 2e-4, or of 1e-3 for G alone, no image held two clear blobs after 1,000
steps. Stated after the runs: a run collapsed if at its end fewer than 1% of its images follow the rule.

    python experiments/run_table.py attention_dcgan --out runs/attention_dcgan
"""

from dataclasses import replace

from comparisons.columns import FOLLOWS_RULE, FOLLOWS_RULE_SHARE_OF
from sagan_jax.config import Collapse, Experiment, Table
from sagan_jax.runs.experiments import load_experiment


def table() -> Table:
    """Returns ten runs of about six minutes on one CPU core."""
    pairs, dcgan = load_experiment("pairs_32"), load_experiment("dcgan_cifar10_32")
    assert isinstance(pairs, Experiment)
    assert isinstance(dcgan, Experiment)
    pairs = replace(
        pairs,
        name="attention_dcgan",
        networks=replace(
            dcgan.networks,
            base_channels=8,
            latent_size=pairs.networks.latent_size,
            discriminator_norm="none",
            spectral_norm="discriminator",
        ),
        training=replace(
            dcgan.training,
            total_steps=4000,
            batch_size=pairs.training.batch_size,
            generator_learning_rate=1e-3,
            discriminator_learning_rate=1e-3,
            ema_decay=pairs.training.ema_decay,
        ),
        recording=replace(pairs.recording, keep_checkpoints=1),
    )
    networks = replace(pairs.networks, generator_attention_resolutions=(16,), discriminator_attention_resolutions=(16,))
    return Table(
        rows={"none": pairs, "at 16": replace(pairs, networks=networks)},
        seeds=(0, 1, 2, 3, 4),
        scores=FOLLOWS_RULE,
        baselines={"at 16": "none"},
        curves=("score/rule1k", "score/rule1k/hue", "generator/gamma_16"),
        protocols=("rule5k",),
        strips=("none", "at 16"),
        share_of=FOLLOWS_RULE_SHARE_OF,
        collapse=Collapse("score/rule1k", below=0.01),
    )
