"""Class-conditional SAGAN on MNIST at 32x32: one grey channel, and the paper's width and learning rates.

    sagan-jax train mnist_32 --source mnist.npz

Costs: 2.55 TFLOP a step (counted by `step_flops`); about 0.303 A100-hours, an estimate at 30% of 156 TFLOP/s (TF32).
Reached: not measured; the paper has no such run.

Two CPU cores can train an eighth of the width, with the learning rates of `digits_32`. That took 15 minutes beside
other jobs, at 338 images/s (median). All of 1,000 samples are the requested digit. Classes have hardly any variety: a
run on an H200 has recall 0.029 against the 5,000 digits, and `fd5k_train_lite0` 13.0.

    sagan-jax train mnist_32 --base-channels 8 --latent-size 64 --batch-size 32 --total-steps 3000 --ema-decay 0.99
      --generator-learning-rate 5e-4 --discriminator-learning-rate 2e-3 --norm-decay 0.99 --final-norm-decay 0.99

`--source` takes any ten classes. It defaults to `digits`, 5,000 of MNIST's 70,000. An .npz of the whole set holds
`images` uint8 [N, 28, 28, 1] and `labels` [N]. These images are enlarged to 32 pixels, while those of `digits` get a
black border. `digits_32` is the same task in minutes on a small CPU. It has three equal channels, an eighth of the
width, higher learning rates and a moving average.

Departs from the paper (its settings in brackets): a 32-pixel network with one channel and attention at 16x16; 20,000
steps (1,000,000). Therefore the running statistics of the last norm have decay 0.999 (0.9999).
"""

from sagan_jax.config import Data, Experiment, Networks, Training


def experiment() -> Experiment:
    """Returns a run of the paper's settings on handwritten digits."""
    return Experiment(
        name="mnist_32",
        data=Data(source="digits"),
        networks=Networks(
            resolution=32,
            num_classes=10,
            image_channels=1,
            generator_attention_resolutions=(16,),
            discriminator_attention_resolutions=(16,),
            final_norm_decay=0.999,
        ),
        training=Training(total_steps=20_000),
    )
