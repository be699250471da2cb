"""Measurements of trained networks: samples, scores, attention maps, nearest neighbours and completions."""

from sagan_jax.evaluation.attention import (
    AttentionLayer,
    AttentionRecord,
    attention_records,
    discriminator_attention,
    generator_attention,
)
from sagan_jax.evaluation.completer import TrainedCompleter
from sagan_jax.evaluation.completion_quality import completion_scores, diversity, reconstruction_quality
from sagan_jax.evaluation.discriminator import TrainedDiscriminator
from sagan_jax.evaluation.embeddings import (
    Embedding,
    ImageBatch,
    dinov2_embedding,
    inception_embedding,
    lite0_embedding,
    random_embedding,
)
from sagan_jax.evaluation.evaluator import Evaluator
from sagan_jax.evaluation.generator import Samples, TrainedGenerator, TruncationRule, draw_labels
from sagan_jax.evaluation.image_sets import CompletedImages, GeneratedImages, ImageSet, RealImages
from sagan_jax.evaluation.inception import inception_features
from sagan_jax.evaluation.interpolation import interpolate, slerp
from sagan_jax.evaluation.inversion import Inversion, LatentSearch, invert
from sagan_jax.evaluation.lite0 import Lite0Weights, read_lite0
from sagan_jax.evaluation.neighbours import NeighbourReport, nearest_training_images
from sagan_jax.evaluation.partners import partner_attention
from sagan_jax.evaluation.protocols import KNOWN_PROTOCOLS, Protocol, parse_protocol
from sagan_jax.evaluation.references import ReferenceStatistics
from sagan_jax.evaluation.replaced_attention import KnockOut, Replacement, knock_out, replaceable_layers
from sagan_jax.evaluation.rules import RuleResult, check_rule, num_modes, rule_accuracy
from sagan_jax.evaluation.scores import (
    ClassifierAccuracy,
    FrechetDistance,
    InceptionScore,
    IntraClassFrechetDistance,
    KernelDistance,
    PrecisionRecall,
    RuleAccuracy,
    Score,
    Scorer,
)
from sagan_jax.evaluation.statistics_files import FeatureStatistics, read_statistics, write_statistics

__all__ = [
    "KNOWN_PROTOCOLS",
    "AttentionLayer",
    "AttentionRecord",
    "ClassifierAccuracy",
    "CompletedImages",
    "Embedding",
    "Evaluator",
    "FeatureStatistics",
    "FrechetDistance",
    "GeneratedImages",
    "ImageBatch",
    "ImageSet",
    "InceptionScore",
    "IntraClassFrechetDistance",
    "Inversion",
    "KernelDistance",
    "KnockOut",
    "LatentSearch",
    "Lite0Weights",
    "NeighbourReport",
    "PrecisionRecall",
    "Protocol",
    "RealImages",
    "ReferenceStatistics",
    "Replacement",
    "RuleAccuracy",
    "RuleResult",
    "Samples",
    "Score",
    "Scorer",
    "TrainedCompleter",
    "TrainedDiscriminator",
    "TrainedGenerator",
    "TruncationRule",
    "attention_records",
    "check_rule",
    "completion_scores",
    "dinov2_embedding",
    "discriminator_attention",
    "diversity",
    "draw_labels",
    "generator_attention",
    "inception_embedding",
    "inception_features",
    "interpolate",
    "invert",
    "knock_out",
    "lite0_embedding",
    "nearest_training_images",
    "num_modes",
    "parse_protocol",
    "partner_attention",
    "random_embedding",
    "read_lite0",
    "read_statistics",
    "reconstruction_quality",
    "replaceable_layers",
    "rule_accuracy",
    "slerp",
    "write_statistics",
]
