"""`sagan-jax attend`: the figures of a run that was hardly trained, whose maps are good enough to draw."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import sagan_jax
from sagan_jax.cli.attend import read_position
from sagan_jax.config import Data, Experiment, Networks, Recording, Training, to_dict
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.attention import (
    TrainedDiscriminator,
    discriminator_attention,
    generator_attention,
)
from sagan_jax.functional import informative_queries, spectral_normalize_tree
from sagan_jax.models.sagan import Discriminator
from sagan_jax.runs import attention_figures
from sagan_jax.runs.build import build_adversarial_task, image_shape
from sagan_jax.runs.load import load_run, open_run
from sagan_jax.runtime.checkpoints import Checkpoints
from sagan_jax.runtime.environment import write_run_files
from sagan_jax.training.adversarial import initial_state
from sagan_jax.views.report import report_page
from support.assertions import assert_near
from support.attention_layers import layer_of_map
from support.commands import command, error_line
from support.metrics import read_metrics
from support.params import draw_tree, variable_shapes

# The runs that these tests draw take most of a minute.
pytestmark = [pytest.mark.slow, pytest.mark.one_jax]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of one step whose G attends at two sizes, and D at one."""
    folder = tmp_path_factory.mktemp("attend")
    images = np.random.default_rng(0).integers(0, 255, (20, 32, 32, 3), np.uint8)
    np.savez(folder / "images.npz", images=images, labels=np.arange(20) % 2)
    experiment = Experiment(
        name="tiny",
        data=Data(source=str(folder / "images.npz")),
        networks=Networks(
            resolution=32,
            num_classes=2,
            base_channels=2,
            latent_size=5,
            generator_attention_resolutions=(8, 16),
            discriminator_attention_resolutions=(16,),
        ),
        training=Training(total_steps=1, batch_size=4),
        recording=Recording(log_every_steps=1, sample_every_steps=1),
    )
    sagan_jax.train(experiment, folder / "run")
    return experiment, folder / "run"


def attend(*words: object) -> int:
    return command("attend", *words)


@pytest.mark.parametrize("gamma", [0.2839, -0.0123456, 1234.5])
def test_gamma_of_a_figure_is_the_one_that_the_top_of_the_report_says(trained, tmp_path, monkeypatch, gamma):
    _, workdir = trained
    record = generator_attention(load_run(workdir), np.zeros((1, 5)), np.zeros(1, np.int32))
    record = record._replace(layers=tuple(layer._replace(gamma=gamma) for layer in record.layers))
    titles = []

    def figure(image, queries, panels):
        titles.extend(panel.title for panel in panels)
        return Figure()

    monkeypatch.setattr(attention_figures, "attention_figure", figure)
    attention_figures.draw_record(record, tmp_path)
    logged = {"generator/gamma_8": 9.0, "generator/gamma_16": 9.0}  # of the weights before the last update
    (tmp_path / "metrics.jsonl").write_text(
        "".join(f"{json.dumps({'step': 1} | line)}\n" for line in (logged, record.statistics()))
    )
    page = report_page(tmp_path)
    for size, title in zip((8, 16), titles, strict=True):
        shown = title.partition("γ ")[2]
        assert f"<dt>γ of G at {size}</dt><dd>{shown}</dd>" in page


def test_run_records_the_gamma_of_the_networks_that_it_draws(trained):
    _, workdir = trained
    lines = [line for line in read_metrics(workdir) if "generator/attention_gamma_16" in line]
    drawn = load_run(workdir).variables["params"]["attention_16"]["gamma"]
    assert [line["generator/attention_gamma_16"] for line in lines] == [pytest.approx(float(drawn), abs=1e-9)]


def test_layers_of_both_networks_are_seen_in_the_order_that_features_meet_them(trained):
    _, workdir = trained
    run = open_run(workdir)
    generator, discriminator = run.generator(), run.discriminator()
    labels = np.array([0, 1, 1], np.int32)
    seen = generator_attention(generator, generator.latents(jax.random.key(0), np.arange(3)), labels)
    assert [(layer.name, layer.query_shape, layer.key_shape) for layer in seen.layers] == [
        ("generator_8", (8, 8), (4, 4)),
        ("generator_16", (16, 16), (8, 8)),
    ]
    assert [layer.attention_map.shape for layer in seen.layers] == [(3, 64, 16), (3, 256, 64)]
    assert np.array_equal(seen.images, generator.generate(3, labels=labels).images)
    (only,) = discriminator_attention(discriminator, seen.images, labels).layers
    assert (only.name, only.attention_map.shape) == ("discriminator_16", (3, 256, 64))
    for layer in (only, *seen.layers):
        assert np.allclose(layer.attention_map.sum(-1), 1, atol=1e-5)


def drawn(monkeypatch, seen, number, queries):
    """Returns what `attention_figure` is asked to draw."""
    asked = []
    monkeypatch.setattr(attention_figures, "attention_figure", lambda *given: asked.append(given))
    attention_figures._figure(seen, number, queries, 3)
    return asked[0]


def test_figure_of_given_positions_shows_their_rows_of_each_map(trained, monkeypatch):
    generator = load_run(trained[1])
    seen = generator_attention(
        generator, generator.latents(jax.random.key(0), np.arange(2)), np.array([0, 1], np.int32)
    )
    image, queries, panels = drawn(monkeypatch, seen, 1, [(13.0, 21.0), (31.9, 0.0)])
    assert np.array_equal(image, seen.images[1])
    assert queries == [(13.0, 21.0), (31.9, 0.0)]
    coarse, fine = (layer.attention_map[1] for layer in seen.layers)
    # x 13, y 21 of 32 pixels is column 3, row 5 of 8 x 8, and column 6, row 10 of 16 x 16.
    assert_near(panels[0].weights, coarse[[5 * 8 + 3, 7]].reshape(2, 4, 4), 1e-6)
    assert_near(panels[1].weights, fine[[10 * 16 + 6, 15]].reshape(2, 8, 8), 1e-6)


def test_spread_of_a_layer_is_in_pixels_of_the_image():
    # Each of 2 x 2 positions looks only at the upper left one. A position is 8 of the image's 16 pixels.
    looks = np.zeros((1, 4, 4), np.float32)
    looks[:, :, 0] = 1
    layer = layer_of_map("generator", looks, 2, 2)
    distance, entropy, uniform = layer.spread(16)
    assert np.allclose(distance, [[0, 8, 8, 8 * 2**0.5]])
    assert np.array_equal(entropy, np.zeros((1, 4)))
    assert uniform == pytest.approx(np.log(4))


def test_layers_of_a_discriminator_go_from_fine_to_coarse():
    shape = jnp.zeros((1, 32, 32, 3))
    network = Discriminator(resolution=32, num_classes=0, base_channels=2, attention_resolutions=(8, 16))
    variables = draw_tree(dict(variable_shapes(network, 32, 32, 3)), 0)
    seen = discriminator_attention(
        TrainedDiscriminator(network, variables, 0, 1), np.zeros(shape.shape, np.uint8), np.zeros(1, np.int32)
    )
    assert [layer.resolution for layer in seen.layers] == [16, 8]


def test_figure_puts_the_dot_of_a_chosen_position_in_its_middle(trained, monkeypatch):
    generator = load_run(trained[1])
    seen = generator_attention(generator, generator.latents(jax.random.key(0), np.arange(1)), np.array([1], np.int32))
    fine = seen.layers[1]
    rows = informative_queries(jnp.asarray(fine.attention_map[0]), 3, query_shape=(16, 16), key_shape=(8, 8))
    _, queries, panels = drawn(monkeypatch, seen, 0, ())
    assert queries == [(2 * (row % 16) + 1.0, 2 * (row // 16) + 1.0) for row in np.asarray(rows).tolist()]
    assert_near(panels[1].weights, fine.attention_map[0][np.asarray(rows)].reshape(3, 8, 8), 1e-6)


def test_discriminator_of_a_run_is_the_trained_one_normalised_from_the_stored_u(trained):
    _, workdir = trained
    run = open_run(workdir)
    task, state = run.task, run.state
    params, _, _ = spectral_normalize_tree(
        state.discriminator.params, state.discriminator.spectral, epsilon=task.spectral_epsilon
    )
    images, labels = jnp.zeros((2, 32, 32, 3)), jnp.array([0, 1])
    variables = {"params": params, "batch_stats": state.discriminator.batch_stats}
    wanted = task.discriminator.apply(variables, images, labels, train=False)
    trained = open_run(workdir).discriminator()
    assert np.allclose(trained.discriminator.apply(trained.variables, images, labels, train=False), wanted, atol=1e-6)


def test_run_gets_a_figure_of_each_image_of_each_network_and_two_of_the_whole(trained, tmp_path):
    _, workdir = trained
    assert attend("--workdir", workdir, "--num-images", 2, "--out", tmp_path) == 0
    names = {"generator-0", "generator-1", "discriminator-0", "discriminator-1", "reach", "history"}
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.{kind}" for name in names for kind in ("png", "svg")}
    for path in tmp_path.glob("*.png"):
        with Image.open(path) as picture:
            assert min(picture.size) > 100
    assert "</svg>" in (tmp_path / "reach.svg").read_text()


def test_figures_are_the_same_when_they_are_drawn_again(trained, tmp_path):
    _, workdir = trained
    for name in "ab":
        assert attend("--workdir", workdir, "--num-images", 1, "--out", tmp_path / name) == 0
    paths = list((tmp_path / "a").glob("*.png"))
    assert paths
    for path in paths:
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_image_of_ones_own_is_looked_at_by_the_discriminator_alone(trained, tmp_path):
    _, workdir = trained
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)).save(tmp_path / "photo.jpg")
    words = ("--workdir", workdir, "--image", tmp_path / "photo.jpg", "--queries", "12,20", "30,8")
    assert attend(*words, "--out", tmp_path / "out") == 0
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {
        "discriminator-0.png",
        "reach.png",
        "history.png",
    }


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--workdir", "{folder}/nothing"), "no run"),
        (("--workdir", "{run}", "--queries", "32,0"), "inside the image"),
        (("--workdir", "{run}", "--queries", "3"), "12,20"),
        (("--workdir", "{run}", "--queries=-1,3"), "inside the image"),
        (("--workdir", "{run}", "--image", "{folder}/text.png"), "PNG, JPEG or WebP"),
        (("--workdir", "{run}", "--image", "{folder}/absent.png"), "PNG, JPEG or WebP"),
        (("--workdir", "{run}", "--num-images", "0"), "at least 1"),
        (("--workdir", "{run}", "--checkpoint", "best"), "best checkpoint"),
        (("--workdir", "{run}", "--classes", "2"), "classes"),
    ],
)
def test_bad_input_is_one_line_with_exit_code_2_and_no_picture(trained, tmp_path, capsys, words, says):
    (tmp_path / "text.png").write_text("no picture")
    given = [word.format(run=trained[1], folder=tmp_path) for word in words]
    assert attend(*given, "--out", tmp_path / "out") == 2
    assert says in error_line(capsys)
    assert not (tmp_path / "out").exists()


def test_run_without_attention_is_refused(trained, tmp_path, capsys):
    experiment, _ = trained
    networks = dataclasses.replace(
        experiment.networks, generator_attention_resolutions=(), discriminator_attention_resolutions=()
    )
    experiment = dataclasses.replace(experiment, networks=networks)
    write_run_files(tmp_path / "run", to_dict(experiment))
    with Checkpoints(tmp_path / "run" / "checkpoints") as checkpoints:
        task = build_adversarial_task(experiment)
        shapes = jax.eval_shape(lambda: initial_state(task, 0, image_shape(experiment)))
        checkpoints.save(1, jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes), {})
    assert attend("--workdir", tmp_path / "run") == 2
    assert "no attention map to show" in capsys.readouterr().err


def test_broken_line_of_the_metrics_is_passed_over(trained, tmp_path):
    history = tmp_path / "run" / "attention" / "history.png"
    shutil.copytree(trained[1], tmp_path / "run")
    assert attend("--workdir", tmp_path / "run", "--num-images", 1) == 0
    whole = history.read_bytes()
    history.unlink()
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "generator/gamma_16": 0.')
    assert attend("--workdir", tmp_path / "run", "--num-images", 1) == 0
    assert history.read_bytes() == whole


@pytest.mark.parametrize(("word", "position"), [("12,20", (12, 20)), ("0.5,3", (0.5, 3))])
def test_position_is_x_and_y(word, position):
    assert read_position(word) == position


@pytest.mark.parametrize("word", ["12", "a,b", "1,2,3", "nan,1", ""])
def test_word_that_is_no_position_is_refused(word):
    with pytest.raises(InvalidInputError, match=f"positions such as 12,20; got {word!r}"):
        read_position(word)
