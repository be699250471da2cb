"""Every file in `experiments/`: its docstring is true, and its networks take a step."""

import dataclasses
import re
from functools import partial

import jax
import numpy as np
import pytest

from sagan_jax.config import Experiment, to_dict
from sagan_jax.data import open_source, training_batches
from sagan_jax.runs.build import build_adversarial_task, build_completion_task
from sagan_jax.runs.completion import CompletionJob
from sagan_jax.runs.experiments import experiment_names, load_experiment
from sagan_jax.runs.generation import GenerationJob
from sagan_jax.training import completion
from sagan_jax.training.adversarial import Batch, initial_state, step
from sagan_jax.training.completion import CompletionBatch
from sagan_jax.training.flops import program_flops, step_flops
from support.params import num_parameters
from support.paths import ROOT
from support.programs import EXPERIMENTS

pytestmark = pytest.mark.one_jax

NAMES = experiment_names()
GENERATING = [name for name in NAMES if isinstance(load_experiment(name), Experiment)]
RESULTS = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")

# The parameters of G and D in the papers' networks, none of them counted by our code. The release has those with
# attention at 32, at 64 and without, and StudioGAN those on CIFAR-10. For the rest, an attention layer of C channels
# adds 2 C (C/8) + 2 C (C/2) + 1 to those without attention.
NO_ATTENTION = (41_996_931, 39_443_137)
PARAMETERS = {
    "imagenet_128": (42_078_852, 39_463_618),
    "imagenet_128_ema": (42_017_412, 39_448_258),
    "imagenet_128_attention_64": (42_017_412, 39_448_258),
    "imagenet_128_attention_16": (NO_ATTENTION[0] + 327_681, NO_ATTENTION[1] + 81_921),
    "imagenet_128_attention_8": (NO_ATTENTION[0] + 1_310_721, NO_ATTENTION[1] + 327_681),
    "imagenet_128_no_attention": NO_ATTENTION,
    "imagenet_128_sn_equal_rates": NO_ATTENTION,
    "imagenet_128_sn_discriminator_only": NO_ATTENTION,
    "cifar10_32_studiogan": (4_386_308, 1_075_586),
    "cifar10_32_wide": (4_386_308, 1_075_586),
    "studiogan_128": (42_017_412, 39_448_258),
    "sngan_projection_128": NO_ATTENTION,
}

# What the rows of Table 1 and of Figure 3 change in the paper's experiment.
PLACES = ("networks.generator_attention_resolutions", "networks.discriminator_attention_resolutions")
DIFFERENCES = {f"imagenet_128_attention_{size}": dict.fromkeys(PLACES, (size,)) for size in (8, 16, 64)}
DIFFERENCES |= {
    f"imagenet_128_residual_{size}": dict.fromkeys(PLACES, (size,)) | {"networks.attention": "residual"}
    for size in (8, 16, 64)
}
DIFFERENCES |= {
    "imagenet_128": {},
    "imagenet_128_residual_32": {"networks.attention": "residual"},
    "imagenet_128_no_attention": dict.fromkeys(PLACES, ()),
    "imagenet_128_sn_equal_rates": dict.fromkeys(PLACES, ()) | {"training.generator_learning_rate": 4e-4},
    "imagenet_128_sn_discriminator_only": dict.fromkeys(PLACES, ())
    | {"training.generator_learning_rate": 4e-4, "networks.spectral_norm": "discriminator"},
}
# One experiment of each family and control is compiled here. The others differ in width, size, classes, a rate or D's
# updates, so compiling them would show no more. They are traced to count their cost.
STEPPED = [
    "digits_32",
    "biggan_cifar10_32",
    "dcgan_cifar10_32",
    "imagenet_128_residual_8",
    "imagenet_128_sn_discriminator_only",
]


def text_of(name):
    return (EXPERIMENTS / f"{name}.py").read_text(encoding="utf-8").split('"""')[1]


def image_shape(experiment):
    networks = experiment.networks
    return networks.resolution, networks.resolution, networks.image_channels


def full_size_state(name):
    experiment = load_experiment(name)
    return jax.eval_shape(lambda: initial_state(build_adversarial_task(experiment), 0, image_shape(experiment)))


def test_completion_costs_what_it_says():
    experiment = load_experiment("faces_completion_64")
    task, rows, size = (
        build_completion_task(experiment),
        experiment.training.batch_size,
        experiment.networks.resolution,
    )
    batch = CompletionBatch(
        jax.ShapeDtypeStruct((1, rows, size, size, 3), np.float32), jax.ShapeDtypeStruct((1, rows, size, size), bool)
    )
    state = jax.eval_shape(lambda: completion.initial_state(task, 0))
    flops = program_flops(partial(completion.step, task), state, batch)
    said = re.search(r"([\d.]+) GFLOP a step", text_of("faces_completion_64"))
    assert said
    assert flops == pytest.approx(float(said[1]) * 1e9, rel=5e-3)


def flat(values, prefix=""):
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


@pytest.mark.parametrize("name", NAMES)
def test_experiment_says_its_command_its_cost_and_what_it_reached(name):
    text = text_of(name)
    command = "sagan-jax train" if name == "digits_32" else f"sagan-jax train {name}"
    assert re.search(rf"^    {command}( --source \S+( --held-out \S+)?)?$", text, re.MULTILINE)
    assert "Costs: " in text
    assert re.search(r"\bReached: ", text)


@pytest.mark.parametrize("name", NAMES)
def test_experiment_is_one_that_train_would_start(name):
    experiment = load_experiment(name)
    (GenerationJob if name in GENERATING else CompletionJob).check(experiment)


@pytest.mark.parametrize("name", NAMES)
def test_experiment_has_a_row_in_the_table_with_the_cost_it_says(name):
    (row,) = [line for line in RESULTS.splitlines() if line.startswith(f"| `{name}` |")]
    cost = re.search(r"[\d.]+ [TG]FLOP", text_of(name))
    assert cost
    assert cost[0] in row


@pytest.mark.slow
def test_count_that_the_results_show_is_what_its_code_prints(capsys):
    (code,) = re.findall(r"^```python\n(.*?)^```", RESULTS, re.DOTALL | re.MULTILINE)
    exec(compile(code, "docs/results.md", "exec"), {})
    (shown,) = re.findall(r"print\(.*# (\S+)", code)
    assert float(capsys.readouterr().out) == pytest.approx(float(shown), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", GENERATING)
def test_experiment_puts_attention_where_it_says_at_full_size(name):
    networks, state = load_experiment(name).networks, full_size_state(name)
    for network, sizes in (
        (state.generator, networks.generator_attention_resolutions),
        (state.discriminator, networks.discriminator_attention_resolutions),
    ):
        layers = {layer: part for layer, part in network.params.items() if layer.startswith("attention")}
        assert layers.keys() == {f"attention_{size}" for size in sizes}
        for part in layers.values():
            assert ("conv_1" in part) == (networks.attention == "residual")


@pytest.mark.parametrize("name", PARAMETERS)
def test_experiment_has_as_many_parameters_as_published(name):
    state = full_size_state(name)
    assert (num_parameters(state.generator.params), num_parameters(state.discriminator.params)) == PARAMETERS[name]


@pytest.mark.parametrize("size", [8, 16, 32, 64])
def test_residual_control_has_the_parameters_its_file_gives_beside_attentions(size):
    pairs = re.findall(
        r"([\d,]+) (?:parameters )?in [GD] \(attention has ([\d,]+)\)",
        text_of(name := f"imagenet_128_residual_{size}"),
    )
    state = full_size_state(name)
    for network, pair, channels in zip(
        (state.generator, state.discriminator), pairs, (8192 // size, 4096 // size), strict=True
    ):
        ours, attention = (int(number.replace(",", "")) for number in pair)
        assert ours == num_parameters(network.params[f"attention_{size}"])
        assert attention == 2 * channels * (channels // 8) + 2 * channels * (channels // 2) + 1
        # One channel more or less in the bottleneck is 18 C + 1 parameters. So no other width is nearer.
        assert abs(ours - attention) <= (18 * channels + 1) / 2


@pytest.mark.parametrize("name", DIFFERENCES)
def test_experiment_differs_from_the_paper_in_this_and_nothing_else(name):
    paper, ours = dict(flat(to_dict(Experiment()))), dict(flat(to_dict(load_experiment(name))))
    assert {field: value for field, value in ours.items() if value != paper[field]} == DIFFERENCES[name] | (
        {"name": name} if name != "imagenet_128" else {}
    )


def test_experiment_with_spectral_norm_in_the_discriminator_only_has_vectors_for_it_alone():
    state = full_size_state("imagenet_128_sn_discriminator_only")
    assert state.generator.spectral == {}
    assert num_parameters(state.discriminator.spectral) > 0


# Tracing a step takes seconds. A change that alters the cost of the others alters that of these too, so the others run
# only before a release.
COUNTED = [
    pytest.param(name, marks=[] if name in (*STEPPED, "imagenet_128") else [pytest.mark.release]) for name in GENERATING
]


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTED)
def test_experiment_costs_what_it_says(name):
    experiment = load_experiment(name)
    training, text = experiment.training, text_of(name)
    flops = step_flops(
        build_adversarial_task(experiment),
        training.batch_size,
        image_shape(experiment),
        discriminator_steps=training.discriminator_steps,
    )
    said = re.search(r"([\d.]+) ([TG])FLOP a step", text)
    assert said
    assert flops == pytest.approx(float(said[1]) * {"T": 1e12, "G": 1e9}[said[2]], rel=2e-3)
    hours = re.search(r"about ([\d.]+)\s+A100-hours", text)
    if hours:
        assert training.total_steps * flops / (0.3 * 156e12) / 3600 == pytest.approx(float(hours[1]), rel=5e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPPED)
def test_experiment_takes_a_step_at_tiny_width(name):
    experiment = load_experiment(name)
    networks, updates = (
        dataclasses.replace(experiment.networks, base_channels=2),
        experiment.training.discriminator_steps,
    )
    parts = min(2, experiment.training.accumulation_steps)
    task, shape = build_adversarial_task(dataclasses.replace(experiment, networks=networks)), image_shape(experiment)
    task = dataclasses.replace(task, accumulation_steps=parts)
    numbers = np.random.default_rng(3)

    def filled(leaf):
        return numbers.uniform(0, 0.3, leaf.shape).astype(leaf.dtype)  # compiling the initialisers would take longest

    state = jax.tree.map(filled, jax.eval_shape(lambda: initial_state(task, 0, shape)))
    batch = Batch(
        numbers.uniform(-1, 1, (updates, 2, *shape)).astype(np.float32),
        numbers.integers(0, max(1, networks.num_classes), (updates, 2)).astype(np.int32),
    )
    options = {"xla_backend_optimization_level": 0}  # it runs once: compiling well would take longer
    after, metrics = jax.jit(partial(step, task), compiler_options=options)(state, batch)
    assert {metric: float(value) for metric, value in metrics.items() if not np.isfinite(value)} == {}
    assert bool(metrics["finite"])
    for before, moved in ((state.generator, after.generator), (state.discriminator, after.discriminator)):
        assert not np.array_equal(before.params["linear"]["kernel"], moved.params["linear"]["kernel"])


@pytest.mark.release
def test_imagenet_experiment_takes_one_full_width_step_on_real_images(shared):
    experiment = load_experiment("imagenet_128")
    source = open_source(str(shared / "data" / "imagenet-sample.zip"), resolution=experiment.networks.resolution)
    batches = training_batches(
        source, batch_size=2, discriminator_steps=1, seed=experiment.training.seed, first_step=0, total_steps=1
    )
    task = build_adversarial_task(experiment)
    state = initial_state(task, experiment.training.seed, (128, 128, 3))
    parameters = [
        sum(leaf.size for leaf in jax.tree.leaves(network.params)) for network in (state.generator, state.discriminator)
    ]
    assert parameters == [42_078_852, 39_463_618]
    before = [np.array(network.params["linear"]["kernel"]) for network in (state.generator, state.discriminator)]
    state, metrics = jax.jit(partial(step, task), donate_argnums=0)(state, Batch(*next(batches)))
    assert bool(metrics["finite"])
    assert int(state.step) == 1
    # Adam's first step has the size of the rate whatever the gradient: both networks moved, each at its own rate.
    after = [np.asarray(network.params["linear"]["kernel"]) for network in (state.generator, state.discriminator)]
    moved = [np.abs(new - old).max() for new, old in zip(after, before, strict=True)]
    training = experiment.training
    assert np.allclose(moved, [training.generator_learning_rate, training.discriminator_learning_rate], rtol=0.01)
