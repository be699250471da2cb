"""Networks, a loss, an augmentation and an optimiser of a user's own: a run of them, and broken contracts."""

import doctest
import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import sagan_jax
from sagan_jax import functional
from sagan_jax.config import Experiment, Networks, Training, from_dict, to_dict
from sagan_jax.evaluation.generator import TrainedGenerator
from sagan_jax.runs import own_objects
from sagan_jax.runs.build import build_adversarial_task
from sagan_jax.runs.experiments import load_experiment
from sagan_jax.runs.own_objects import changed_sources, own_loss, own_optimizers, with_current_paths
from sagan_jax.runs.saved_config import differences
from sagan_jax.runs.validate import check_config
from sagan_jax.training.adversarial import _on_axis
from support.assertions import refusal
from support.commands import command
from support.metrics import read_metrics
from support.networks import SmallGenerator
from support.own_runs import moved_copy, trained

SOURCE = """
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from sagan_jax.config import Data, Experiment, Networks, Recording, Training
from sagan_jax.models.layers import SelfAttention


class MyGenerator(nn.Module):
    width: int = 9

    @nn.compact
    def __call__(self, latents, labels, *, train):
        features = nn.Dense(8 * 8 * self.width)(latents)
        features = nn.BatchNorm(use_running_average=not train)(features).reshape(-1, 8, 8, self.width)
        features = SelfAttention(name="attention_8")(features)
        features = jax.image.resize(nn.relu(features), (latents.shape[0], 32, 32, self.width), "nearest")
        return nn.tanh(nn.Conv(3, (3, 3))(features))


class MyDiscriminator(nn.Module):
    @nn.compact
    def __call__(self, images, labels, *, train):
        features = nn.relu(nn.Conv(5, (4, 4), strides=4)(images)).mean((1, 2))
        return nn.Dense(1)(features)[:, 0]


def discriminator_loss(real_logits, fake_logits):
    return jnp.square(real_logits - 1), jnp.square(fake_logits)


def generator_loss(fake_logits):
    return jnp.square(fake_logits - 1)


def brighter(key, image):
    return image + 0.2 * jax.random.normal(key)


def optimizer():
    return optax.chain(optax.clip_by_global_norm(1.0), optax.rmsprop(1e-3))


GENERATOR = MyGenerator(width=4)


def experiment():
    return Experiment(
        name="mine",
        data=Data("pairs", cache=""),
        networks=Networks(modules=(GENERATOR, MyDiscriminator), resolution=32, num_classes=0, latent_size=6),
        training=Training(
            total_steps=2,
            batch_size=8,
            loss=(discriminator_loss, generator_loss),
            augmentation=("cutout", brighter),
            optimizer=optimizer,
        ),
        recording=Recording(log_every_steps=1, save_every_steps=1, sample_every_steps=2),
    )
"""


OBJECTS = ("GENERATOR", "MyDiscriminator", "discriminator_loss", "generator_loss", "brighter", "optimizer")


def write(folder: Path, *changes: tuple[str, str], name: str = "my_gan.py") -> Path:
    """Writes the experiment file with some of its text replaced."""
    source = SOURCE
    for old, new in changes:
        assert old in source
        source = source.replace(old, new)
    path = folder / name
    path.write_text(source)
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def finished(file) -> Path:
    """The workdir of a run of two steps; read only."""
    return trained(file)


@pytest.fixture
def run(finished, file, tmp_path) -> tuple[Path, Path]:
    """A copy of that run and its file, which a test may change. The file is in another folder now."""
    return moved_copy(finished, file, tmp_path)


@pytest.mark.slow
@pytest.mark.one_jax
def test_config_of_a_run_holds_where_the_objects_are_and_digests_of_their_source(finished, file):
    saved = json.loads((finished / "config.json").read_text())
    assert saved["networks"]["modules"] == [f"{file}:GENERATOR", f"{file}:MyDiscriminator"]
    assert saved["training"]["loss"] == [f"{file}:discriminator_loss", f"{file}:generator_loss"]
    assert saved["training"]["augmentation"] == ["cutout", f"{file}:brighter"]
    assert saved["training"]["optimizer"] == f"{file}:optimizer"
    assert len(saved["sources"]) == 6
    assert set(saved["sources"].values()) == {hashlib.sha256(file.read_bytes()).hexdigest()}
    report = (finished / "report.html").read_text()
    assert f"{file}:optimizer" in report
    assert saved["sources"][f"{file}:optimizer"] in report


@pytest.mark.slow
@pytest.mark.one_jax
def test_the_rules_of_our_networks_find_what_is_in_those_of_a_user(finished):
    """Kernels are normalised, moments move, and gamma is logged."""
    run = sagan_jax.open_run(finished)
    assert set(run.state.generator.spectral) == {"Conv_0", "Dense_0", "attention_8"}
    assert set(run.state.generator.batch_stats) == {"BatchNorm_0"}
    assert run.state.generator.batch_stats["BatchNorm_0"]["mean"].any()
    metrics = next(line for line in read_metrics(finished) if line["step"] == 2 and "generator/gamma_8" in line)
    assert metrics["generator/gamma_8"] != 0
    assert metrics["discriminator/sigma/Conv_0"] > 0


@pytest.mark.slow
@pytest.mark.one_jax
def test_images_of_a_run_are_those_of_the_module_with_normalised_kernels(finished):
    run = sagan_jax.open_run(finished)
    trained = run.generator()
    latents = np.asarray(trained.latents(jax.random.key(3), np.arange(5)))
    kernel = np.asarray(trained.variables["params"]["Conv_0"]["kernel"], np.float64)
    assert np.linalg.svd(kernel.reshape(-1, 3), compute_uv=False)[0] == pytest.approx(1, abs=0.05)
    images = trained.generator.apply(trained.variables, latents, np.zeros(5, np.int32), train=False)
    expected = np.clip(np.rint((np.asarray(images, np.float64) + 1) * 127.5), 0, 255)
    assert np.abs(trained.generate(5, seed=3).images - expected).max() <= 1


@pytest.mark.slow
@pytest.mark.one_jax
def test_exported_function_of_a_users_generator_is_the_generator(finished, tmp_path):
    assert command("export", "--workdir", finished, "--out", tmp_path) == 0
    function = jax.export.deserialize(bytearray((tmp_path / "generator.jax_export").read_bytes()))
    trained = sagan_jax.load_run(finished)
    latents = np.asarray(trained.latents(jax.random.key(0), np.arange(3)))
    drawn = np.rint((np.asarray(function.call(latents, np.zeros(3, np.int32))) + 1) * 127.5)
    assert np.abs(drawn - trained.images(latents, np.zeros(3, np.int32))).max() <= 1
    assert "`[b, 32, 32, 3]`" in (tmp_path / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.one_jax
def test_published_networks_of_a_user_are_named_and_not_copied(finished, file, tmp_path):
    assert command("export", "--workdir", finished, "--format", "hub", "--out", tmp_path) == 0
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".md", ".png", ".safetensors"}
    assert not [path for path in tmp_path.iterdir() if str(file.parent).encode() in path.read_bytes()]
    card, digest = (tmp_path / "README.md").read_text(), hashlib.sha256(file.read_bytes()).hexdigest()
    assert f"| `my_gan.py:GENERATOR` | `{digest}` |\n| `my_gan.py:MyDiscriminator` | `{digest}` |\n" in card
    assert "my_gan.py:optimizer" not in card
    assert 'load_pretrained(".", trust_code=True)' in card


@pytest.mark.slow
@pytest.mark.one_jax
def test_published_networks_of_a_user_need_consent_and_the_file(finished, file, tmp_path, monkeypatch, capsys):
    command("export", "--workdir", finished, "--format", "hub", "--out", tmp_path / "hub")
    shutil.copy(file, tmp_path / "hub")  # code beside the weights is not run
    monkeypatch.chdir(tmp_path)
    needed = "need code of their author, my_gan.py:GENERATOR, my_gan.py:MyDiscriminator, not published with them"
    line = refusal(sagan_jax.load_pretrained, "hub")
    assert f"The networks of 'hub' {needed}. Put that file into the current folder" in line
    line = refusal(sagan_jax.load_pretrained, "hub", trust_code=True)
    assert f"{needed}: --modules my_gan.py:GENERATOR: there is no file 'my_gan.py'" in line.replace(f"{tmp_path}/", "")
    write(tmp_path, ("def optimizer", "def another_optimizer"), ("optimizer=optimizer,", ""))
    capsys.readouterr()
    images = sagan_jax.load_pretrained("hub", trust_code=True).generator().generate(5, seed=3).images
    assert np.array_equal(images, sagan_jax.load_run(finished).generate(5, seed=3).images)
    said = capsys.readouterr().err
    assert said.startswith("warning: the source of ")
    assert "my_gan.py:GENERATOR" in said
    assert "optimizer" not in said


@pytest.mark.slow
@pytest.mark.one_jax
def test_commands_take_a_run_of_a_users_networks(run, tmp_path):
    workdir, _ = run
    assert command("sample", "--workdir", workdir, "--num-images", 4, "--out", tmp_path / "samples.png") == 0
    assert command("attend", "--workdir", workdir, "--num-images", 1, "--out", tmp_path / "maps") == 0
    assert (tmp_path / "maps" / "generator-0.png").is_file()
    assert command("evaluate", "--workdir", workdir, "--protocol", "rule1k") == 0
    assert [path.name for path in (workdir / "scores").glob("rule1k*.json")]
    assert command("report", "--workdir", workdir, "--out", tmp_path / "report.html") == 0


@pytest.mark.slow
@pytest.mark.one_jax
def test_run_goes_on_with_changed_source_and_says_so(run, capsys):
    workdir, file = run
    file.write_text(f"{SOURCE}# changed")
    assert command("train", file, "--workdir", workdir, "--total-steps", 3) == 0
    said = capsys.readouterr().out
    assert "going on from step 2 of 3" in said
    assert f"{file}:optimizer has changed" in said
    assert read_metrics(workdir)[-1]["step"] == 3
    assert len(set(json.loads((workdir / "config.json").read_text())["sources"].values())) == 1
    file.write_text(f"{SOURCE}# changed again")
    assert sagan_jax.open_run(workdir).state.step == 3
    said = capsys.readouterr().err
    assert said.startswith("warning: the source of ")
    assert said.count(f"{file}:") == 6


@pytest.mark.slow
@pytest.mark.one_jax
def test_run_whose_file_is_gone_says_which(run, file, tmp_path, capsys):
    workdir, _ = run
    config = workdir / "config.json"
    config.write_text(config.read_text().replace(str(file), f"{tmp_path}/gone/{file.name}"))
    capsys.readouterr()
    assert command("export", "--workdir", workdir) == 2
    assert f"there is no file '{tmp_path}/gone/my_gan.py'" in capsys.readouterr().err


def test_config_with_objects_of_a_user_survives_its_json(file):
    experiment = load_experiment(str(file))
    assert from_dict(json.loads(json.dumps(to_dict(experiment)))) == experiment
    check_config(replace(experiment, training=replace(experiment.training, batch_size=8)))


LOSSES = """
from sagan_jax import Callback


class Losses(Callback):
    def start(self, run):
        self.path = run.workdir / "losses.csv"

    def metrics(self, step, values):
        with self.path.open("a") as file:
            file.write(f"{step}\\n")
"""


@pytest.mark.slow
@pytest.mark.one_jax
def test_objects_can_be_given_as_flags_for_an_experiment_with_settings_of_its_own(file, tmp_path, capsys):
    run, callback = tmp_path / "run", tmp_path / "losses.py"
    callback.write_text(LOSSES)
    flags = ["--modules", f"{file}:GENERATOR", f"{file}:MyDiscriminator", "--optimizer", f"{file}:optimizer"]
    flags += ["--loss", f"{file}:discriminator_loss", f"{file}:generator_loss"]
    flags += ["--augmentation", "cutout", f"{file}:brighter", "--callbacks", f"{callback}:Losses"]
    few = ["--source", "pairs:images=40", "--num-classes", "0", "--batch-size", "8", "--cache", "", "--workdir", run]
    for flag in (["--base-channels", "3"], ["--adam-beta1", "0.25"]):
        assert command("train", "digits_32", *flags, *few, *flag) == 2
        assert f"{flag[0]} does nothing with " in capsys.readouterr().err
    assert command("train", "digits_32", *flags, *few, "--total-steps", "1") == 0
    saved = json.loads((run / "config.json").read_text())
    assert saved["networks"]["modules"] == [f"{file}:GENERATOR", f"{file}:MyDiscriminator"]
    assert saved["training"]["loss"] == [f"{file}:discriminator_loss", f"{file}:generator_loss"]
    assert saved["training"]["augmentation"] == ["cutout", f"{file}:brighter"]
    assert saved["training"]["optimizer"] == f"{file}:optimizer"
    assert set(saved["sources"]) == {f"{callback}:Losses", *(f"{file}:{name}" for name in OBJECTS)}
    assert load_experiment("digits_32").networks.base_channels != saved["networks"]["base_channels"] == 64
    callback.write_text(f"{LOSSES}# changed")
    capsys.readouterr()
    assert command("train", "--workdir", run, "--total-steps", "2") == 0
    said = capsys.readouterr().out
    assert f"the source of {callback}:Losses has changed; results do not depend on callbacks" in said
    assert "not bit for bit" not in said
    assert set((run / "losses.csv").read_text().split()) == {"1", "2"}
    assert command("train", "--workdir", run, "--total-steps", "3") == 0
    assert "has changed" not in capsys.readouterr().out


def test_own_optimizers_of_both_networks_keep_their_places(tmp_path):
    path = tmp_path / "rates.py"
    path.write_text("import optax\n\nSLOW, QUICK = optax.sgd(0.25), optax.sgd(4.0)\n")
    found = own_optimizers((f"{path}:SLOW", f"{path}:QUICK"))
    updates = [one.update(jnp.ones(3), one.init(jnp.ones(3)))[0] for one in (found.generator, found.discriminator)]
    assert [float(update[1]) for update in updates] == [-0.25, -4.0]


def test_fields_of_the_training_reach_the_task():
    training = Training(r1=0.5, r2=0.25, flips=True, orthogonal_strength=0.125, shared_draws=True, ema_decay=0.75)
    attention = {f"{network}_attention_resolutions": (16,) for network in ("generator", "discriminator")}
    networks = Networks(resolution=32, base_channels=1, **attention)
    task = build_adversarial_task(Experiment(networks=networks, training=training))
    assert (task.r1, task.r2, task.flips, task.orthogonal_strength) == (0.5, 0.25, True, 0.125)
    assert (task.shared_draws, task.average_decay) == (True, 0.75)


def test_equal_configs_have_equal_tasks(file):
    experiment = load_experiment(str(file))
    tasks = [build_adversarial_task(of) for of in (experiment, replace(experiment, name="other"))]
    for field in ("generator", "discriminator", "loss", "augmentation"):
        assert getattr(tasks[0], field) == getattr(tasks[1], field)


def test_functions_of_ours_can_be_given_as_objects():
    pair = functional.losses.hinge_discriminator, functional.losses.hinge_generator
    for loss in (pair, functional.HINGE, functional.RELATIVISTIC):
        named = Training(loss=loss).loss
        assert json.loads(json.dumps(named)) == (list(named) if loss is pair else named)
        found = own_loss(named)
        assert (found.discriminator, found.generator) == tuple(loss)[:2]
        assert found.paired == (loss is functional.RELATIVISTIC)


def test_a_moved_file_is_no_change_of_the_config_and_is_taken_from_where_it_is(file, tmp_path):
    moved = load_experiment(str(write(tmp_path)))
    saved = load_experiment(str(file))
    assert saved != moved
    assert differences(to_dict(saved), to_dict(moved)) == []
    assert with_current_paths(saved, moved) == moved
    other = load_experiment(str(write(tmp_path, name="other.py")))
    assert with_current_paths(saved, other) == saved
    assert differences(to_dict(saved), to_dict(other))[0].startswith("networks.modules: ")


def test_doctests_of_the_module_hold():
    failed, attempted = doctest.testmod(own_objects)
    assert attempted
    assert not failed


def test_changed_sources_are_found_in_another_folder_too():
    before = {"/a/my.py:loss": "1", "/a/my.py:net": "2", "package:thing": "3"}
    assert changed_sources(before, {"/b/my.py:loss": "1", "/b/my.py:net": "9", "package:thing": "4", "new:x": "5"}) == [
        "/b/my.py:net",
        "package:thing",
    ]


BROKEN = {
    "images of another shape": (
        ("nn.Conv(3, (3, 3))", "nn.Conv(2, (3, 3))"),
        "--modules: the generator, called with float32 [2, 6], int32 [2] and train=False, needs to return "
        "float32 [2, 32, 32, 3], floating-point; got float32 [2, 32, 32, 2].",
    ),
    "logits of another shape": (("[:, 0]", ""), "the discriminator, called with float32 [2, 32, 32, 3], int32 [2] and"),
    "logits that are whole numbers": (
        ("(features)[:, 0]", "(features)[:, 0].astype(int)"),
        "needs to return float32 [2], floating-point; got int32 [2].",
    ),
    "two outputs": (
        ("return nn.tanh(nn.Conv(3, (3, 3))(features))", "return features, features"),
        "needs to return one array float32 [2, 32, 32, 3]; got 2.",
    ),
    "no argument train": (
        ("images, labels, *, train", "images, labels"),
        "TypeError: MyDiscriminator.__call__() got an unexpected keyword argument 'train'.",
    ),
    "an error in the module": (
        ("features = nn.Dense(8 * 8 * self.width)(latents)", "features = nn.Dense(8)(latents)"),
        "and train=False: TypeError in line 17 of 'my_gan.py': cannot reshape",
    ),
    "randomness": (
        ("nn.relu(features)", "jax.random.normal(self.make_rng('noise'), features.shape)"),
        "InvalidRngError in line 19 of 'my_gan.py'",
    ),
    "variables that are not kept": (
        ("nn.relu(features)", "self.variable('cache', 'last', lambda: features).value"),
        "a run keeps no others; got batch_stats, cache, params.",
    ),
    "a kernel of one axis": (
        (
            "nn.relu(features)",
            "features + self.param('kernel', nn.initializers.zeros, (self.width,))[None, None, None]",
        ),
        "the generator cannot be spectrally normalised (--spectral-norm): ValueError: init_spectral needs leaves",
    ),
    "a parameter that is a whole number": (
        ("nn.relu(features)", "features + self.param('one', nn.initializers.zeros, (), int)"),
        "the generator needs floating-point parameters; one is int32 [].",
    ),
    "one loss": (
        ("return jnp.square(real_logits - 1), jnp.square(fake_logits)", "return jnp.square(real_logits)"),
        "needs to return 2 arrays, the loss on real and on generated images; got 1.",
    ),
    "the mean of a loss": (
        ("return jnp.square(fake_logits - 1)", "return jnp.square(fake_logits - 1).mean()"),
        "--loss: the generator's, called with fake_logits float32 [2], needs to return float32 [2], floating-point; "
        "got float32 []. It is one value for an image, not the mean of a batch.",
    ),
    "a loss with another argument": (
        ("generator_loss(fake_logits)", "generator_loss(fake_logits, labels)"),
        "TypeError: generator_loss() missing 1 required positional argument: 'labels'.",
    ),
    "one function for a loss": (
        ("(discriminator_loss, generator_loss)", "generator_loss"),
        "--loss needs two functions, the discriminator's and the generator's",
    ),
    "an augmentation of another size": (
        ("return image + 0.2", "return image[1:] + 0.2"),
        "--augmentation: number 2, called with a key and an image [32, 32, 3], needs to return float32 [32, 32, 3]",
    ),
    "an augmentation that fails": (
        ("jax.random.normal(key)", "image.reshape(7)"),
        "called with a key and an image [32, 32, 3]: TypeError in line 39 of 'my_gan.py': cannot reshape",
    ),
    "no optimiser": (
        ("return optax.chain(optax.clip_by_global_norm(1.0), optax.rmsprop(1e-3))", "return 3"),
        "my_gan.py:optimizer needs to be an optax transformation, or to make one; got 3.",
    ),
    "an optimiser whose update forgets the state": (
        (
            "return optax.chain(optax.clip_by_global_norm(1.0), optax.rmsprop(1e-3))",
            "return optax.GradientTransformation(lambda params: (), lambda gradients, state, params=None: gradients)",
        ),
        "needs an update that returns a pair (updates, state); got an object of type dict.",
    ),
    "no module": (("GENERATOR = MyGenerator(width=4)", "GENERATOR = jnp.tanh"), "--modules "),
    "an object without a name": (
        ("(GENERATOR, MyDiscriminator)", "(MyGenerator(width=3), MyDiscriminator)"),
        "has no name by which a saved run could find it again",
    ),
    "one module": (("(GENERATOR, MyDiscriminator)", "(GENERATOR,)"), "--modules needs two flax modules"),
    "a field that modules do not read": (
        ("latent_size=6)", "latent_size=6, base_channels=3)"),
        "--base-channels does nothing with --modules",
    ),
    "a rate that the optimiser does not read": (
        ("batch_size=8,", "batch_size=8, adam_beta1=0.5,"),
        "--adam-beta1 does nothing with an --optimizer of yours",
    ),
    "bfloat16 without a field for it": (
        ("batch_size=8,", "batch_size=8, precision='bfloat16',"),
        "the generator needs a field dtype for --precision bfloat16; MyGenerator has none.",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_contract_is_refused_in_one_line(what, tmp_path):
    change, words = BROKEN[what]
    path = write(tmp_path, change)

    def build() -> None:
        experiment = load_experiment(str(path))
        check_config(replace(experiment, training=replace(experiment.training, batch_size=8)))
        build_adversarial_task(experiment)

    assert words in refusal(build)


def test_names_that_are_none_are_refused_with_the_near_one():
    line = refusal(check_config, Experiment(training=Training(loss="hinges")))
    assert "or an object of yours as file.py:NAME; got 'hinges'. Perhaps you meant hinge." in line
    line = refusal(check_config, Experiment(training=Training(optimizer="x")))
    assert "--optimizer needs to be one of adam or" in line
    assert "--loss needs" in refusal(check_config, Experiment(training=Training(loss=("a.py:b", "hinge"))))


@pytest.mark.slow
@pytest.mark.one_jax
def test_standing_statistics_need_a_generator_that_lets_its_decay_be_set(finished):
    trained = sagan_jax.load_run(finished)
    assert isinstance(trained, TrainedGenerator)
    assert "need a generator with a field norm_decay" in refusal(trained.with_standing_statistics, batches=1)
    assert np.isfinite(jnp.asarray(trained.with_batch_statistics().generate(4).images)).all()


def test_axis_over_devices_is_set_where_a_network_has_a_field_for_it(file):
    plain = build_adversarial_task(load_experiment(str(file))).generator
    assert _on_axis(plain, "devices") == plain
    assert _on_axis(SmallGenerator(), "devices") == SmallGenerator(axis_name="devices")
