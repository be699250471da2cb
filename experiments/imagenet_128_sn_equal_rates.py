"""Figure 3 of the paper, second row: spectral norm in both networks, equal rates, no attention.

    sagan-jax train imagenet_128_sn_equal_rates --source imagenet-train

Costs: 18.24 TFLOP a step (counted by `step_flops`); about 108 A100-hours, an estimate at 30% of 156 TFLOP/s (TF32).
Reached: not measured. The paper reports FID 33.39 after 160,000 steps and 72.41 after 260,000, where quality drops. It
also has FID 93.52 after 10,000 steps (unverified).

Departs from `imagenet_128_no_attention`: both networks have one learning rate, 4e-4. We do not know the learning rate
of the figure. The authors' first commit starts both networks with 4e-4 (self-attention-gan:model.py at 0a93720). There,
G's rate falls to a quarter between steps 100,000 and 250,000.
"""

from sagan_jax.config import Experiment, Networks, Training


def experiment() -> Experiment:
    """Returns the paper's baseline with the first of its stabilisers."""
    return Experiment(
        name="imagenet_128_sn_equal_rates",
        networks=Networks(generator_attention_resolutions=(), discriminator_attention_resolutions=()),
        training=Training(generator_learning_rate=4e-4),
    )
