import pytest

from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.protocols import KNOWN_PROTOCOLS, parse_protocol

pytestmark = pytest.mark.one_jax


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
        ("fd5k_train_lite0", "fd", 5_000, "train", "lite0", "stored", False),
        ("is5k_lite0_raw", "is", 5_000, None, "lite0", "stored", True),
        ("kd300_test_lite0_subset200_batch", "kd", 300, "test", "lite0", "batch", False),
        ("intra_fd_train_dinov2", "intra_fd", 0, "train", "dinov2", "stored", False),
        ("fid50k_train_clean", "fid", 50_000, "train", "inception", "stored", False),
        ("classifier_accuracy", "classifier_accuracy", 1_000, None, "classifier", "stored", False),
        ("classifier_accuracy_lite0_raw", "classifier_accuracy", 1_000, None, "lite0", "stored", True),
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
        ("fd5k_train", "`_lite0`"),
        ("fid5k_train_lite0", "Perhaps you meant 'fd5k_train_lite0'."),
        ("kid300_test_dinov2_raw", "Perhaps you meant 'kd300_test_dinov2_raw'."),
        ("intra_fid_train_lite0", "Perhaps you meant 'intra_fd_train_lite0'."),
        ("is5k_dinov2", "`_lite0` has"),
        ("is5k_train_lite0", "takes no reference"),
        ("fd5k_train_lite0_clean", "`_clean` is another resize for the FID network"),
        ("rule1k_clean", "`_clean` is another resize for the FID network"),
        ("fd5k_train_clean_lite0", "is named like"),
        ("fid50k", "needs a reference"),
        ("is50k_train", "takes no reference"),
        ("fid_train", "needs a number of images"),
        ("fid0_train", "is named like"),
        ("intra_fid50k_train", "takes no number"),
        ("classifier_accuracy500", "takes no number"),
        ("classifier_accuracy_random", "its own features"),
        ("classifier_accuracy_dinov2", "its own features"),
        ("rule1k_random", "uses pixels"),
        ("rule1k_train", "takes no reference"),
        ("rule", "needs a number of images"),
    ],
)
def test_name_whose_parts_contradict_each_other_is_refused(name, says):
    with pytest.raises(InvalidInputError) as refused:
        parse_protocol(name)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_scores_of_other_features_never_have_the_name_of_published_ones():
    others = [protocol for protocol in map(parse_protocol, KNOWN_PROTOCOLS) if protocol.embedding != "inception"]
    assert {protocol.kind for protocol in others}.isdisjoint({"fid", "kid", "intra_fid"})
    assert {protocol.name for protocol in others if protocol.kind == "is"} == {"is5k_lite0"}


def test_settings_spell_out_the_defaults():
    settings = parse_protocol("fid50k_train").settings()
    assert settings["statistics"] == "stored"
    assert settings["pixels"] == "rounded to uint8"
    assert settings["labels"] == "uniform at random"
    assert settings["resize"] == "TensorFlow 1 bilinear to 299"


@pytest.mark.parametrize(
    ("name", "resize"),
    [
        ("fd5k_train_lite0", "Pillow bicubic with antialiasing to 224, no crop"),
        ("fid50k_train_clean", "Pillow bicubic with antialiasing to 299, in floats (clean-fid)"),
        ("is5k", "TensorFlow 1 bilinear to 299"),
    ],
)
def test_settings_name_the_resize(name, resize):
    settings = parse_protocol(name).settings()
    assert settings["resize"] == resize
    assert "clean" not in settings  # so earlier result files still compare equal
