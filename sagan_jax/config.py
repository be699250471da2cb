"""What an experiment says: plain frozen data. The defaults are the paper's, so a file is exactly its difference."""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class Data:
    """Where the images come from."""

    source: str = ""
    """`digits`, `pairs`, `mirror`, or a folder or zip of (class folders of) images, .parquet, .npz or .npy"""
    held_out: str = ""
    """images of the same kind that are not trained on: the reference of scores named `_validation` or `_test`"""
    skip_unreadable: int = 0
    """at most this many image files may be unreadable; they are left out, and listed"""
    cache: str = "auto"
    """folder that decoded images are kept in, "" for none; auto: $SAGAN_JAX_CACHE, or ~/.cache/sagan_jax/images"""


@dataclasses.dataclass(frozen=True)
class Networks:
    """The two networks; the defaults are the authors' release on ImageNet."""

    family: Literal["sagan", "dcgan", "biggan"] = "sagan"
    resolution: Literal[32, 64, 128, 256] = 128
    """height and width of the images, in pixels"""
    num_classes: int = 1000
    """0 makes both networks unconditional"""
    base_channels: int = 64
    """the width that the multipliers of every block refer to"""
    discriminator_base_channels: int = 0
    """D's, where it is not G's; 0 where it is"""
    image_channels: int = 3
    latent_size: int = 128
    shared_size: int = 128
    """entries of the class embedding that all norms of a biggan share; 0 for none"""
    hierarchical: bool = True
    """whether each block of a biggan gets its part of the latent; else it enters once"""
    generator_attention_resolutions: tuple[int, ...] = (32,)
    """feature-map sizes, in pixels, whose first block is followed by attention"""
    discriminator_attention_resolutions: tuple[int, ...] = (32,)
    attention: Literal["release", "article", "residual"] = "release"
    """what sits there: the release's pooled attention, the article's, or Table 1's residual control"""
    norm_epsilon: float = 1e-5
    norm_decay: float = 0.999
    final_norm_decay: float = 0.9999
    conditional_gain: Literal["table", "map"] = "table"
    """a table of gains, never spectrally normalised, or 1 + a map that is normalised with the rest of G (StudioGAN)"""
    discriminator_shortcut: Literal["before_relu", "after_relu"] = "before_relu"
    """which x the shortcut of D's blocks after the first sees; `after_relu` is StudioGAN's in-place ReLU"""
    discriminator_norm: Literal["none", "batch"] = "none"
    initializer: Literal["xavier", "orthogonal"] = "xavier"
    """how kernels start"""
    spectral_norm: Literal["both", "discriminator", "generator", "none"] = "both"
    """which networks are spectrally normalised; `discriminator` is the paper's baseline, SNGAN's rule"""
    spectral_evaluation: Literal["iterated", "stored"] = "iterated"
    """sigma of a trained network: one iteration from the stored u (the release), or the stored u and v (PyTorch)"""
    spectral_epsilon: float = 1e-12


@dataclasses.dataclass(frozen=True)
class Training:
    """The adversarial game: rates, batch, length."""

    total_steps: int = 1_000_000
    """generator updates"""
    batch_size: int = 256
    """images a step over all devices"""
    accumulation_steps: int = 1
    """parts that a batch goes through the networks in, for one that does not fit the memory; moments are each part's"""
    discriminator_steps: int = 1
    """discriminator updates before each generator update"""
    loss: Literal["hinge", "non_saturating", "wasserstein"] = "hinge"
    augmentation: tuple[Literal["color", "translation", "cutout"], ...] = ()
    """differentiable augmentation of all that D sees, for small sets of images"""
    orthogonal_strength: float = 0.0
    """of the penalty on kernels of the generator that are not orthogonal; BigGAN's is 1e-4"""
    generator_learning_rate: float = 1e-4
    discriminator_learning_rate: float = 4e-4
    adam_beta1: float = 0.0
    adam_beta2: float = 0.9
    adam_epsilon: float = 1e-8
    ema_decay: float = 0.0
    """0 turns the moving average of the generator off, as in the paper"""
    ema_start_step: int = 0
    """before this step the average is a copy of the generator"""
    moments: Literal["global", "device"] = "global"
    """batch-norm moments over the global batch, or over each device's own part as in the release"""
    differentiate_spectral_vectors: bool = False
    """let the gradient flow through u and v, as in the release"""
    driver: Literal["pmap", "shard_map"] = "pmap"
    init_from: str = ""
    """the workdir of a run, or of `sagan-jax convert`, whose networks this one starts from"""
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Recording:
    """How often a run writes what."""

    log_every_steps: int = 100
    sample_every_steps: int = 1000
    save_every_steps: int = 1000
    keep_checkpoints: int = 3


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What is scored while a run trains; `sagan-jax evaluate` does the same afterwards."""

    protocols: tuple[str, ...] = ()
    """scores by name, such as fid50k_train or fd5k_train_random; none unless given"""
    evaluate_every_steps: int = 10_000
    keep_best_by: str = ""
    """the score whose best checkpoint is kept in `best/`; the first of the protocols unless given"""
    stop_on_collapse: bool = False
    """end the run when the images lose their variety or the score becomes twice its best, thrice in a row"""
    inception_weights: str = ""
    """the FID network's weights; those of `sagan-jax fetch-weights` unless given"""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A run, whole."""

    name: str = "imagenet_128"
    data: Data = Data()
    networks: Networks = Networks()
    training: Training = Training()
    recording: Recording = Recording()
    evaluation: Evaluation = Evaluation()


@dataclasses.dataclass(frozen=True)
class CompletionNetworks:
    """The network that fills holes, and the discriminator of its adversarial term."""

    resolution: Literal[64, 128] = 64
    """height and width of the images, in pixels"""
    image_channels: int = 3
    base_channels: int = 24
    """the width that the multipliers of every size refer to"""
    latent_size: int = 256
    attention_resolutions: tuple[int, ...] = (16,)
    """feature-map sizes after whose blocks attention sits, in encoder and decoder"""
    attention: Literal["release", "article", "residual"] = "release"
    """what sits there: the release's pooled attention, the article's, or a local block of as many parameters"""
    blocks: int = 1
    """residual blocks a size"""
    skips: bool = True
    """hand the encoder's feature maps of the visible part to the decoder; without, only the latents"""
    discriminator_base_channels: int = 16
    """of the discriminator, which is there when --adversarial-weight is above 0"""


@dataclasses.dataclass(frozen=True)
class CompletionTraining:
    """How the network learns to fill holes."""

    total_steps: int = 6000
    batch_size: int = 32
    """images a step over all devices"""
    holes: str = "mixed"
    """what is hidden: a kind of `sagan_jax.data.masks`"""
    flips: bool = True
    """show every other image mirrored"""
    reconstruction: Literal["squared", "logarithmic", "absolute"] = "logarithmic"
    """what of the error in the hole is made small: its square, the logarithm of that of each image, or its size"""
    visible_weight: float = 0.0
    """of a known pixel that the decoder draws anew, where one in the hole has 1"""
    kl_weight: float = 3e-4
    """of the latents' divergence from the prior, in nats"""
    kl_warmup_steps: int = 1000
    """over which that weight grows from 0"""
    free_bits: float = 0.02
    """nats of each latent that cost nothing"""
    adversarial_weight: float = 0.0
    """of the hinge term; 0 leaves the discriminator out"""
    optimizer: Literal["muon", "adam"] = "muon"
    """for convolutions and attention; all else is Adam's, whose rate is the same"""
    learning_rate: float = 2e-3
    """its largest value, from which it falls along a cosine"""
    warmup_steps: int = 200
    """over which it grows from 0, at most half of the run"""
    adam_beta1: float = 0.9
    adam_beta2: float = 0.99
    discriminator_learning_rate: float = 4e-4
    ema_decay: float = 0.998
    """of the moving average of the weights; 0 turns it off"""
    driver: Literal["pmap", "shard_map"] = "pmap"
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class CompletionExperiment:
    """A run that learns to fill holes, whole."""

    name: str = "faces_completion_64"
    task: Literal["completion"] = "completion"
    data: Data = Data()
    networks: CompletionNetworks = CompletionNetworks()
    training: CompletionTraining = CompletionTraining()
    recording: Recording = Recording()


AnyExperiment = Experiment | CompletionExperiment


@dataclasses.dataclass(frozen=True)
class Table:
    """Runs to be compared: a row's name says in what its run differs from the others.

    Attributes:
        rows: by name.
        seeds: of each row; a row's numbers are mean and spread over them.
        scores: columns: a score's name as `evaluate` returns it, and what a person calls it.
        baselines: by row, the one that it is compared with, seed by seed.
        curves: what the runs record on the way and the plot shows.
        protocols: what `evaluate` measures.
        evaluation: what it is given besides.
        strips: rows whose images are shown; their images follow a rule of `sagan_jax.data.synthetic`.
        share_of: by a score that is a share of what another one counts, that one: where it is 0, there is no share.
    """

    rows: Mapping[str, AnyExperiment]
    seeds: tuple[int, ...]
    scores: Mapping[str, str]
    baselines: Mapping[str, str]
    curves: tuple[str, ...]
    protocols: tuple[str, ...] = ()
    evaluation: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    strips: tuple[str, ...] = ()
    share_of: Mapping[str, str] = dataclasses.field(default_factory=dict)


def to_dict(experiment: AnyExperiment) -> dict[str, Any]:
    """Returns `experiment` as nested dictionaries of JSON types."""
    return dataclasses.asdict(experiment)


def from_dict(values: dict[str, Any], kind: type | None = None) -> Any:
    """Returns the `kind` that `to_dict` turned into `values`; unknown names raise TypeError.

    Args:
        values: nested dictionaries of JSON types.
        kind: the experiment that their `task` says unless given.
    """
    if kind is None:
        kind = CompletionExperiment if values.get("task") == "completion" else Experiment
    hints = typing.get_type_hints(kind)

    def read(name: str, value: Any) -> Any:
        if dataclasses.is_dataclass(hints.get(name)):
            return from_dict(value, hints[name])
        return tuple(value) if isinstance(value, list) else value

    return kind(**{name: read(name, value) for name, value in values.items()})
