"""The agreement of the hues of two blobs, by the distance between them."""

import doctest
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import sagan_jax
from sagan_jax.config import to_dict
from sagan_jax.data.synthetic import Pairs
from sagan_jax.errors import InvalidInputError
from sagan_jax.runs.experiments import load_experiment
from support.programs import BENCHMARKS, program_with_neighbours

pytestmark = pytest.mark.one_jax

PROGRAM = BENCHMARKS / "agreement_by_distance.py"


@pytest.fixture(scope="module")
def program():
    with program_with_neighbours(PROGRAM) as loaded:
        yield loaded


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """Returns a function that makes folders of runs in `r`, below the current folder."""
    monkeypatch.chdir(tmp_path)

    def make(*names):
        for name in names:
            (tmp_path / "r" / name).mkdir(parents=True)

    return make


@pytest.fixture(scope="module")
def images():
    """Blobs that agree in hue up to a distance of 16 of 32 pixels, and beyond that by chance."""
    near, far = Pairs(distance=9), Pairs(distance=17, agree=0)
    drawn = [near.draw(index, 64) for index in range(400)]
    drawn = [image for image in drawn if distance_of(image) < 32] + [far.draw(index, 64) for index in range(400)]
    return np.stack(drawn)


def distance_of(image):
    """Returns about the distance of two blobs: twice the deviation of all pixels, without that within a blob."""
    places = np.argwhere(image.any(axis=-1))
    return 2 * np.sqrt(np.maximum(0, ((places - places.mean(axis=0)) ** 2).sum(axis=1).mean() - 2 * 16**2 / 12))


def test_doctest(program):
    assert doctest.testmod(program).attempted
    assert not doctest.testmod(program).failed


def test_agreement_is_told_apart_by_distance(program, images):
    values = program.by_distance(*program.hues_and_distances(images, Pairs()), (8, 12, 16, 20, 24, 34))
    assert values[:2] == [1, 1]
    assert values[3:] == pytest.approx([0, 0], abs=0.2)


@pytest.mark.parametrize("rule", [Pairs(), Pairs(distance=15, size=10), Pairs(distance=20, size=8), Pairs(distance=30)])
def test_real_pairs_lie_between_the_edges_and_in_every_bin(program, rule):
    edges = program.edges_of(rule)
    places = np.random.default_rng(0).integers(0, 32 - rule.size + 1, (200_000, 2, 2))
    distances = np.linalg.norm(places[:, 0] - places[:, 1], axis=-1)
    counts, _ = np.histogram(distances[distances >= rule.distance], edges)
    assert counts.sum() == (distances >= rule.distance).sum()
    assert (counts / counts.sum() > 0.005).all()
    assert len(edges) <= 5


def test_distances_are_those_that_the_blobs_were_drawn_at(program):
    image = np.zeros((64, 64, 3), np.uint8)
    image[3:19, 5:21] = image[33:49, 45:61] = 255, 0, 0
    empty = np.zeros_like(image)
    hues, distances = program.hues_and_distances(np.stack([empty, image]), Pairs())
    assert hues.tolist() == [[0, 0]]
    assert distances == pytest.approx([25.0])  # 30 and 40, so 50 of 64 pixels
    hues, distances = program.hues_and_distances(empty[None], Pairs())
    assert hues.shape == (0, 2)
    assert distances.shape == (0,)


def test_few_pairs_say_nothing(program):
    values = program.by_distance(np.tile([[0, 0], [1, 1]], (10, 1)), np.array([13.0] * 19 + [17.0]), (12, 16, 20))
    assert np.isnan(values).all()
    assert program.by_distance(np.tile([[0, 0], [1, 1]], (10, 1)), np.full(20, 13.0), (12, 16, 20))[0] == 1


def test_scott_pi_is_nan_when_nearly_all_blobs_have_one_hue(program):
    for other, said in ((1, False), (20, True)):
        hues = np.array([[0, 0]] * 99 + [[1, 1]] * other)
        assert np.isnan(program.scott_pi(hues)) != said


def test_chance_counts_the_hues_of_both_blobs(program):
    # The first hue is always 0 and the second half the time. So a quarter of all blobs has hue 1: the chance is 10/16.
    assert program.scott_pi(np.array([[0, 0], [0, 1]])) == pytest.approx((1 / 2 - 10 / 16) / (1 - 10 / 16))


def test_a_distance_on_an_edge_belongs_to_what_follows(program):
    values = program.by_distance(np.tile([[0, 0], [1, 1]], (10, 1)), np.full(20, 16.0), (12, 16, 20, 34))
    assert np.isnan(values).tolist() == [True, False, True]


@pytest.mark.slow
def test_fields_are_those_of_the_runs_networks_in_pixels_of_32(program):
    run = load_experiment("pairs_32")
    networks = replace(run.networks, base_channels=1, generator_attention_resolutions=())
    networks = replace(networks, discriminator_attention_resolutions=())
    reach, seen = program.fields_of(replace(run, networks=networks))
    # The numbers of tests/models/test_receptive_fields.py.
    assert (reach, seen) == (23, {"block_1": 6, "block_2": 16, "block_3": 30, "block_4": 32})
    text = program.fields_table({"none": (reach, seen)})
    assert text.splitlines()[-1] == "| none | 23 | block_1 6, block_2 16, block_3 30, block_4 32 |"


def test_runs_on_blobs_of_several_distances_are_refused(program, monkeypatch):
    rules = {"none-0": Pairs(), "none-1": Pairs(seed=3), "far-0": Pairs(distance=20)}
    monkeypatch.setattr(program, "require_pairs", lambda workdir: rules[workdir.name])
    with pytest.raises(InvalidInputError, match=r"one size and distance; 'r/none-0' and 'r/far-0' differ"):
        program.run([f"r/{name}" for name in rules])


def test_a_number_of_some_seeds_says_of_how_many_and_images_are_as_many_as_asked(program, monkeypatch, runs, capsys):
    runs("none-0", "none-1")
    asked, values = [], iter([[np.nan, 1.0, np.nan, 0.25], [np.nan, 1.0, 0.5, 0.75]])

    def load_run(workdir):
        return SimpleNamespace(generate=lambda count: asked.append(count) or SimpleNamespace(images=images))

    images = np.zeros((1, 32, 32, 3), np.uint8)
    monkeypatch.setattr(sagan_jax, "load_run", load_run, raising=False)
    monkeypatch.setattr(program, "require_pairs", lambda workdir: Pairs())
    monkeypatch.setattr(program, "by_distance", lambda hues, distances, edges: next(values))
    monkeypatch.setattr(program, "experiment_of", lambda workdir: load_experiment("pairs_32"))
    monkeypatch.setattr(program, "fields_of", lambda experiment: (23.0, {"block_1": 6.0}))
    program.run(["r/none-0", "r/none-1", "--images", "321"])
    assert asked == [321, 321]
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "| none | – (0) | 1.00 [1.00, 1.00] | 0.50 (1) | 0.50 [0.25, 0.75] | 2 |"
    assert lines[-1] == "| none | 23 | block_1 6 |"


@pytest.mark.slow
def test_results_of_a_run_are_enough(program, runs, tmp_path, capsys):
    runs("none-0")
    experiment = replace(load_experiment("pairs_32"), name="of a table")
    folder = tmp_path / "r" / "none-0"
    (folder / "row.json").write_text(json.dumps({"experiment": to_dict(experiment)}))
    with pytest.raises(InvalidInputError, match="no run"):
        program.run(["r/none-0", "--images", "321"])
    found = {"images": 321, "step": 2000, "found": [0.75, None, 0.5, 0.25]}
    (folder / "by_distance.json").write_text(json.dumps(found))
    program.run(["r/none-0", "--images", "321"])
    assert capsys.readouterr().out.splitlines()[2] == "| none | 0.75 | – (0) | 0.50 | 0.25 | 1 |"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--images", "0"], "--images needs at least 1; got 0"),
        (["--out", "nowhere/d.png"], "--out needs a .png file in an existing folder; got 'nowhere/d.png'"),
        (["--out", "d.txt"], "got 'd.txt'"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_drawn(program, arguments, words):
    with pytest.raises(InvalidInputError, match=words):
        program.run(["r/none-0", *arguments])


def test_run_with_three_blobs_is_refused(program, monkeypatch):
    run = load_experiment("pairs_32")
    three = replace(run, data=replace(run.data, source="pairs:blobs=3"))
    monkeypatch.setattr(program, "experiment_of", lambda workdir: three)
    with pytest.raises(InvalidInputError, match="with two blobs"):
        program.run(["r/none-0"])


@pytest.mark.slow
def test_runs_of_a_row_are_means_over_seeds(program, images, monkeypatch, runs, tmp_path, capsys):
    runs("at 16-0", "at 16-1", "none-0")

    def load_run(workdir):
        drawn = images if workdir.name.endswith("0") else images[:, ::-1]
        return SimpleNamespace(generate=lambda count: SimpleNamespace(images=drawn[:count]))

    monkeypatch.setattr(sagan_jax, "load_run", load_run, raising=False)
    monkeypatch.setattr(program, "experiment_of", lambda workdir: load_experiment("pairs_32"))
    asked = []
    monkeypatch.setattr(
        program, "fields_of", lambda run: asked.append(run) or (32.0, {"block_1": 6.0, "block_2": 32.0})
    )
    program.run(["r/at 16-0", "r/at 16-1", "r/none-0", "--images", "800", "--out", str(tmp_path / "d.png")])
    assert len(asked) == 2
    head, _, first, second, *_ = capsys.readouterr().out.splitlines()
    assert head == "| row | 12 to 16 | 16 to 20 | 20 to 24 | 24 to 34 | seeds |"
    assert first.startswith("| at 16 | 1.00 [1.00, 1.00] | ")
    assert first.endswith(" | 2 |")
    assert second.startswith("| none | 1.00 | ")
    with Image.open(tmp_path / "d.png") as picture:
        assert picture.size[0] > 300


def test_run_on_something_else_is_refused(program, monkeypatch):
    monkeypatch.setattr(program, "experiment_of", lambda workdir: load_experiment("digits_32"))
    with pytest.raises(InvalidInputError, match=r"one on `pairs` with two blobs; 'r' is on 'digits'"):
        program.run(["r"])
