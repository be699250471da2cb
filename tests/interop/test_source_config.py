"""The configuration that a network was trained with: what it decides, contradictions, and hostile files."""

import os

import numpy as np
import pytest
import yaml

from sagan_jax import interop
from sagan_jax.interop.source_config import read_source_config
from sagan_jax.interop.studiogan_config import parse_config
from support.assertions import assert_near, refusal
from support.pytorch_generators import generate

pytestmark = pytest.mark.one_jax

# What the released networks were trained with, as StudioGAN's file and BigGAN-PyTorch's metalog.txt say it.
STUDIOGAN = {
    "DATA": {"name": "CIFAR10", "img_size": 32, "num_classes": 10},
    "MODEL": {
        "g_cond_mtd": "cBN",
        "d_cond_mtd": "PD",
        "apply_g_sn": True,
        "apply_d_sn": True,
        "apply_attn": True,
        "attn_g_loc": [2],
        "attn_d_loc": [1],
        "g_conv_dim": 8,
        "d_conv_dim": 8,
    },
    "LOSS": {"adv_loss": "hinge"},
}
BIGGAN = {"G_ch": 8, "D_ch": 8, "G_attn": "64", "D_attn": "64", "G_shared": True, "hier": True, "n_classes": 7}
METALOG = (
    "datetime: 2019-01-01 10:00:00.000000\n"
    "config: {'dataset': 'I128', 'model': 'BigGAN', 'G_ch': 8, 'BN_eps': 0.001, 'SN_eps': 1e-06, 'G_attn': '64', "
    "'D_attn': '64', 'G_nl': 'inplace_relu', 'D_wide': True, 'n_classes': 7, 'G_activation': ReLU(inplace)}\n"
    "state: {'itr': 0, 'best_IS': 0}\n"
)


def read(golden, name):
    with np.load(golden / f"{name}.npz") as file:
        return {key: file[key] for key in file.files if key.startswith(("generator/", "discriminator/"))}


def changed(document, section, **values):
    return document | {section: document[section] | values}


@pytest.fixture(scope="module")
def studiogan(golden):
    return read(golden, "studiogan-sagan-32")


@pytest.fixture(scope="module")
def biggan(golden):
    return read(golden, "biggan-128")


def generators_agree(networks, arrays, norm_epsilon, last_norm_epsilon):
    latents = np.random.default_rng(5).normal(size=(2, networks.latent_size)).astype(np.float32)
    labels = np.array([1, 3])
    arrays = {name.split("/")[1]: array for name, array in arrays.items() if name.startswith("generator/")}
    wanted = generate(arrays, latents, labels, norm_epsilon=norm_epsilon, last_norm_epsilon=last_norm_epsilon)
    assert_near(networks.generate(latents, labels), wanted.transpose(0, 2, 3, 1), 2e-5)


def test_networks_of_their_own_configuration_are_read_and_nothing_is_assumed(studiogan, biggan):
    for source, arrays, config in (("studiogan", studiogan, STUDIOGAN), ("biggan-pytorch", biggan, BIGGAN)):
        assert interop.load(source, arrays, config).assumed == ()
        assert "ReLU" in interop.load(source, arrays).assumed


def test_dcgan_of_its_own_configuration_is_read(golden):
    config = {"MODEL": {"backbone": "deep_conv"}}
    assert interop.load("studiogan", read(golden, "studiogan-dcgan-32"), config).assumed == ()
    line = refusal(interop.load, "studiogan", read(golden, "studiogan-dcgan-32"), {"MODEL": {}})
    assert "MODEL.backbone: resnet, but the weights have deep_conv" in line


@pytest.mark.parametrize("name", ["bn_eps", "norm_epsilon", "BN_EPS"])
def test_epsilon_of_a_studiogan_configuration_decides(name, studiogan):
    networks = interop.load("studiogan", studiogan, changed(STUDIOGAN, "MODEL", **{name: "1e-2"}))
    generators_agree(networks, studiogan, 1e-2, 1e-2)


@pytest.mark.parametrize("settings", [{"sn_eps": 1e-3}, {"d_sn_eps": 1e-3, "g_sn_eps": 1e-3}])
def test_spectral_epsilon_of_a_studiogan_configuration_decides(settings, studiogan):
    networks = interop.load("studiogan", studiogan, changed(STUDIOGAN, "MODEL", **settings))
    assert networks.spectral_rule["epsilon"] == 1e-3


def test_spectral_epsilon_of_the_only_normalised_network_decides():
    config = parse_config({"MODEL": {"apply_d_sn": True, "d_sn_eps": 1e-3}})
    assert config.spectral_epsilon == 1e-3


@pytest.mark.parametrize("name", ["d_sn_eps", "g_sn_eps"])
def test_different_spectral_epsilons_of_g_and_d_are_refused(name, studiogan):
    config = changed(STUDIOGAN, "MODEL", **{name: 1e-3})
    assert "different epsilons of the spectral norm" in refusal(interop.load, "studiogan", studiogan, config)


def test_epsilon_of_biggan_flags_decides_for_all_norms_but_the_last(biggan):
    networks = interop.load("biggan-pytorch", biggan, BIGGAN | {"BN_eps": 1e-2})
    generators_agree(networks, biggan, 1e-2, 1e-5)


def test_metalog_of_biggan_is_read(biggan, tmp_path):
    (tmp_path / "metalog.txt").write_text(METALOG)
    networks = interop.load("biggan-pytorch", biggan, read_source_config(tmp_path / "metalog.txt"))
    assert (networks.generator.norm_epsilon, networks.spectral_rule["epsilon"]) == (1e-3, 1e-6)


STUDIOGAN_FEATURES = {
    "the activation Leaky_ReLU (d_act_fn)": {"d_act_fn": "Leaky_ReLU"},
    "the activation ELU (g_act_fn)": {"g_act_fn": "ELU"},
    "a multi-hinge head (d_cond_mtd MH)": {"d_cond_mtd": "MH"},
    "a multi-class head, one output for each class (d_cond_mtd MD)": {"d_cond_mtd": "MD"},
    "an auxiliary classifier (aux_cls_type TAC)": {"aux_cls_type": "TAC"},
    "StudioGAN's BigGAN)": {"backbone": "big_resnet"},
    "StudioGAN's BigGAN-deep)": {"backbone": "big_resnet_deep_legacy"},
    "the backbone stylegan2": {"backbone": "stylegan2"},
    "latents of another distribution (z_prior uniform)": {"z_prior": "uniform"},
    "InfoGAN's codes": {"info_type": "discrete"},
    "g_cond_mtd cAdaIN": {"g_cond_mtd": "cAdaIN"},
}


@pytest.mark.parametrize("feature", STUDIOGAN_FEATURES)
def test_studiogan_feature_of_other_networks_is_refused_by_name(feature, studiogan):
    config = changed(STUDIOGAN, "MODEL", **STUDIOGAN_FEATURES[feature])
    assert feature in refusal(interop.load, "studiogan", studiogan, config)


BIGGAN_FEATURES = {
    "the activation leaky_relu (G_nl)": {"G_nl": "leaky_relu"},
    "several singular values (num_D_SVs 2)": {"num_D_SVs": 2},
    "another norm than batch norm, or none (norm_style gn)": {"norm_style": "gn"},
    "a thin D (D_wide False)": {"D_wide": False},
    "BigGAN-deep's blocks": {"model": "BigGANdeep"},
    "the parameters SVD (D_param)": {"D_param": "SVD"},
}


@pytest.mark.parametrize("feature", BIGGAN_FEATURES)
def test_biggan_feature_of_other_networks_is_refused_by_name(feature, biggan):
    assert feature in refusal(interop.load, "biggan-pytorch", biggan, BIGGAN | BIGGAN_FEATURES[feature])


STUDIOGAN_CONTRADICTIONS = [
    ("DATA", "num_classes", 9, "num_classes of the conditional norms: 9, but the weights have 10"),
    ("DATA", "img_size", 64, "DATA.img_size: 64, but the weights have 32"),
    ("DATA", "img_channels", 1, "DATA.img_channels: 1, but the weights have 3"),
    ("MODEL", "z_dim", 80, "MODEL.z_dim: 80, but the weights have 128"),
    ("MODEL", "apply_g_sn", False, "MODEL.apply_g_sn: False, but the weights have True"),
    ("MODEL", "apply_d_sn", False, "MODEL.apply_d_sn: False, but the weights have True"),
    ("MODEL", "attn_g_loc", [1], "MODEL.attn_g_loc: [1], but the weights have [2]"),
    ("MODEL", "attn_d_loc", [3], "MODEL.attn_d_loc: [3], but the weights have [1]"),
    ("MODEL", "apply_attn", False, "MODEL.attn_g_loc: [], but the weights have [2]"),
    ("MODEL", "g_conv_dim", 16, "MODEL.g_conv_dim: 16, but the weights have 8"),
    ("MODEL", "d_conv_dim", 16, "MODEL.d_conv_dim: 16, but the weights have 8"),
    ("MODEL", "g_cond_mtd", "W/O", "num_classes of the conditional norms: 0, but the weights have 10"),
    ("MODEL", "d_cond_mtd", "W/O", "num_classes of D's embedding: 0, but the weights have 10"),
]


@pytest.mark.parametrize(("section", "name", "value", "words"), STUDIOGAN_CONTRADICTIONS)
def test_studiogan_configuration_of_another_run_is_refused(section, name, value, words, studiogan):
    assert words in refusal(interop.load, "studiogan", studiogan, changed(STUDIOGAN, section, **{name: value}))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"n_classes": 9}, "n_classes: 9, but the weights have 7"),
        ({"resolution": 64}, "resolution: 64, but the weights have 128"),
        ({"G_ch": 96}, "G_ch: 96"),
        ({"D_ch": 96}, "D_ch: 96"),
        ({"G_attn": "32_64"}, "G_attn: [32, 64], but the weights have [64]"),
        ({"D_attn": "0"}, "D_attn: [], but the weights have [64]"),
        ({"G_shared": False}, "G_shared: False"),
        ({"hier": False}, "hier: False"),
    ],
)
def test_biggan_flags_of_another_run_are_refused(flags, words, biggan):
    assert words in refusal(interop.load, "biggan-pytorch", biggan, BIGGAN | flags)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (changed(STUDIOGAN, "MODEL", g_act_fn=3), "a word for MODEL.g_act_fn; got 3"),
        (changed(STUDIOGAN, "MODEL", apply_g_sn="yes"), "True or False for MODEL.apply_g_sn; got 'yes'"),
        (changed(STUDIOGAN, "MODEL", z_dim=-1), "an integer of at least 0 for MODEL.z_dim; got -1"),
        (changed(STUDIOGAN, "MODEL", z_dim=True), "an integer of at least 0 for MODEL.z_dim; got True"),
        (changed(STUDIOGAN, "MODEL", attn_g_loc="2"), "a list of integers for MODEL.attn_g_loc; got '2'"),
        (changed(STUDIOGAN, "MODEL", bn_eps=0), "a positive number for MODEL.bn_eps; got 0"),
        (changed(STUDIOGAN, "MODEL", bn_eps="small"), "a positive number for MODEL.bn_eps; got 'small'"),
        (changed(STUDIOGAN, "MODEL", bn_eps=10**400), "a positive number for MODEL.bn_eps; got 1000"),
        (changed(STUDIOGAN, "MODEL", g_act_fun="ReLU"), "MODEL.g_act_fun, which StudioGAN does not have"),
        ({"MODEL": 7}, "names and values in MODEL; got 7"),
        ({"model": {"name": "resnet"}}, "StudioGAN 0.4 or later, with a section MODEL"),
    ],
)
def test_studiogan_values_of_another_type_are_named(config, words, studiogan):
    assert words in refusal(interop.load, "studiogan", studiogan, config)


def test_biggan_configuration_without_its_flags_is_refused(biggan):
    assert "needs flags of BigGAN-PyTorch" in refusal(interop.load, "biggan-pytorch", biggan, STUDIOGAN)
    assert "needs sizes in quotes" not in refusal(interop.load, "biggan-pytorch", biggan, BIGGAN | {"G_ch": "8"})
    assert "sizes in quotes" in refusal(interop.load, "biggan-pytorch", biggan, BIGGAN | {"G_attn": 3264})


def test_official_release_takes_no_configuration():
    assert "has no configuration file" in refusal(interop.load, "official", {}, STUDIOGAN)


def test_configuration_says_that_as_many_classes_as_latent_numbers_are_classes(studiogan):
    rng = np.random.default_rng(0)
    arrays = {name: array for name, array in studiogan.items() if name.startswith("generator/")}
    for name in ("weight_orig", "weight_v"):
        shape = arrays[f"generator/linear0.{name}"].shape
        arrays[f"generator/linear0.{name}"] = rng.normal(size=(*shape[:-1], 10)).astype(np.float32)
    assert "StudioGAN's unconditional BigGAN" in refusal(interop.load, "studiogan", arrays)
    networks = interop.load("studiogan", arrays, changed(STUDIOGAN, "MODEL", z_dim=10))
    assert (networks.generator.num_classes, networks.latent_size) == (10, 10)


def test_file_is_read_as_yaml_or_json(tmp_path):
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(STUDIOGAN))
    (tmp_path / "a.json").write_text(str(STUDIOGAN).replace("'", '"').replace("True", "true"))
    assert read_source_config(tmp_path / "a.yaml") == read_source_config(tmp_path / "a.json") == STUDIOGAN


BOMB = "a: &a [x, x]\n" + "".join(f"{new}: &{new} [*{old}, *{old}]\n" for old, new in ("ab", "bc", "cd"))
HOSTILE = {
    "levels of lists": ("[" * 30_000, "more than 20 levels"),
    "levels of names": ("".join(" " * n + "a:\n" for n in range(200)), "more than 20 levels"),
    "anchors": (BOMB, "it has anchors"),
    "code": ("!!python/object/apply:os.mkdir [made]", "could not determine a constructor"),
    "size": ("a: 1\n" * 20_000, "at most 64 KiB"),
    "digits": ("a: " + "1" * 60_000, "Exceeds the limit"),
    "a date that is none": ("a: 2020-99-99", "month must be"),
    "a list": ("- a", "holds a list"),
    "nothing": ("", "holds a NoneType"),
    "other bytes": (b"\xff\xfe\x00", "codec can't decode"),
    "control characters": ("a: \x00", "special characters are not allowed"),
    "no YAML": ("a: b: c", "mapping values are not allowed here"),
    "a name that is a list": ("? [1]\n: 2", "unhashable key"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_file_is_refused_in_one_line(kind, tmp_path):
    content, words = HOSTILE[kind]
    path = tmp_path / "run.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    line = refusal(read_source_config, path)
    assert words in line
    assert len(line) < 500
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_file_is_refused(tmp_path):
    assert "no such file" in refusal(read_source_config, tmp_path / "absent.yaml")
    assert "no such file" in refusal(read_source_config, tmp_path)
    os.mkfifo(tmp_path / "pipe.yaml")
    assert "no such file" in refusal(read_source_config, tmp_path / "pipe.yaml")
