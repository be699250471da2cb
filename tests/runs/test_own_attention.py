"""Every kind of layer at an attention place of a run, and a user's own layer, from its name to its figures."""

import hashlib
import json
import shutil
import sys
from typing import get_args

import jax
import numpy as np
import pytest

from sagan_jax.config import CompletionExperiment, CompletionNetworks, Experiment, Networks, from_dict, to_dict
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.attention import discriminator_attention, generator_attention, sows_attention
from sagan_jax.evaluation.completer import TrainedCompleter
from sagan_jax.functional import attention_distance, attention_entropy
from sagan_jax.import_paths import find_object, import_path
from sagan_jax.models.attention import AttentionKind
from sagan_jax.runs import attention_figures, train
from sagan_jax.runs.build import build_adversarial_task, build_completion_task
from sagan_jax.runs.explorer import coarse_map
from sagan_jax.runs.families import build_networks
from sagan_jax.runs.load import load_run, open_run
from sagan_jax.runs.saved_config import read_experiment
from sagan_jax.training.adversarial import initial_state
from sagan_jax.training.flops import step_flops
from support.assertions import assert_near, refusal, same_bits
from support.commands import command, error_line
from support.metrics import read_metrics

pytestmark = pytest.mark.one_jax

SOURCE = '''
import flax.linen as nn
import jax.numpy as jnp
from sagan_jax.config import Data, Experiment, Networks, Recording, Training


class Mix(nn.Module):
    """One head looks at itself, the other everywhere. It has no gamma."""

    @nn.compact
    def __call__(self, features):
        batch, height, width, channels = features.shape
        positions = height * width
        heads = jnp.stack([jnp.eye(positions), jnp.full((positions, positions), 1 / positions)])
        self.sow("intermediates", "attention_map", jnp.broadcast_to(heads, (batch, *heads.shape)))
        return features + nn.Dense(channels, name="mix")(features)


def experiment():
    return Experiment(
        name="mine",
        data=Data(source=SOURCE_OF_IMAGES),
        networks=Networks(
            family="dcgan",
            norm_decay=0.9,
            resolution=32,
            num_classes=2,
            base_channels=2,
            latent_size=5,
            generator_attention_resolutions=(8,),
            discriminator_attention_resolutions=(8,),
            generator_attention=Mix,
            attention="multi_head",
        ),
        training=Training(total_steps=2, batch_size=4),
        recording=Recording(log_every_steps=1, sample_every_steps=2, save_every_steps=1),
    )
'''


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two steps of an experiment file, with its own layer in G and several heads in D, and that file."""
    folder = tmp_path_factory.mktemp("own")
    images = np.random.default_rng(0).integers(0, 255, (20, 32, 32, 3), np.uint8)
    np.savez(folder / "images.npz", images=images, labels=np.arange(20) % 2)
    file = folder / "mine.py"
    file.write_text(SOURCE.replace("SOURCE_OF_IMAGES", repr(str(folder / "images.npz"))))
    assert command("train", file, "--workdir", folder / "run") == 0
    return folder / "run", file


@pytest.mark.slow
def test_config_of_a_run_names_the_layer_and_holds_the_digest_of_its_source(trained):
    workdir, file = trained
    saved = json.loads((workdir / "config.json").read_text())
    assert saved["networks"]["generator_attention"] == f"{file}:Mix"
    assert saved["sources"] == {f"{file}:Mix": hashlib.sha256(file.read_bytes()).hexdigest()}
    assert read_experiment(workdir).networks.generator_attention == f"{file}:Mix"


@pytest.mark.slow
def test_run_trains_and_normalises_the_layer(trained):
    run = open_run(trained[0])
    kernel = run.state.generator.params["attention_8"]["mix"]["kernel"]
    assert run.state.generator.spectral["attention_8"]["mix"]["kernel"]["u"].shape == (8,)
    start = initial_state(run.task, 0, (32, 32, 3)).generator.params["attention_8"]["mix"]["kernel"]
    assert 1e-5 < np.abs(kernel - start).max() < 1e-3  # Adam's first steps
    metrics = read_metrics(trained[0])
    assert {"generator/attention_distance_8", "discriminator/attention_gamma_8"} <= set().union(*metrics)
    assert "generator/attention_gamma_8" not in set().union(*metrics)


@pytest.mark.slow
def test_maps_of_the_layer_are_shown_as_the_mean_of_its_heads(trained):
    seen = generator_attention(load_run(trained[0]), np.ones((3, 5), np.float32), np.zeros(3, np.int32))
    (layer,) = seen.layers
    wanted = np.broadcast_to(0.5 * np.eye(64) + 0.5 / 64, (3, 64, 64))
    assert (layer.name, layer.gamma, layer.query_shape, layer.key_shape) == ("generator_8", None, (8, 8), (8, 8))
    assert_near(layer.attention_map, wanted, 1e-6)
    assert_near(layer.rows(1, [5, 60]), wanted[1, [5, 60]], 1e-6)
    assert_near(coarse_map(layer, 2), wanted[2], 1e-6)
    distance, entropy, uniform = layer.spread(32)
    shapes = {"query_shape": (8, 8), "key_shape": (8, 8)}
    assert_near(distance, 4 * np.asarray(attention_distance(np.float32(wanted), **shapes)), 1e-5)
    assert_near(entropy, attention_entropy(np.float32(wanted)), 1e-5)
    assert uniform == np.log(64)
    assert layer.informative_queries(0, 1)[0] in {0, 7, 56, 63}  # a corner looks farthest


@pytest.mark.slow
def test_maps_of_several_heads_are_those_that_the_network_sows(trained):
    discriminator = open_run(trained[0]).discriminator()
    images = np.random.default_rng(1).integers(0, 255, (3, 32, 32, 3), np.uint8)
    labels = np.zeros(3, np.int32)
    (layer,) = discriminator_attention(discriminator, images, labels).layers
    _, sown = discriminator.discriminator.apply(
        discriminator.variables, images / np.float32(127.5) - 1, labels, train=False, mutable=["intermediates"]
    )
    heads = np.asarray(sown["intermediates"]["attention_8"]["attention_map"][0])
    assert heads.shape == (3, 4, 64, 64)
    assert_near(layer.attention_map, heads.mean(axis=1), 1e-4)
    assert_near(layer.rows(2, [1, 40]), heads[2].mean(axis=0)[[1, 40]], 1e-4)
    assert_near(layer.spread(32)[1], attention_entropy(heads.mean(axis=1)), 1e-4)


@pytest.mark.slow
def test_figures_page_export_and_report_are_made(trained, tmp_path):
    workdir, file = trained
    assert command("attend", "--workdir", workdir, "--out", tmp_path / "figures", "--num-images", 1) == 0
    assert {"generator-0.png", "discriminator-0.png"} <= {path.name for path in (tmp_path / "figures").iterdir()}
    assert command("explore", "--workdir", workdir, "--out", tmp_path / "page.html", "--num-samples", 1) == 0
    assert '"gamma": null' in (tmp_path / "page.html").read_text()
    assert command("report", "--workdir", workdir, "--out", tmp_path / "report.html") == 0
    assert f"{file}:Mix" in (tmp_path / "report.html").read_text()
    assert command("export", "--workdir", workdir, "--out", tmp_path / "export") == 0
    code = (tmp_path / "export" / "README.md").read_text().split("```python")[2].partition("```")[0]
    found: dict = {}
    weights = str(tmp_path / "export" / "generator.safetensors")
    exec(code.replace("generator.safetensors", weights), found)
    wanted = load_run(workdir)
    plain = wanted.generator.apply(wanted.variables, found["latents"], found["labels"], train=False)
    assert_near(found["images"], plain, 1e-5)


@pytest.mark.slow
def test_title_of_a_layer_without_a_gate_has_no_gamma(trained, monkeypatch):
    titles = []
    monkeypatch.setattr(
        attention_figures, "attention_figure", lambda image, queries, panels: titles.extend(p.title for p in panels)
    )
    record = generator_attention(load_run(trained[0]), np.ones((1, 5), np.float32), np.zeros(1, np.int32))
    attention_figures._figure(record, 0, (), 1)
    assert titles == ["G at 8×8"]


@pytest.mark.slow
@pytest.mark.parametrize("changed", [False, True])
def test_resuming_says_whether_the_source_has_changed(trained, tmp_path, monkeypatch, capsys, changed):
    workdir, file = trained
    shutil.copytree(workdir, tmp_path / "run")
    before = file.read_text()
    monkeypatch.setattr(train, "train_from", lambda first_step, state, *rest: state)
    try:
        file.write_text(before + "# later\n" * changed)
        assert command("train", "--workdir", tmp_path / "run", "--total-steps", 3) == 0
    finally:
        file.write_text(before)
    said = capsys.readouterr().out
    line = f"not bit for bit the run that was stopped: the source of {file}:Mix has changed"
    assert (line in said) == changed
    assert "going on from step 2 of 3" in said


@pytest.mark.slow
def test_stopped_run_goes_on_bit_for_bit(trained, tmp_path):
    workdir, _ = trained
    shutil.copytree(workdir, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "2")
    assert command("train", "--workdir", tmp_path / "run") == 0
    runs = [open_run(folder).state for folder in (workdir, tmp_path / "run")]
    assert same_bits(*runs)


def small(**networks):
    places = {"generator_attention_resolutions": (8,), "discriminator_attention_resolutions": (8,)}
    return Networks(**({"resolution": 32, "num_classes": 2, "base_channels": 4, "latent_size": 5} | places | networks))


def test_layer_is_named_by_its_module_too(tmp_path, monkeypatch):
    (tmp_path / "layers_of_mine.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    generator, discriminator = build_networks(small(discriminator_attention="layers_of_mine:Mix"))
    assert generator.attention == "release"
    assert discriminator.attention is sys.modules["layers_of_mine"].Mix


def double(features):
    """A layer without a class."""
    return 2 * features


def test_config_names_an_object_that_it_is_given():
    networks = small(attention=double)
    assert networks.attention == import_path(double)
    assert build_networks(networks)[0].attention is double
    assert from_dict(to_dict(Experiment(networks=networks))).networks == networks


@pytest.mark.parametrize(
    ("given", "of_generator", "of_discriminator"),
    [
        ({"attention": "article"}, "article", "article"),
        ({"attention": "article", "generator_attention": "uniform"}, "uniform", "article"),
        ({"attention": "article", "discriminator_attention": "none"}, "article", "none"),
    ],
)
def test_networks_follow_attention_unless_they_have_their_own(given, of_generator, of_discriminator):
    networks = build_networks(small(**given))
    assert [network.attention for network in networks] == [of_generator, of_discriminator]


@pytest.mark.parametrize("only", ["generator", "discriminator"])
def test_layer_of_one_network_is_in_that_network_only(only):
    other = {"generator": "discriminator", "discriminator": "generator"}[only]
    task = build_adversarial_task(Experiment(networks=small(**{f"{other}_attention": "none"})))
    state = jax.eval_shape(lambda: initial_state(task, 0, (32, 32, 3)))
    assert "attention_8" in getattr(state, only).params
    assert "attention_8" not in getattr(state, other).params


def test_map_is_shown_where_a_network_sows_one():
    shown = {}
    for kind in get_args(AttentionKind):
        generator, discriminator = build_networks(small(attention=kind))
        shown[kind] = sows_attention(generator, (5,)), sows_attention(discriminator, (32, 32, 3))
    assert {kind for kind, found in shown.items() if found == (True, True)} == {
        "release",
        "article",
        "multi_head",
        "uniform",
    }
    assert {kind for kind, found in shown.items() if found == (False, False)} == {
        "squeeze_excite",
        "residual",
        "none",
    }


@pytest.mark.slow
def test_operations_of_a_step_grow_with_what_the_layer_does():
    """The step of each is traced with all gradients and counted, and not compiled."""
    tasks = [
        build_adversarial_task(Experiment(networks=small(family="dcgan", generator_attention="none", attention=kind)))
        for kind in ("none", "multi_head")
    ]
    without, with_heads = (step_flops(task, 4, (32, 32, 3)) for task in tasks)
    assert 1.01 * without < with_heads < 2 * without


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["multi_head", "uniform", "squeeze_excite", "none", "own"])
def test_completion_takes_every_kind(kind, trained):
    name = f"{trained[1]}:Mix" if kind == "own" else kind
    networks = CompletionNetworks(attention=name, base_channels=2, latent_size=3, attention_resolutions=(8,))
    network = build_completion_task(CompletionExperiment(networks=networks)).network
    images, masks = np.zeros((2, 64, 64, 3), np.uint8), np.ones((2, 64, 64), bool)
    variables = jax.eval_shape(lambda: network.init(jax.random.key(0), images / np.float32(255), masks))
    params = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.01, np.float32), variables["params"])
    maps = TrainedCompleter(network, params, 0).attention(images, masks)
    keys = {"multi_head": 64, "uniform": 16, "own": 64}.get(kind)
    assert {name: found.shape for name, found in maps.items()} == (
        {f"{part}_8": (2, 64, keys) for part in ("encoder", "decoder")} if keys else {}
    )


RETURNS = "The attention layer layer needs to return features of"
CONTRACT = {
    "shape": (
        "def layer(x):\n    return x[:, 1:]",
        "layer: The attention layer layer needs to return features of float32 [2, 8, 8, 16]",
    ),
    "dtype": ("def layer(x):\n    return x.astype('int32')", "got int32 [2, 8, 8, 16]"),
    "object": (
        "layer = 5",
        "needs a flax module, its class, or a function of features [B, H, W, C]; it is of type",
    ),
    "absent": ("other = 5", "has no 'layer'"),
    "file": ("import no_such_package", "in line 1: No module named 'no_such_package'"),
    "line": (
        "def layer(x):\n    y = x\n    return y / [][1]",
        "layer failed on features [2, 8, 8, 16] of float32: IndexError in line 3: list index out of range.",
    ),
    "state": (
        "import flax.linen as nn\ndef layer(x):\n    return nn.BatchNorm(False)(x)",
        "has variables batch_stats: a layer has no `train` argument",
    ),
    "map": (
        "import flax.linen as nn\nclass layer(nn.Module):\n    def __call__(self, x):\n"
        "        self.sow('intermediates', 'attention_map', x)\n        return x",
        "with N = 64 query positions and M = 64 or 16 or 4 keys at 8x8; got [2, 8, 8, 16] for B = 2.",
    ),
}


@pytest.mark.parametrize("broken", CONTRACT)
def test_layer_that_breaks_the_contract_is_refused_in_one_line(broken, tmp_path):
    source, message = CONTRACT[broken]
    (tmp_path / "broken.py").write_text(f"{source}\n")
    line = refusal(build_networks, small(generator_attention=f"{tmp_path}/broken.py:layer"))
    assert line.startswith(f"--generator-attention {tmp_path}/broken.py:layer")
    assert message in line


def test_completion_refuses_a_layer_that_breaks_the_contract(tmp_path):
    (tmp_path / "broken.py").write_text("def layer(x):\n    return x[..., 1:]\n")
    networks = CompletionNetworks(attention=f"{tmp_path}/broken.py:layer", base_channels=2, attention_resolutions=(8,))
    line = refusal(build_completion_task, CompletionExperiment(networks=networks))
    assert line.startswith(f"--attention {tmp_path}/broken.py:layer: {RETURNS} float32 [2, 8, 8, ")


@pytest.mark.slow
def test_broken_layer_is_refused_before_anything_is_written(trained, tmp_path, capsys):
    (tmp_path / "broken.py").write_text("def layer(x):\n    return x[:, 1:]\n")
    flags = ["--attention", f"{tmp_path}/broken.py:layer", "--workdir", tmp_path / "run"]
    assert command("train", trained[1], *flags) == 2
    assert f"--attention {tmp_path}/broken.py:layer: The attention layer layer needs to return features" in error_line(
        capsys
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_run_whose_layer_is_gone_says_so(trained, tmp_path, capsys):
    workdir, file = trained
    shutil.copytree(workdir, tmp_path / "run")
    moved = file.rename(file.with_suffix(".moved"))
    try:
        assert command("sample", "--workdir", tmp_path / "run", "--out", tmp_path / "samples.png") == 2
    finally:
        moved.rename(file)
    assert f"--generator-attention {file}:Mix: there is no file" in error_line(capsys)


def test_object_without_a_name_is_refused_where_the_config_is_made():
    with pytest.raises(InvalidInputError, match="has no name by which a saved run could find it again"):
        Networks(attention=lambda features: features)


@pytest.mark.slow
def test_file_of_the_experiment_is_the_one_that_its_layer_comes_from(trained):
    _, file = trained
    assert find_object(f"{file}:Mix").__module__ == find_object(f"{file}:experiment").__module__
