import pytest

from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.protocols import KNOWN_PROTOCOLS, parse_protocol


@pytest.mark.parametrize(
    ("name", "kind", "images", "reference", "embedding", "statistics", "raw"),
    [
        ("fid50k_train", "fid", 50_000, "train", "inception", "stored", False),
        ("fid10000_validation_standing", "fid", 10_000, "validation", "inception", "standing", False),
        ("is50k", "is", 50_000, None, "inception", "stored", False),
        ("is5k_batch_raw", "is", 5_000, None, "inception", "batch", True),
        ("kid50k_train", "kid", 50_000, "train", "inception", "stored", False),
        ("prdc10k_train", "prdc", 10_000, "train", "inception", "stored", False),
        ("prdc300_test_random", "prdc", 300, "test", "random", "stored", False),
        ("intra_fid_train", "intra_fid", 0, "train", "inception", "stored", False),
        ("intra_fd_train_random_raw", "intra_fd", 0, "train", "random", "stored", True),
        ("fd5k_test_random", "fd", 5_000, "test", "random", "stored", False),
        ("classifier_accuracy", "classifier_accuracy", 1_000, None, "classifier", "stored", False),
        ("rule2k_raw", "rule", 2_000, None, None, "stored", True),
    ],
)
def test_protocol_is_what_its_name_says(name, kind, images, reference, embedding, statistics, raw):
    protocol = parse_protocol(name)
    found = (protocol.name, protocol.kind, protocol.images, protocol.reference, protocol.embedding)
    assert found == (name, kind, images, reference, embedding)
    assert (protocol.statistics, protocol.raw) == (statistics, raw)


@pytest.mark.parametrize("name", KNOWN_PROTOCOLS)
def test_known_protocols_can_be_parsed(name):
    assert parse_protocol(name).name == name


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("fid50k_trian", "Perhaps you meant 'fid50k_train'"),
        ("", "is named like"),
        ("fd5k_train", "`_random`"),
        ("fid5k_train_random", "'fd'"),
        ("kid5k_train_random", "'kd'"),
        ("intra_fid_train_random", "'intra_fd'"),
        ("is50k_random", "no such score"),
        ("fid50k", "needs a reference"),
        ("is50k_train", "takes no reference"),
        ("fid_train", "needs a number of images"),
        ("fid0_train", "is named like"),
        ("intra_fid50k_train", "takes no number"),
        ("classifier_accuracy500", "takes no number"),
        ("classifier_accuracy_random", "features of its own"),
        ("rule1k_random", "looks at pixels"),
        ("rule1k_train", "takes no reference"),
        ("rule", "needs a number of images"),
    ],
)
def test_name_whose_parts_contradict_each_other_is_refused(name, says):
    with pytest.raises(InvalidInputError) as refused:
        parse_protocol(name)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_scores_of_random_features_never_have_the_name_of_published_ones():
    published = {"fid", "is", "kid", "intra_fid"}
    assert {parse_protocol(name).kind for name in KNOWN_PROTOCOLS if name.endswith("_random")}.isdisjoint(published)
    assert all(parse_protocol(name).only_comparable_with_itself for name in KNOWN_PROTOCOLS if name.endswith("_random"))
    assert not any(
        parse_protocol(name).only_comparable_with_itself
        for name in KNOWN_PROTOCOLS
        if name.startswith(("fid", "is", "kid"))
    )


def test_settings_spell_out_the_defaults():
    settings = parse_protocol("fid50k_train").settings()
    assert settings["statistics"] == "stored"
    assert settings["pixels"] == "rounded to uint8"
    assert settings["labels"] == "uniform at random"
    assert settings["resize"] == "TensorFlow 1 bilinear to 299"
