"""mmgeneration's recipe, which reached FID 12.83: a moving average of G, and attention at 64x64.

    sagan-jax train imagenet_128_ema --source imagenet-train

Costs: 20.01 TFLOP a step (counted by `step_flops`); about 119 A100-hours, an estimate at 30% of 156 TFLOP/s (TF32).
Reached: not measured. mmgeneration reports FID 12.83 and IS 69.5 after 826,000 steps, in its own protocol. The paper
has no such run.

Source: open-mmlab/mmgeneration:configs/sagan/sagan_128_woReLUinplace_noaug_bigGAN_*.py, after ajbrock/BigGAN-PyTorch:
scripts/launch_SAGAN_bs128x2_ema.sh.

Departs from `imagenet_128`:

- attention at 64x64
- a moving average of G with decay 0.999 from step 2,000 on
- batch moments of each device separately (32 images each on 8 devices), as without SyncBN
- running moments with PyTorch's decay 0.9
- Adam's beta2 0.999
- epsilon 1e-8 in the spectral norms
- class gains and shifts are maps that are not normalised. Their kernels start Xavier-uniform, and 1 is added to gains

The rest of the recipe is the default here, because it is the release's: Xavier-uniform weights, centre crops without
flips, epsilon 1e-5 in the norms and 1e-8 in Adam, learning rates 1e-4 and 4e-4, one update each, batch 256.

Some differences cannot be configured. In mmgeneration, u and the running moments of G change at each forward pass of G
(ours only in the update of G), and u of D at each pass of D. It averages the parameters and copies the running moments;
ours averages both. It divides u and v by their norm or epsilon, whichever is larger; ours adds epsilon to the norm.
"""

from sagan_jax.config import Experiment, Networks, Training


def experiment() -> Experiment:
    """Returns the recipe, as far as it can be configured."""
    return Experiment(
        name="imagenet_128_ema",
        networks=Networks(
            generator_attention_resolutions=(64,),
            discriminator_attention_resolutions=(64,),
            norm_decay=0.9,
            final_norm_decay=0.9,
            conditional_gain="free_map",
            spectral_epsilon=1e-8,
        ),
        training=Training(adam_beta2=0.999, ema_decay=0.999, ema_start_step=2000, moments="device"),
    )
