"""Scores against numpy and scipy on the same features. A simple function takes the place of a network."""

import dataclasses
import hashlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sagan_jax.data import open_source
from sagan_jax.errors import InvalidInputError, NonFiniteError
from sagan_jax.evaluation import classifier, references
from sagan_jax.evaluation.embeddings import Embedding, ImageBatch, random_embedding
from sagan_jax.evaluation.evaluator import Evaluator
from sagan_jax.evaluation.generator import TrainedGenerator
from sagan_jax.evaluation.image_sets import GeneratedImages, RealImages
from sagan_jax.evaluation.linear_classifier import PENALTY
from sagan_jax.evaluation.protocols import parse_protocol
from sagan_jax.evaluation.references import ReferenceStatistics
from sagan_jax.evaluation.scores import FrechetDistance, IntraClassFrechetDistance
from sagan_jax.evaluation.statistics_files import read_statistics, write_statistics
from sagan_jax.functional.distances import density_coverage, inception_score, kernel_distance, precision_recall
from support.generators import make_generator


def plain_features(images):
    """Five numbers of an image, in numpy: the means of the colours, of the upper half, and of the left half."""
    floats = np.asarray(images, np.float64) / 255
    halves = [floats[:, : floats.shape[1] // 2].mean((1, 2, 3)), floats[:, :, : floats.shape[2] // 2].mean((1, 2, 3))]
    return np.concatenate([floats.mean((1, 2)), np.stack(halves, axis=1)], axis=1)


def plain_network(variables, images):
    floats = images.astype(jnp.float32) / 255
    halves = [floats[:, : floats.shape[1] // 2].mean((1, 2, 3)), floats[:, :, : floats.shape[2] // 2].mean((1, 2, 3))]
    features = jnp.concatenate([floats.mean((1, 2)), jnp.stack(halves, axis=1)], axis=1)
    return {"features": features * variables, "logits_unbiased": 20 * features[:, :4]}


PLAIN = Embedding("inception", "plain", plain_network, np.float32(1), 5)


def make_images(path, number, seed, *, classes=3, brightness=60, base=120, size=32):
    drawn = np.random.default_rng(seed)
    labels = np.arange(number) % max(1, classes)
    levels = drawn.integers(0, base, (number, 1, 1, 3)) + drawn.integers(0, 60, (number, size, size, 3))
    images = (levels + brightness * labels[:, None, None, None] // max(1, classes)).astype(np.uint8)
    file = path / f"images-{number}-{seed}-{classes}-{size}.npz"
    np.savez(file, images=images, **({"labels": labels} if classes else {}))
    return str(file)


def real_images(path, number, seed, batch_size=8, **options):
    return RealImages(open_source(make_images(path, number, seed, **options), resolution=32, cache=""), batch_size)


def gaussian_distance(real, fake):
    root = scipy.linalg.sqrtm(np.cov(real.T) @ np.cov(fake.T)).real
    return ((real.mean(0) - fake.mean(0)) ** 2).sum() + np.trace(np.cov(real.T) + np.cov(fake.T) - 2 * root)


def features_of(images, count=None, seed=0):
    batches = list(images.draw(count or len(images.source), seed))
    return np.concatenate([plain_features(batch.images[: len(batch.labels)]) for batch in batches])


def test_frechet_distance_can_be_measured_without_an_evaluator(tmp_path):
    real, fake = real_images(tmp_path, 61, 0), real_images(tmp_path, 47, 1)
    scorer = FrechetDistance(parse_protocol("fid47_train"), ReferenceStatistics(real, inception=PLAIN))
    scorer.check(num_classes=0)
    values, details = scorer.measure(fake, seed=0)
    assert values == pytest.approx({"fid47_train": gaussian_distance(features_of(real), features_of(fake))}, rel=1e-5)
    assert details == {}


@pytest.mark.parametrize("name", ["fid1_train", "fd1_test_random"])
def test_frechet_distance_needs_two_images(tmp_path, name):
    real = real_images(tmp_path, 61, 0)
    with pytest.raises(InvalidInputError, match="at least 2 images; got 1"):
        FrechetDistance(parse_protocol(name), ReferenceStatistics(real, real, PLAIN)).check(num_classes=0)


def test_intra_class_distance_needs_two_real_images_of_each_class(tmp_path):
    scorer = IntraClassFrechetDistance(
        parse_protocol("intra_fid_train"), ReferenceStatistics(real_images(tmp_path, 5, 0), inception=PLAIN)
    )
    with pytest.raises(InvalidInputError, match="at least 2 real images of each class; one class has 1"):
        scorer.check(num_classes=3)


@pytest.mark.parametrize("batch_size", [4, 12, 64])
def test_frechet_score_is_the_distance_of_all_reference_and_all_drawn_images(tmp_path, batch_size):
    real, fake = real_images(tmp_path, 61, 0, batch_size), real_images(tmp_path, 47, 1, batch_size)
    score = Evaluator(real, inception=PLAIN).score(parse_protocol("fid47_train"), fake)
    assert score.value == pytest.approx(gaussian_distance(features_of(real), features_of(fake)), rel=1e-5)


def test_frechet_score_of_a_long_stream_is_merged_from_parts(tmp_path):
    real, fake = real_images(tmp_path, 1301, 0, 100), real_images(tmp_path, 1201, 1, 100)
    score = Evaluator(real, inception=PLAIN).score(parse_protocol("fid1201_train"), fake)
    assert score.value == pytest.approx(gaussian_distance(features_of(real), features_of(fake)), rel=1e-5)


def test_held_out_images_are_the_reference_of_validation_and_test(tmp_path):
    train, held_out, fake = (real_images(tmp_path, number, seed) for seed, number in enumerate((61, 53, 47)))
    evaluator = Evaluator(train, held_out, PLAIN)
    wanted = gaussian_distance(features_of(held_out), features_of(fake))
    for name in ("fid47_validation", "fid47_test"):
        score = evaluator.score(parse_protocol(name), fake)
        assert score.value == pytest.approx(wanted, rel=1e-5)
        assert score.details["reference"]["fingerprint"] == held_out.source.fingerprint


def test_inception_score_is_of_ten_splits_in_a_drawn_order_and_of_one(tmp_path):
    fake = real_images(tmp_path, 61, 1)
    score = Evaluator(fake, inception=PLAIN).score(parse_protocol("is61"), fake, seed=3)
    logits = 20 * features_of(fake, 61, seed=3)[:, :4]
    assert score.value == pytest.approx(inception_score(logits, 10)[0], rel=1e-5)
    assert score.values["is61/deviation"] == pytest.approx(inception_score(logits, 10)[1], rel=1e-4)
    assert score.values["is61/one_split"] == pytest.approx(inception_score(logits, 1)[0], rel=1e-5)
    assert score.value != pytest.approx(inception_score(20 * features_of(fake, 61, seed=4)[:, :4], 10)[0], rel=1e-5)


def test_kernel_score_is_the_mean_over_subsets_of_a_thousand(tmp_path):
    real, fake = real_images(tmp_path, 1103, 0, 100), real_images(tmp_path, 1009, 1, 100, brightness=160)
    score = Evaluator(real, inception=PLAIN).score(parse_protocol("kid1009_train"), fake)
    # Each subset holds nearly all images, so its distance is close to that of all.
    whole = kernel_distance(features_of(real), features_of(fake))
    assert score.value == pytest.approx(whole, abs=4 * score.values["kid1009_train/deviation"])
    assert 0 < score.values["kid1009_train/deviation"] < 0.1 * score.value


def test_kernel_score_of_few_images_has_smaller_subsets_and_says_so_in_its_name(tmp_path):
    real, fake = real_images(tmp_path, 61, 0), real_images(tmp_path, 47, 1)
    evaluator = Evaluator(real, inception=PLAIN)
    score = evaluator.score(parse_protocol("kid47_train"), fake)
    assert list(score.values) == ["kid47_train_subset47", "kid47_train_subset47/deviation"]
    assert score.protocol.settings()["subset"] == score.details["subset_size"] == 47
    whole = kernel_distance(features_of(real), features_of(fake))
    assert score.value == pytest.approx(whole, abs=4 * score.values["kid47_train_subset47/deviation"])
    assert evaluator.value_names(parse_protocol("kid47_train")) == tuple(score.values)
    named = evaluator.score(parse_protocol("kid47_train_subset47"), fake)
    assert named.values == score.values
    # Where there are fewer real images, a subset has as many.
    swapped = Evaluator(fake, inception=PLAIN).score(parse_protocol("kid61_train"), real)
    assert swapped.protocol.name == "kid61_train_subset47"


def test_precision_recall_density_and_coverage_are_of_as_many_real_as_drawn_images(tmp_path):
    real, fake = real_images(tmp_path, 61, 0), real_images(tmp_path, 47, 1)
    score = Evaluator(real, inception=PLAIN).score(parse_protocol("prdc47_train"), fake)
    features = features_of(real, 47), features_of(fake)
    wanted = (*precision_recall(*features, 3), *density_coverage(*features, 5))
    assert list(score.values) == [f"prdc47_train/{name}" for name in ("precision", "recall", "density", "coverage")]
    assert list(score.values.values()) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("name", ["fid40_train", "is40", "kid1000_train", "prdc40_train"])
def test_names_of_the_values_are_known_before_they_are_measured(tmp_path, name):
    evaluator, protocol = Evaluator(real_images(tmp_path, 1001, 0, 100), inception=PLAIN), parse_protocol(name)
    assert evaluator.value_names(protocol) == tuple(evaluator.score(protocol, evaluator.train).values)


def test_intra_class_distance_is_the_mean_over_classes_with_as_many_images_as_each_has(tmp_path):
    real, fake = real_images(tmp_path, 61, 0), real_images(tmp_path, 71, 1)
    score = Evaluator(real, inception=PLAIN).score(parse_protocol("intra_fid_train"), fake)
    by_class = []
    for label, count in ((0, 21), (1, 20), (2, 20)):
        images = np.stack([real.source[int(index)][0] for index in np.flatnonzero(real.source.labels == label)])
        drawn = np.concatenate([batch.images[: len(batch.labels)] for batch in fake.draw_class(label, count, 0)])
        assert len(drawn) == len(images) == count
        by_class.append(gaussian_distance(plain_features(images), plain_features(drawn)))
    assert list(score.details["by_class"].values()) == pytest.approx(by_class, rel=1e-4)
    assert score.value == pytest.approx(np.mean(by_class), rel=1e-4)


@pytest.mark.slow
def test_classifier_accepts_real_images_of_their_own_classes_only(tmp_path, monkeypatch):
    monkeypatch.setattr("sagan_jax.evaluation.classifier._STEPS", 40)
    real = real_images(tmp_path, 120, 0, base=20, brightness=225)
    evaluator = Evaluator(real, inception=PLAIN)
    right = evaluator.score(
        parse_protocol("classifier_accuracy"), real_images(tmp_path, 1200, 5, base=20, brightness=225)
    )
    assert right.value > 0.9
    assert right.details["on_real_images_kept_from_it"] > 0.9
    shifted = real_images(tmp_path, 1200, 7, base=20, brightness=225)
    shifted.source._labels[:] = (shifted.source._labels + 1) % 3
    assert evaluator.score(parse_protocol("classifier_accuracy"), shifted).value < 0.1


def test_reference_is_measured_again_only_for_other_images_or_a_damaged_file(tmp_path):
    passes = []

    @dataclasses.dataclass
    class Recorder:
        def begin(self, description, images):
            passes.append(description)

        def tick(self, images):
            pass

    def score(real):
        passes.clear()
        evaluator = Evaluator(real, inception=PLAIN, cache=tmp_path / "cache", progress=Recorder())
        return evaluator.score(parse_protocol("fid47_train"), fake).value, list(passes)

    real, fake = real_images(tmp_path, 61, 0), real_images(tmp_path, 47, 1)
    first, begun = score(real)
    assert begun == ["real images", "images"]
    assert score(real) == (first, ["images"])
    assert score(real_images(tmp_path, 61, 2))[1] == ["real images", "images"]
    for file in (tmp_path / "cache").glob("*.npz"):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    assert score(real) == (first, ["real images", "images"])


def test_cached_moments_and_features_keep_their_file_names(tmp_path):
    """Otherwise the caches of earlier runs would not be found."""
    real, fake, cache = real_images(tmp_path, 61, 0), real_images(tmp_path, 47, 1), tmp_path / "cache"
    evaluator = Evaluator(real, inception=PLAIN, cache=cache)
    for name in ("fid47_train", "prdc47_train"):
        evaluator.score(parse_protocol(name), fake)
    common = ("reference 1", real.source.fingerprint, (32, 32, 3), "plain")
    keys = {(*common, "moments", None): {"count", "mean", "scatter"}, (*common, "features", 47): {"features"}}
    assert len(list(cache.glob("*.npz"))) == len(keys)
    for key, names in keys.items():
        with np.load(cache / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}.npz") as stored:
            assert set(stored.files) == names


@pytest.fixture
def plain_lite0(monkeypatch):
    """Puts the simple function in the place of EfficientNet-Lite0."""
    embedding = dataclasses.replace(PLAIN, name="lite0")
    monkeypatch.setattr("sagan_jax.evaluation.references.lite0_embedding", lambda: embedding)


@pytest.fixture
def recorder():
    """Receives progress, and keeps the description and the number of images of each part that begins."""

    class Recorder(list):
        def begin(self, description, images):
            self.append((description, images))

        def tick(self, images):
            pass

    return Recorder()


def test_costly_network_sees_real_and_scored_images_once_for_all_its_scores(tmp_path, plain_lite0, recorder):
    real, fake = real_images(tmp_path, 61, 0), real_images(tmp_path, 71, 1)
    evaluator = Evaluator(real, inception=PLAIN, cache=tmp_path / "cache", progress=recorder)
    names = ("fd47_train", "kd47_train", "prdc47_train")
    found = [evaluator.score(parse_protocol(f"{name}_lite0"), fake, seed=3) for name in names]
    assert recorder == [("real images", 61), ("images", 47)]
    alone = [
        Evaluator(real, inception=PLAIN).score(parse_protocol(name), fake, seed=3)
        for name in ("fid47_train", "kid47_train", "prdc47_train")
    ]
    for one, other in zip(found, alone, strict=True):
        assert list(one.values.values()) == pytest.approx(list(other.values.values()), rel=1e-6, abs=1e-6)
    intra = parse_protocol("intra_fd_train_lite0")
    by_class = Evaluator(real, inception=PLAIN).score(parse_protocol("intra_fid_train"), fake).value
    assert evaluator.score(intra, fake).value == pytest.approx(by_class, rel=1e-6)
    assert [words for words in recorder if words[0] == "real images"] == [("real images", 61)]
    recorder.clear()
    again = Evaluator(real, cache=tmp_path / "cache", progress=recorder)
    assert again.score(parse_protocol("prdc53_train_lite0"), fake).value != found[2].value
    assert recorder == [("images", 53)]


def test_other_images_seeds_and_counts_have_features_of_their_own(tmp_path, plain_lite0):
    real, fake, other = (real_images(tmp_path, 61, seed) for seed in range(3))
    evaluator, protocol = Evaluator(real), parse_protocol("fd47_train_lite0")
    values = [evaluator.score(protocol, images, seed=seed).value for images, seed in ((fake, 0), (fake, 1), (other, 1))]
    values.append(evaluator.score(parse_protocol("fd46_train_lite0"), other, seed=1).value)
    assert len(set(values)) == 4
    assert values == [
        Evaluator(real).score(parse_protocol(name), images, seed=seed).value
        for name, images, seed in (
            ("fd47_train_lite0", fake, 0),
            ("fd47_train_lite0", fake, 1),
            ("fd47_train_lite0", other, 1),
            ("fd46_train_lite0", other, 1),
        )
    ]


def test_number_of_images_still_to_embed_is_known(tmp_path, plain_lite0):
    real, fake = real_images(tmp_path, 61, 0), real_images(tmp_path, 47, 1)
    evaluator = Evaluator(real, cache=tmp_path / "cache")
    names = ("fd40_train", "prdc40_train", "kd40_train", "intra_fd_train", "classifier_accuracy", "is40")

    def missing(evaluator):
        return [evaluator.references.missing_features(parse_protocol(f"{name}_lite0")) for name in names]

    assert missing(evaluator) == [61, 40, 61, 61, 61, 0]
    evaluator.score(parse_protocol("prdc40_train_lite0"), fake)
    assert missing(evaluator) == [61, 0, 61, 61, 61, 0]
    evaluator.score(parse_protocol("kd40_train_lite0"), fake)
    assert missing(Evaluator(real, cache=tmp_path / "cache")) == [0] * 6


def test_classifier_of_features_is_fitted_to_nine_of_ten_real_images(tmp_path, plain_lite0, recorder):
    real = real_images(tmp_path, 121, 0, base=20, brightness=225)
    evaluator, protocol = Evaluator(real, progress=recorder), parse_protocol("classifier_accuracy_lite0")
    score = evaluator.score(protocol, real_images(tmp_path, 1200, 5, base=20, brightness=225))
    assert score.value > 0.9
    assert recorder == [("real images", 121), ("images", 1000)]
    order = np.random.default_rng([0, 2]).permutation(121)
    features, labels = features_of(real), real.source.labels[order]
    kept = np.arange(121) % 10 == 9
    fitted = LogisticRegression(C=1 / (PENALTY * 109), max_iter=5000)
    fitted = make_pipeline(StandardScaler(), fitted).fit(features[~kept], labels[~kept])
    accuracy = (fitted.predict(features[kept]) == labels[kept]).mean()
    assert score.details["on_real_images_kept_from_it"] == pytest.approx(accuracy, abs=1e-9)
    assert score.details["classifier"].startswith("logistic-regression-")
    assert score.details["classifier"].endswith(":plain")
    shifted = real_images(tmp_path, 1200, 7, base=20, brightness=225)
    shifted.source._labels[:] = (shifted.source._labels + 1) % 3
    assert evaluator.score(protocol, shifted).value < 0.1


def test_precision_in_random_features_is_refused_and_names_a_trained_network(tmp_path):
    real = real_images(tmp_path, 61, 0)
    with pytest.raises(InvalidInputError, match=r"Use prdc40_train_lite0_raw \(pip install 'sagan-jax\[lite0\]'\)"):
        Evaluator(real).check(parse_protocol("prdc40_train_random_raw"), 3)


def test_score_does_not_need_a_writable_cache(tmp_path):
    real, fake = real_images(tmp_path, 61, 0), real_images(tmp_path, 47, 1)
    (tmp_path / "cache").write_text("a file where a folder should be")
    score = Evaluator(real, inception=PLAIN, cache=tmp_path / "cache").score(parse_protocol("fid47_train"), fake)
    assert score.value == Evaluator(real, inception=PLAIN).score(parse_protocol("fid47_train"), fake).value


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("fid48_train", "47"),
        ("fid40_validation", "--held-out"),
        ("kid47_train_subset62", "subsets of 62"),
        ("kid47_train_subset1", "at least 2 images in a subset"),
        ("prdc5_train", "5 neighbours"),
        ("prdc62_train", "61"),
        ("is11", "splits"),
    ],
)
def test_protocol_whose_needs_are_not_met_is_refused_in_one_line(tmp_path, name, says):
    real, fake = real_images(tmp_path, 61, 0), real_images(tmp_path, 47, 1)
    with pytest.raises(InvalidInputError) as refused:
        Evaluator(real, inception=PLAIN).score(parse_protocol(name), fake)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_scores_of_the_fid_network_need_its_weights(tmp_path):
    real = real_images(tmp_path, 61, 0)
    with pytest.raises(InvalidInputError, match="sagan-jax fetch-weights"):
        Evaluator(real).score(parse_protocol("fid47_train"), real)


@pytest.mark.parametrize("name", ["intra_fid_train", "classifier_accuracy"])
def test_scores_by_class_need_classes_in_both_sets(tmp_path, name):
    labelled, unlabelled = real_images(tmp_path, 61, 0), real_images(tmp_path, 47, 1, classes=0)
    for real, fake in ((labelled, unlabelled), (unlabelled, labelled)):
        with pytest.raises(InvalidInputError, match="needs classes"):
            Evaluator(real, inception=PLAIN).score(parse_protocol(name), fake)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("fid48_train", "47 images"),
        ("kid48_train", "47 images"),
        ("classifier_accuracy", "334 images"),
        ("intra_fid_train", "needs 21 images"),
    ],
)
def test_too_few_images_are_found_before_any_is_read(tmp_path, name, says, monkeypatch):
    real, fake = real_images(tmp_path, 61, 0), real_images(tmp_path, 47, 1)
    monkeypatch.delattr("sagan_jax.data.sources.ImageSource.__getitem__")
    with pytest.raises(InvalidInputError, match=says):
        Evaluator(real, inception=PLAIN).check_images(parse_protocol(name), fake)


def of_classes(path, number, labels):
    images = np.random.default_rng(3).integers(0, 255, (number, 32, 32, 3), np.uint8)
    np.savez(path / "few.npz", images=images, labels=np.resize(labels, number))
    return RealImages(open_source(str(path / "few.npz"), resolution=32, absent_classes=True), 8)


@pytest.mark.slow
@pytest.mark.one_jax
def test_scores_by_class_are_over_the_classes_that_there_are(tmp_path, monkeypatch):
    monkeypatch.setattr(classifier, "_STEPS", 1)
    real, fake = real_images(tmp_path, 61, 0, classes=4), of_classes(tmp_path, 1000, [1, 3])
    evaluator = Evaluator(real, inception=PLAIN)
    distance = evaluator.score(parse_protocol("intra_fid_train"), fake)
    assert list(distance.details["by_class"]) == ["1", "3"]
    assert distance.value == pytest.approx(np.mean(list(distance.details["by_class"].values())))
    accuracy = evaluator.score(parse_protocol("classifier_accuracy"), fake)
    for score in (distance, accuracy):
        assert score.details["classes"] == "2 of 4 classes: 1, 3"
        assert "(over 2 of 4 classes: 1, 3)" in str(score)


def test_scores_by_class_need_the_classes_of_the_real_images(tmp_path):
    real = real_images(tmp_path, 61, 0)
    evaluator = Evaluator(real, inception=PLAIN)
    with pytest.raises(InvalidInputError, match="9 classes; the real images have 3"):
        evaluator.check_images(parse_protocol("intra_fid_train"), of_classes(tmp_path, 60, [0, 8]))
    named = [RealImages(open_source(make_images(tmp_path, 61, seed), resolution=32)) for seed in (2, 3)]
    named[0].source.class_names, named[1].source.class_names = ("ant", "bee", "cat"), ("bee", "cat", "ant")
    with pytest.raises(InvalidInputError, match="ant, bee, cat; the real images have bee, cat, ant"):
        Evaluator(named[1], inception=PLAIN).check_images(parse_protocol("classifier_accuracy"), named[0])


@pytest.mark.parametrize(
    ("names", "held_out", "same"),
    [
        (("ant", "bee", "cat"), ("bee", "cat", "ant"), False),
        (("0", "1", "2"), ("0", "2", "10"), False),
        (("0", "1", "2"), ("00", "01", "02"), True),
        (("0", "1", "2"), ("ant", "bee", "cat"), True),
        (("ant", "bee", "cat"), ("ant", "bee", "cat"), True),
    ],
)
def test_held_out_images_need_the_classes_of_the_training_images_in_their_order(tmp_path, names, held_out, same):
    train, other = real_images(tmp_path, 61, 0), real_images(tmp_path, 47, 1)
    train.source.class_names, other.source.class_names = names, held_out
    evaluator = Evaluator(train, other, PLAIN)
    if same:
        evaluator.check(parse_protocol("intra_fid_test"), 3)
    else:
        words = f"the training images have {', '.join(names)}; the held-out images have {', '.join(held_out)}"
        with pytest.raises(InvalidInputError, match=words):
            evaluator.check(parse_protocol("intra_fid_test"), 3)
    evaluator.check(parse_protocol("intra_fid_train"), 3)


@pytest.mark.parametrize("number", [19, 30])
def test_accuracy_is_refused_before_a_classifier_is_trained_on_too_few_images_or_classes(tmp_path, number):
    evaluator = Evaluator(real_images(tmp_path, number, 0, classes=3 if number == 19 else 1))
    with pytest.raises(InvalidInputError, match=f"at least 20 images of at least two classes .* {number} images"):
        evaluator.check(parse_protocol("classifier_accuracy"), 1)


def test_score_of_fewer_images_than_features_carries_a_warning(tmp_path):
    real, fake = real_images(tmp_path, 61, 0), real_images(tmp_path, 47, 1)
    evaluator = Evaluator(real, inception=PLAIN)
    assert "warning" not in evaluator.score(parse_protocol("fid47_train"), fake).details
    assert "singular" in evaluator.score(parse_protocol("fid5_train"), fake).details["warning"]


def test_features_that_are_not_finite_give_no_score(tmp_path):
    real = real_images(tmp_path, 61, 0)
    broken = dataclasses.replace(PLAIN, variables=np.float32("nan"))
    with pytest.raises(InvalidInputError, match="features that are not finite"):
        Evaluator(real, inception=broken).score(parse_protocol("fid47_train"), real)


def test_random_features_depend_only_on_their_name():
    images = np.random.default_rng(0).integers(0, 255, (4, 32, 32, 3), np.uint8)
    features = np.asarray(random_embedding().apply(random_embedding().variables, images)["features"])
    assert features.shape == (4, 512)
    assert random_embedding().identity.startswith("random-vgg-64:cfe505ae674600a2")
    assert 0.1 < features.std() < 10


def test_grey_images_are_scored_as_colour_images_of_that_grey():
    grey = np.random.default_rng(0).integers(0, 255, (8, 32, 32, 1), np.uint8)
    labels = np.zeros(len(grey), np.int32)
    one, three = (
        next(PLAIN([ImageBatch(images, labels)]))[0]["features"] for images in (grey, grey.repeat(3, axis=-1))
    )
    assert np.allclose(one, three, rtol=1e-5)


# Generated images


@pytest.fixture(scope="module")
def generator():
    return make_generator()


def test_score_of_generated_images_follows_from_the_seed(tmp_path, generator):
    evaluator = Evaluator(real_images(tmp_path, 61, 0), inception=PLAIN)
    protocol = parse_protocol("fid40_train")
    first, again = (evaluator.score(protocol, GeneratedImages(generator, 8), seed=1).value for _ in range(2))
    assert first == again
    assert first != evaluator.score(protocol, GeneratedImages(generator, 8), seed=2).value


class Bright(nn.Module):
    """A generator without tanh, whose images are infinite."""

    @nn.compact
    def __call__(self, latents, labels, *, train):
        scale = self.param("scale", nn.initializers.ones, ())
        return jnp.exp(1e4 * scale * latents[:, :1, None, None] ** 2) * jnp.ones((1, 32, 32, 3))


def test_images_that_are_infinite_are_reported():
    with pytest.raises(NonFiniteError, match="diverged"):
        TrainedGenerator(Bright(), {"params": {"scale": np.float32(1)}}, 6, 3, step=7).generate(5)


def test_generator_that_has_diverged_gives_no_score(tmp_path, generator):
    diverged = dataclasses.replace(
        generator, variables=jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), generator.variables)
    )
    with pytest.raises(NonFiniteError, match="diverged"):
        Evaluator(real_images(tmp_path, 61, 0), inception=PLAIN).score(
            parse_protocol("fid40_train"), GeneratedImages(diverged, 8)
        )


def lite0_like(variables, images):
    outputs = plain_network(variables, images)
    return {"features": 2 * outputs["features"], "logits": 30 * outputs["features"][:, :3]}


@pytest.fixture
def lite0(monkeypatch):
    """Replaces EfficientNet-Lite0 by a simple function whose features are not those of the FID network's stand-in."""
    network = Embedding("lite0", "like lite0", lite0_like, np.float32(1), 5)
    monkeypatch.setattr(references, "lite0_embedding", lambda: network)
    return network


def test_scores_named_after_lite0_are_measured_in_its_features(tmp_path, lite0):
    real, fake = real_images(tmp_path, 61, 0), real_images(tmp_path, 47, 1)
    evaluator = Evaluator(real, inception=PLAIN)
    score = evaluator.score(parse_protocol("fd47_train_lite0"), fake)
    assert score.value == pytest.approx(4 * gaussian_distance(features_of(real), features_of(fake)), rel=1e-5)
    assert score.details["embedding"] == "like lite0"
    assert "never compares with a published FID" in str(score)
    every = list(real.draw(47, 0))
    drawn = np.concatenate([plain_features(batch.images[: len(batch.labels)]) for batch in every])
    score = evaluator.score(parse_protocol("prdc47_train_lite0"), fake)
    precision, recall = precision_recall(drawn, features_of(fake), 3)
    assert list(score.values.values())[:2] == pytest.approx([precision, recall])


def test_inception_score_of_lite0_is_that_of_its_logits_with_biases(tmp_path, lite0):
    fake = real_images(tmp_path, 47, 1)
    score = Evaluator(None).score(parse_protocol("is47_lite0"), fake)
    wanted = inception_score(30 * features_of(fake)[:, :3], 10)
    assert list(score.values.values())[:2] == pytest.approx(wanted, rel=1e-5)
    assert score.details["logits"] == "with bias"


def test_batches_are_prepared_on_the_host(tmp_path):
    seen = []

    def halve(images):
        seen.append(type(images))
        return images[:, ::2, ::2]

    images = np.random.default_rng(0).integers(0, 256, (6, 32, 24, 1), dtype=np.uint8)
    batches = [ImageBatch(jnp.asarray(images), np.zeros(5)), ImageBatch(images, np.zeros(6))]
    found = [outputs for outputs, _ in dataclasses.replace(PLAIN, prepare=halve)(batches)]
    wanted = plain_features(np.repeat(images[:, ::2, ::2], 3, axis=-1))
    np.testing.assert_allclose(found[0]["features"], wanted[:5], rtol=1e-5)
    np.testing.assert_allclose(found[1]["features"], wanted, rtol=1e-5)
    assert seen == [np.ndarray, np.ndarray]


def test_clean_scores_are_of_another_resize_and_share_nothing_with_the_others(tmp_path, monkeypatch):
    def half(variables, images):
        return {"features": plain_network(variables, images)["features"] / 2}

    monkeypatch.setattr(
        "sagan_jax.evaluation.references.as_clean_fid",
        lambda network: dataclasses.replace(network, apply=half, name="inception_clean"),
    )
    real, fake = real_images(tmp_path, 61, 0), real_images(tmp_path, 47, 1)
    evaluator = Evaluator(real, inception=PLAIN, cache=tmp_path / "cache")
    plain, clean = (evaluator.score(parse_protocol(f"fid47_train{ending}"), fake) for ending in ("", "_clean"))
    assert clean.value == pytest.approx(plain.value / 4, rel=1e-4)
    assert "clean-fid" in clean.protocol.settings()["resize"]
    assert "TensorFlow" in plain.protocol.settings()["resize"]


def test_statistics_of_another_resize_are_refused(tmp_path):
    real = real_images(tmp_path, 61, 0)
    evaluator = Evaluator(real, inception=PLAIN)
    write_statistics(tmp_path / "s.npz", evaluator.references.moments(parse_protocol("fid47_train")), PLAIN)
    given = Evaluator(None, inception=PLAIN, statistics=read_statistics(tmp_path / "s.npz"))
    with pytest.raises(InvalidInputError, match="holds inception features, and the protocol's are inception_clean"):
        given.check(parse_protocol("fid47_train_clean"), 0)
    given.check(parse_protocol("fid47_train"), 0)
