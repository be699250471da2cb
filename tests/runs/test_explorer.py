"""`sagan-jax explore`: the attention maps of a run as a page."""

import dataclasses
import resource
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from sagan_jax.config import Experiment, Networks, to_dict
from sagan_jax.evaluation.attention import AttentionLayer, discriminator_attention, generator_attention
from sagan_jax.evaluation.interpolation import slerp
from sagan_jax.runs import explorer
from sagan_jax.runs.build import build_adversarial_task
from sagan_jax.runs.load import load_run, open_run
from sagan_jax.runtime.checkpoints import Checkpoints
from sagan_jax.runtime.environment import write_run_files
from sagan_jax.training.adversarial import initial_state
from support.commands import command, error_line
from support.explorer_pages import OpenedPage, decoded, embedded, start_chromium, unpack

# The runs that these tests explore take half a minute.
pytestmark = [pytest.mark.slow, pytest.mark.one_jax]


def make_run(folder: Path, **networks) -> Path:
    """Saves a run in its initial state, except that gamma is 0.25 in G and -0.5 in D.

    G's scores are large, so that its attention differs from row to row. Its classes differ too.
    """
    experiment = Experiment(
        name="tiny",
        networks=Networks(
            **{
                "resolution": 32,
                "num_classes": 3,
                "base_channels": 2,
                "latent_size": 5,
                "generator_attention_resolutions": (8, 16),
                "discriminator_attention_resolutions": (16,),
                "spectral_norm": "discriminator",
                **networks,
            }
        ),
    )
    task = build_adversarial_task(experiment)
    size = experiment.networks.resolution
    state = initial_state(task, 0, (size, size, experiment.networks.image_channels))

    def with_attention(network, gamma):
        def changed(path, leaf):
            match path[-1].key:
                case "gamma":
                    return 0 * leaf + gamma
                case "query_kernel":
                    return 20 * leaf
                case "scale" if leaf.ndim == 2:  # a row a class
                    return leaf * np.arange(1, len(leaf) + 1, dtype=np.float32)[:, None]
            return leaf

        return dataclasses.replace(network, params=jax.tree_util.tree_map_with_path(changed, network.params))

    state = dataclasses.replace(
        state, generator=with_attention(state.generator, 0.25), discriminator=with_attention(state.discriminator, -0.5)
    )
    write_run_files(folder, to_dict(experiment))
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(0, state, {})
    return folder


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("explorer") / "run")


def explore(workdir: Path, out: Path, *flags: object) -> int:
    return command("explore", "--workdir", workdir, "--out", out, *flags)


def asked_for(page: Path) -> list[tuple[int, int]]:
    return [(line["label"], line["seed"]) for line in embedded(page.read_text())["samples"]]


def test_explore_goes_round_the_classes_before_the_next_seed(workdir, tmp_path, capsys):
    assert explore(workdir, tmp_path / "e.html", "--num-samples", 5, "--steps", 2) == 0
    assert asked_for(tmp_path / "e.html") == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1)]
    assert "5 samples in" in capsys.readouterr().out


def test_explore_takes_every_class_with_each_seed_that_is_given(workdir, tmp_path):
    flags = ("--seeds", 7, 4, "--classes", 2, 0, "--steps", 1)
    assert explore(workdir, tmp_path / "e.html", *flags) == 0
    assert asked_for(tmp_path / "e.html") == [(2, 7), (0, 7), (2, 4), (0, 4)]
    assert explore(workdir, tmp_path / "f.html", *flags, "--num-samples", 3) == 0
    assert asked_for(tmp_path / "f.html") == [(2, 7), (0, 7), (2, 4)]


def test_every_seed_that_is_given_is_requested_with_every_class():
    requested = explorer._requested(np.arange(3), None, [5, 2, 5, 0, 1, 3, 4, 6])
    assert len(requested) == 3 * 7  # more than the usual 20; 5 counts once
    assert requested[:4] == [(0, 5), (1, 5), (2, 5), (0, 2)]
    assert explorer._requested(np.arange(3), None, []) == [(i % 3, i // 3) for i in range(20)]


def records_of(workdir: Path, label: int, seed: int, steps: int):
    """Returns the model's images `[T, H, W, C]` on the way from z1 to z2, and each layer's attention to them."""
    trained = load_run(workdir)
    ends = np.asarray(trained.latents(jax.random.key(seed), np.arange(2)), np.float64)
    latents = slerp(ends[:1], ends[1:], np.linspace(0, 1, steps))[0].astype(np.float32)
    seen = generator_attention(trained, latents, np.full(steps, label, np.int32))
    by_discriminator = discriminator_attention(open_run(workdir).discriminator(), seen.images, seen.labels)
    return seen.images, [*seen.layers, *by_discriminator.layers]


def test_explore_writes_the_maps_of_every_layer_in_order(workdir, tmp_path):
    explore(workdir, tmp_path / "e.html", "--classes", 1, "--seeds", 6, "--steps", 3)
    data = embedded((tmp_path / "e.html").read_text())
    images, layers = records_of(workdir, 1, 6, 3)
    assert [(line["network"], line["query_shape"], line["gamma"]) for line in data["layers"]] == [
        ("generator", [8, 8], 0.25),
        ("generator", [16, 16], 0.25),
        ("discriminator", [16, 16], -0.5),
    ]
    for step, frame in enumerate(data["samples"][0]["frames"]):
        assert np.array_equal(decoded(frame["image"]), images[step])
        for layer, text in zip(layers, frame["maps"], strict=True):
            wanted = layer.attention_map[step]
            scales, entropies, codes = unpack(text, *wanted.shape)
            half = scales[:, None] * 0.5001
            assert (np.abs(codes * scales[:, None] - wanted) <= half).all()
            assert np.allclose(entropies, -(wanted * np.log(wanted + 1e-30)).sum(axis=1), atol=1e-5)


def test_explore_goes_between_the_first_two_images_of_the_seed(workdir, tmp_path):
    explore(workdir, tmp_path / "e.html", "--classes", 1, "--seeds", 6, "--steps", 3)
    frames = embedded((tmp_path / "e.html").read_text())["samples"][0]["frames"]
    wanted = load_run(workdir).generate(2, labels=[1], seed=6).images
    # Another batch size changes the last bits, which may round to another level.
    for frame, image in zip((frames[0], frames[2]), wanted, strict=True):
        assert np.abs(decoded(frame["image"]).astype(int) - image).max() <= 1


def test_explore_of_an_unconditional_run_has_no_classes(tmp_path):
    run = make_run(tmp_path / "run", num_classes=0, image_channels=1, attention="article")
    assert explore(run, tmp_path / "e.html", "--num-samples", 2, "--steps", 2) == 0
    assert asked_for(tmp_path / "e.html") == [(None, 0), (None, 1)]
    layers = embedded((tmp_path / "e.html").read_text())["layers"]
    assert [layer["key_shape"] for layer in layers] == [[8, 8], [16, 16], [16, 16]]


def test_explore_shows_only_the_layers_that_exist(tmp_path):
    run = make_run(tmp_path / "run", generator_attention_resolutions=())
    assert explore(run, tmp_path / "e.html", "--num-samples", 1, "--steps", 1) == 0
    (layer,) = embedded((tmp_path / "e.html").read_text())["layers"]
    assert layer["network"] == "discriminator"


def test_explore_says_how_many_did_not_fit(workdir, tmp_path, capsys):
    explore(workdir, tmp_path / "all.html", "--num-samples", 3, "--steps", 1)
    room = (tmp_path / "all.html").stat().st_size - 1000
    assert explore(workdir, tmp_path / "e.html", "--num-samples", 3, "--steps", 1, "--megabytes", room / 1e6) == 0
    assert asked_for(tmp_path / "e.html") == [(0, 0), (1, 0)]
    assert "2 samples (1 did not fit) in" in capsys.readouterr().out
    assert (tmp_path / "e.html").stat().st_size <= room


@pytest.mark.parametrize(
    ("out", "flags", "words"),
    [
        ("e.png", (), "--out needs a .html file"),
        (".", (), "--out needs a .html file"),
        ("e.html", ("--num-samples", 0), "--num-samples needs to be at least 1"),
        ("e.html", ("--steps", 0), "--steps needs to be at least 1"),
        ("e.html", ("--seeds", 0, -1), "--seeds needs"),
        ("e.html", ("--megabytes", "nan"), "--megabytes needs"),
        ("e.html", ("--megabytes", 0), "--megabytes needs"),
        ("e.html", ("--megabytes", 0.03), "more than --megabytes 0.03"),
        ("e.html", ("--classes", 3), "the 3 classes 0 to 2"),
        ("e.html", ("--checkpoint", "best"), "no best checkpoint"),
    ],
)
def test_explore_refuses_in_one_line(workdir, tmp_path, capsys, out, flags, words):
    assert explore(workdir, tmp_path / out, *flags) == 2
    assert words in error_line(capsys)
    assert list(tmp_path.iterdir()) == []


def test_explore_refuses_a_run_without_attention(tmp_path, capsys):
    run = make_run(tmp_path / "run", attention="residual")
    assert explore(run, tmp_path / "e.html") == 2
    assert "no attention map to show" in capsys.readouterr().err


def test_explore_refuses_a_folder_without_a_run_or_a_checkpoint(workdir, tmp_path, capsys):
    assert explore(tmp_path, tmp_path / "e.html") == 2
    assert "There is no run in" in capsys.readouterr().err
    shutil.copy(workdir / "config.json", tmp_path)
    assert explore(tmp_path, tmp_path / "e.html") == 2
    assert "no checkpoint" in capsys.readouterr().err


@pytest.fixture(scope="module")
def chromium():
    yield from start_chromium()


def layer_of_positions(query, key):
    random = np.random.default_rng(0)
    queries, keys = (random.normal(size=(1, side**2, 3)).astype(np.float32) for side in (query, key))
    return AttentionLayer("generator", query, 0.5, queries, keys, (query, query), (key, key))


@pytest.mark.parametrize(("query", "key", "shown"), [(128, 128, 32), (128, 64, 32), (64, 64, 32), (64, 32, 64)])
def test_very_large_map_is_shown_by_the_middle_of_squares_with_its_keys_added_up(query, key, shown):
    layer = layer_of_positions(query, key)
    step = query // shown
    assert explorer.coarse_shapes(layer) == ((shown, shown), (key // step, key // step))
    found = explorer.coarse_map(layer, 0)
    assert np.allclose(found.sum(axis=1), 1, atol=1e-5)
    row, column = 7, 11
    weights = layer.rows(0, [(row * step + step // 2) * query + column * step + step // 2])[0].reshape(key, key)
    wanted = [
        weights[top : top + step, left : left + step].sum()
        for top in range(0, key, step)
        for left in range(0, key, step)
    ]
    assert np.allclose(found[row * shown + column], wanted, atol=1e-6)
    said = [f"generator at {query}×{query}: squares of {step}×{step} positions are shown as one"]
    assert explorer.coarse_facts([layer]) == (said if step > 1 else [])


@pytest.mark.parametrize("form", ["article", "release"])
def test_attention_at_128_by_128_positions_is_explored_and_drawn_with_little_memory(tmp_path, form):
    workdir = make_run(
        tmp_path / "run",
        resolution=128,
        attention=form,
        generator_attention_resolutions=(128,),
        discriminator_attention_resolutions=(),
    )
    before = peak_memory()
    assert explore(workdir, tmp_path / "e.html", "--num-samples", 1, "--steps", 1) == 0
    assert command("attend", "--workdir", workdir, "--num-images", 1, "--out", tmp_path / "out") == 0
    assert peak_memory() - before < 2**29  # one map would be 2**30
    assert (tmp_path / "e.html").stat().st_size < 10_000_000
    assert "squares of 4×4 positions are shown as one" in (tmp_path / "e.html").read_text()


def peak_memory() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_pointer_shows_the_rows_that_the_model_gave(chromium, workdir, tmp_path):
    explore(workdir, tmp_path / "e.html", "--num-samples", 2, "--steps", 2)
    opened = OpenedPage(chromium, tmp_path / "e.html")
    _, layers = records_of(workdir, 0, 0, 2)
    seen = set()
    for row, column in [(3, 11), (12, 2), (0, 15), (15, 0)]:
        opened.point(opened.find("#image"), (column + 0.5) / 16, (row + 0.5) / 16)
        state = opened.until(lambda state, at=[row, column]: [state["row"], state["column"]] == at)
        opened.assert_embedded(state)
        seen.add(tuple(state["layers"][1]["codes"]))
        for layer, shown in zip(layers, state["layers"], strict=True):
            side = layer.query_shape[0]
            assert (shown["row"], shown["column"]) == (row * side // 16, column * side // 16)
            wanted = layer.attention_map[0, shown["row"] * side + shown["column"]]
            got = np.array(shown["codes"]) * shown["scale"]
            assert np.abs(got - wanted).max() <= shown["scale"] * 0.5001
    assert len(seen) == 4
