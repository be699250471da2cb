"""How scores respond to damaged images: the damage, the tables, and the file from which a stopped command goes on."""

import doctest
import json
import sys

import numpy as np
import pytest
from PIL import Image

from sagan_jax.data import ImageSource
from sagan_jax.errors import InvalidInputError
from support.programs import BENCHMARKS, load_program

pytestmark = pytest.mark.one_jax


@pytest.fixture(scope="module")
def program():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield load_program(BENCHMARKS / "score_sensitivity.py")
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def damages(program):
    return sys.modules["damages"]


@pytest.fixture(scope="module")
def sensitivity_tables(program):
    return sys.modules["sensitivity_tables"]


@pytest.fixture(scope="module")
def images():
    """Three images of 32 pixels with fine and coarse structure, far from black and white."""
    y, x = np.mgrid[:32, :32]
    waves = [np.sin(x / step + shift) + np.cos(y / (step + 1)) for step, shift in ((0.7, 0), (2, 1), (5, 2))]
    return np.stack([128 + 25 * np.stack([wave, -wave, wave / 2], axis=-1) for wave in waves]).astype(np.uint8)


def distance(left, right):
    return np.abs(left.astype(float) - right).mean()


@pytest.mark.parametrize("name", ["blur", "noise", "jpeg", "cut-out"])
def test_stronger_damage_changes_images_more_and_leaves_their_kind(damages, images, name):
    kind = damages.DAMAGES[name]
    before = images.copy()
    damaged = [kind.apply(images, strength, np.random.default_rng(0)) for strength in kind.strengths]
    assert len(damaged) == 5
    for one in damaged:
        assert one.dtype == np.uint8
        assert one.shape == images.shape
    changes = [distance(images, one) for one in damaged]
    assert (np.diff(changes) > 0).all()
    assert np.array_equal(images, before)


def test_noise_has_the_deviation_that_was_asked_for(damages, images):
    damaged = damages.noise(np.resize(images, (40, 32, 32, 3)), 10, np.random.default_rng(0))
    assert (damaged - np.resize(images, damaged.shape).astype(float)).std() == pytest.approx(10, rel=0.02)


def test_cut_out_is_one_grey_square_inside_the_image(damages):
    white = np.full((50, 16, 16, 3), 255, np.uint8)
    damaged = damages.cut_out(white, 0.25, np.random.default_rng(0))
    assert np.unique(damaged).tolist() == [128, 255]
    assert ((damaged == 128).all(axis=-1).sum(axis=(1, 2)) == 16).all()
    rows = (damaged[..., 0] == 128).any(axis=2)
    assert set(rows.sum(axis=1)) == {4}
    assert rows.any(axis=0).all()  # each row is cut out in some image


def test_blur_is_the_same_share_of_a_larger_image(damages):
    impulse = np.zeros((2, 64, 64, 3), np.uint8)
    impulse[:, 32, 32] = 255
    small = damages.blur(impulse[:, 16:48, 16:48], 1, np.random.default_rng(0))
    large = damages.blur(impulse, 1, np.random.default_rng(0))
    assert small[0, 16, 16, 0] == pytest.approx(255 / (2 * np.pi), abs=1)
    assert large[0, 32, 32, 0] == pytest.approx(255 / (2 * np.pi * 4), abs=1)


def make_source(number, classes):
    images = np.arange(number, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    labels = np.sort(np.arange(number) % classes) if classes else None
    names = tuple(map(str, range(classes)))
    return ImageSource(images, labels, names, "numbered", content=lambda: "numbered")


@pytest.mark.parametrize("classes", [0, 10])
def test_reference_and_pool_share_no_image(program, classes):
    subject = program.split("numbered", make_source(200, classes), 50, 20)
    reference, pool, rest = ({*part.images[:, 0, 0, 0].tolist()} for part in subject[1:])
    assert len(reference) == len(subject.reference.labels) == 50
    assert not reference & pool
    assert not rest & pool
    assert rest | pool == set(range(200))
    assert subject.pool.classes == classes
    if classes:
        assert np.bincount(subject.reference.labels).tolist() == [5] * 10
        for missing in (1, 8):
            places = subject.with_classes(missing, 20)
            assert len(places) == 20
            assert set(subject.pool.labels[places]) == set(range(missing, 10))


def test_set_without_enough_images_is_refused(program):
    with pytest.raises(InvalidInputError, match=r"digits needs 130 images, and 20 of the last two classes"):
        program.split("digits", make_source(129, 0), 50, 20)


def plain_outputs(embedding, images, size=100):
    floats = images.astype(np.float32) / 255
    halves = [floats[:, : floats.shape[1] // 2].mean((1, 2, 3)), floats.std((1, 2, 3))]
    return {"features": np.concatenate([floats.mean((1, 2)), np.stack(halves, axis=1)], axis=1)}


@pytest.fixture
def measured(program, monkeypatch, tmp_path):
    """Returns the arguments of a tiny measurement without a network, and a list of the images that it looks at."""
    drawn = np.random.default_rng(0)
    base = drawn.integers(0, 200, (300, 1, 1, 3)) + drawn.integers(0, 50, (300, 32, 32, 3))
    labels = np.arange(300) % 10
    source = ImageSource(base.astype(np.uint8), labels, tuple("0123456789"), "drawn", content=lambda: "drawn")
    looked = []

    def outputs_of(embedding, images, size=100):
        looked.append(len(images))
        return plain_outputs(embedding, images)

    monkeypatch.setattr(program, "open_source", lambda name, resolution, cache: source)
    monkeypatch.setattr(program, "outputs_of", outputs_of)
    words = ["--network", "random", "--images", "20", "--reference", "60", "--cache", str(tmp_path / "cache")]
    return [*words, "--out", str(tmp_path / "s.json")], looked


def test_stopped_command_goes_on_where_it_was(program, measured, tmp_path, monkeypatch, capsys):
    words, looked = measured
    whole = program.run(words) or (tmp_path / "s.json").read_text()
    cells = json.loads(whole)["cells"]
    assert len(cells) == 4 + 1 + 5 + 4 * 5  # only of the digits, and without another set to mix in
    assert {*cells["digits/random/blur/4"]} == {"fd", "kd", "precision", "recall", "density", "coverage"}
    again = json.loads(whole)
    for cell in ("digits/random/blur/4", "digits/random/missing/5"):
        del again["cells"][cell]
    (tmp_path / "s.json").write_text(json.dumps(again))
    looked.clear()
    capsys.readouterr()
    program.run(words)
    assert json.loads((tmp_path / "s.json").read_text())["cells"] == cells
    assert looked == [20]  # the images of one cell; all others are kept
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_results_of_other_settings_are_refused(program, measured):
    words, _ = measured
    program.run(words)
    with pytest.raises(InvalidInputError, match=r"other settings, .*'images': 20.*; now they are .*'images': 21"):
        program.run([word if word != "20" else "21" for word in words])


def test_results_of_other_images_are_refused(program, measured, monkeypatch):
    words, _ = measured
    program.run(words)
    images = np.zeros((300, 32, 32, 3), np.uint8)
    other = ImageSource(images, np.arange(300) % 10, tuple("0123456789"), "other", content=lambda: "other")
    monkeypatch.setattr(program, "open_source", lambda name, resolution, cache: other)
    with pytest.raises(InvalidInputError, match=r"holds results of other images for digits: .*Give another --out\.$"):
        program.run(words)


def test_results_of_another_network_are_refused(program, measured, tmp_path):
    words, _ = measured
    program.run(words)
    file = tmp_path / "s.json"
    file.write_text(file.read_text().replace("random-vgg", "another"))
    with pytest.raises(
        InvalidInputError, match=r"results of other networks for digits/random: another.*; now random-vgg"
    ):
        program.run(words)


def test_tables_and_curves_are_made_from_the_file(program, measured, tmp_path, capsys):
    words, _ = measured
    program.run(words)
    capsys.readouterr()
    program.run(["--tables", str(tmp_path / "s.json"), "--plot", str(tmp_path / "s.png")])
    said = capsys.readouterr().out
    assert "| features | score | blur | noise | jpeg | cut-out | mixed | missing |" in said
    assert "| random | fd | " in said
    with Image.open(tmp_path / "s.png") as picture:
        assert picture.size[0] > 200


def make_cells(blur, floors):
    cells = {f"a/n/floor/{number}": {"fd": value} for number, value in enumerate(floors)} | {"a/n/uniform": {"fd": 99}}
    strengths = (0.5, 0.75, 1, 2, 4)
    return cells | {f"a/n/blur/{strength}": {"fd": value} for strength, value in zip(strengths, blur, strict=True)}


@pytest.mark.parametrize(
    ("blur", "says"),
    [([2, 3, 4, 5, 6], "yes"), ([2, 3, 2.9, 5, 6], "yes"), ([2, 3, 2, 5, 6], "no"), ([1, 1.1, 1, 1, 1.1], "blind")],
)
def test_verdict_is_in_deviations_of_the_floor(sensitivity_tables, blur, says):
    cells = make_cells(blur, [1, 1.2, 0.8, 1])  # a deviation of 0.163
    assert sensitivity_tables.verdicts(cells, "n", "fd", "blur") == {"a": says}
    assert sensitivity_tables.floor_of(cells, "a/n", "fd") == pytest.approx((1, np.std([1, 1.2, 0.8, 1], ddof=1)))


def test_doctests(program, sensitivity_tables):
    for module in (program, sensitivity_tables):
        assert doctest.testmod(module).attempted
        assert not doctest.testmod(module).failed
