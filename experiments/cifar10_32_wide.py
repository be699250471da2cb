"""SAGAN on CIFAR-10 at 32x32 at full width: the recipe of a run that trained, with flips and augmentation added.

    sagan-jax train cifar10_32_wide --source cifar10-train.zip

Costs: 1.537 TFLOP a step (counted by `step_flops`), with five updates of D; about 0.35 hours of one H200. There, D saw
12,500 to 13,000 real images a second with five updates, without augmentation (TF32, jax 0.11.2).
Reached: not trained. The same run without flips and augmentation was trained on 34,000 JPEG copies. After 15,793 steps
it drew cars, trucks, ships, horses and cats that are recognised at a glance. By then its D had nearly memorised the
images: D's loss was 0.07. Flips and augmentation should prevent this. With one update of D and two learning rates, a
run of this width lost its D: see docs/when_training_fails.md.

`--source` takes a zip or folder with one folder for each class. The zip that we used holds lossy JPEG copies.

Departs from `cifar10_32_studiogan`: differentiable augmentation of the images that D sees (Zhao et al. 2020); a moving
average of G with decay 0.999 from step 1,000 on, as in the run that trained; 50,000 steps (100,000).
"""

from sagan_jax.config import Data, Experiment, Networks, Recording, Training


def experiment() -> Experiment:
    """Returns a run for a GPU."""
    return Experiment(
        name="cifar10_32_wide",
        data=Data(source="../shared/data/cifar10-train.zip", held_out="../shared/data/cifar10-test.zip"),
        networks=Networks(
            resolution=32,
            num_classes=10,
            generator_attention_resolutions=(16,),
            discriminator_attention_resolutions=(16,),
            norm_epsilon=1e-4,
            norm_decay=0.9,
            final_norm_decay=0.9,
            conditional_gain="map",
            discriminator_shortcut="after_relu",
            initializer="orthogonal",
            spectral_evaluation="stored",
            spectral_epsilon=1e-6,
        ),
        training=Training(
            total_steps=50_000,
            batch_size=64,
            discriminator_steps=5,
            augmentation=("color", "translation", "cutout"),
            flips=True,
            generator_learning_rate=2e-4,
            discriminator_learning_rate=2e-4,
            adam_beta1=0.5,
            adam_beta2=0.999,
            adam_epsilon=1e-6,
            ema_decay=0.999,
            ema_start_step=1000,
        ),
        recording=Recording(save_every_steps=2000, keep_every_steps=10_000),
    )
