"""What does self-attention buy on `pairs` in DCGAN's networks, which have one convolution where SAGAN's have two?

Asked before the runs, and apart from `attention_buys` because DCGAN needs rates, a loss and norms of its own: those of
`dcgan_cifar10_32`, at half its width and batch. With the rates, the hinge loss and the spectral normalisation of
`pairs_32` D's loss is 0.0000 after fifty steps, and in three runs with attention at most 1.0% of the images obeyed.

    python experiments/run_table.py attention_dcgan --out runs/attention_dcgan
"""

from dataclasses import replace

from sagan_jax.cli.experiments import load_experiment
from sagan_jax.config import Experiment, Table


def table() -> Table:
    """Returns six runs of about four minutes on one CPU core."""
    pairs, dcgan = load_experiment("pairs_32"), load_experiment("dcgan_cifar10_32")
    assert isinstance(pairs, Experiment)
    assert isinstance(dcgan, Experiment)
    pairs = replace(
        pairs,
        name="attention_dcgan",
        networks=replace(dcgan.networks, base_channels=8, latent_size=pairs.networks.latent_size),
        training=replace(dcgan.training, batch_size=pairs.training.batch_size, ema_decay=pairs.training.ema_decay),
        recording=replace(pairs.recording, keep_checkpoints=1),
    )
    networks = replace(pairs.networks, generator_attention_resolutions=(16,), discriminator_attention_resolutions=(16,))
    return Table(
        rows={"none": pairs, "at 16": replace(pairs, networks=networks)},
        seeds=(0, 1, 2),
        scores={
            "rule5k": "obey",
            "rule5k/parts": "two clear blobs",
            "rule5k/hue": "same hue",
            "rule5k/hue_chance": "by chance",
            "rule5k/form": "same form",
            "rule5k/form_chance": "by chance",
            "rule5k/kinds": "kinds",
        },
        baselines={"at 16": "none"},
        curves=("score/rule1k", "score/rule1k/hue", "generator/gamma_16"),
        protocols=("rule5k",),
        strips=("none", "at 16"),
    )
