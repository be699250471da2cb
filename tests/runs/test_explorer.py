"""The interactive attention page: what is in the file, and what a real Chromium shows of it."""

import base64
import dataclasses
import doctest
import io
import json
import os
import re
import shutil
import time
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from sagan_jax.cli import wiring
from sagan_jax.cli.main import main
from sagan_jax.config import Experiment, Networks, to_dict
from sagan_jax.errors import InvalidInputError, NonFiniteError
from sagan_jax.evaluation.attention import discriminator_attention, generator_attention
from sagan_jax.evaluation.interpolation import slerp
from sagan_jax.runtime.checkpoints import Checkpoints
from sagan_jax.runtime.environment import write_run_files
from sagan_jax.training.adversarial import initial_state
from sagan_jax.views import explorer
from sagan_jax.views.explorer import (
    Frame,
    Layer,
    Sample,
    explorer_page,
    packed_map,
    quantize_rows,
)

# Pooled keys in the one, as in the release; not in the other, as in the article. No two sides of a kind are the same.
LAYERS = [Layer("generator", (8, 12), (4, 6), 0.25), Layer("discriminator", (4, 6), (4, 6), -0.5)]


def make_maps(seed: int, layers=LAYERS) -> list[np.ndarray]:
    """Rows from nearly uniform to nearly all in one place."""
    drawn = np.random.default_rng(seed)
    maps = []
    for layer in layers:
        rows, keys = np.prod(layer.query_shape), np.prod(layer.key_shape)
        scores = drawn.normal(size=(rows, keys)) * np.linspace(0.01, 6, rows)[:, None]
        maps.append((np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)).astype(np.float32))
    return maps


def make_samples(count: int = 4, steps: int = 3) -> list[Sample]:
    """Two classes, a seed each after that."""
    drawn = np.random.default_rng(5)
    return [
        Sample(
            number % 2,
            10 + number // 2,
            [
                Frame(drawn.integers(0, 256, (16, 16, 3)).astype(np.uint8), make_maps(100 * number + step))
                for step in range(steps)
            ],
        )
        for number in range(count)
    ]


def make_page(samples: list[Sample], title: str = "test", **others) -> str:
    return explorer_page(samples, LAYERS, asked=len(samples), title=title, **others).content.decode()


def embedded(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


def unpack(text: str, rows: int, keys: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns scales, entropies and codes of a packed map, read the other way than it was written."""
    content = zlib.decompress(base64.b64decode(text))
    assert len(content) == rows * (4 + 4 + keys)
    floats = np.frombuffer(content, "<f4", 2 * rows)
    return floats[:rows], floats[rows:], np.frombuffer(content, np.uint8, offset=8 * rows).reshape(rows, keys)


# What is in the file


def test_doctests_of_the_page_hold():
    outcome = doctest.testmod(explorer)
    assert outcome.attempted
    assert not outcome.failed


def test_quantised_rows_are_within_half_a_step_and_reach_the_top_level():
    for attention_map in make_maps(1):
        codes, scales = quantize_rows(attention_map)
        steps = scales.astype(np.float64)[:, None]
        # The scale itself is rounded to float32, at most 2**-24 of it: 255 times that at the top of a row.
        assert (np.abs(codes * steps - attention_map) <= steps / 2 * (1 + 2**-15)).all()
        assert (codes.max(axis=1) == 255).all()


def test_quantised_rows_of_zeros_are_zeros():
    codes, scales = quantize_rows(np.zeros((2, 3), np.float32))
    assert not codes.any()
    assert not scales.any()


def test_packed_map_reads_back():
    for layer, attention_map in zip(LAYERS, make_maps(2), strict=True):
        scales, entropies, codes = unpack(packed_map(attention_map), *attention_map.shape)
        wanted_codes, wanted_scales = quantize_rows(attention_map)
        assert np.array_equal(codes, wanted_codes), layer
        assert np.array_equal(scales, wanted_scales)
        weights = attention_map.astype(np.float64)
        assert np.allclose(entropies, -(weights * np.log(weights + 1e-300)).sum(axis=1), atol=1e-5)


def test_packed_map_refuses_what_is_no_number():
    with pytest.raises(NonFiniteError, match="no number"):
        packed_map(np.array([[0.5, np.nan]]))


def test_page_holds_every_image_and_map_of_every_sample():
    samples = make_samples()
    data = embedded(make_page(samples))
    assert [(line["label"], line["seed"]) for line in data["samples"]] == [(0, 10), (1, 10), (0, 11), (1, 11)]
    for sample, line in zip(samples, data["samples"], strict=True):
        for frame, written in zip(sample.frames, line["frames"], strict=True):
            assert written["maps"] == [packed_map(attention_map) for attention_map in frame.maps]
            assert np.array_equal(decoded(written["image"]), frame.image)


def decoded(text: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def test_page_takes_grey_images():
    image = np.arange(16 * 16, dtype=np.uint8).reshape(16, 16, 1)
    data = embedded(make_page([Sample(None, 0, [Frame(image, make_maps(0))])]))
    assert np.array_equal(decoded(data["samples"][0]["frames"][0]["image"]), image[:, :, 0])


def external(page: str) -> list[str]:
    """Returns whatever would make a browser ask for another file."""
    code = re.sub(r'<script type="application/json".*?</script>', "", page, flags=re.S)
    return re.findall(
        r"https?:|\bsrc\s*=\s*[\"']|\bhref\b|url\(|@import|\bimport\b|\bfetch\b|XMLHttp|<link|<iframe", code
    )


def test_page_asks_for_nothing_outside_itself():
    page = make_page(make_samples(1))
    assert external(page) == []
    assert "default-src 'none'" in page


@pytest.mark.parametrize("planted", ['<script src="a.js">', "@import 'a.css'", "<img src='http://a/b.png'>", "url(a)"])
def test_external_finds_what_is_planted(planted):
    assert external(planted)


def test_page_shows_a_title_of_markup_as_text():
    page = make_page(make_samples(1), title="</title><script>alert(1)</script>", facts=["<b>"])
    assert "<script>alert" not in page
    assert "<b>" not in page
    assert "&lt;b&gt;" in page


def test_page_takes_all_that_fits_its_budget_and_no_more():
    samples = make_samples(6)
    sizes = [len(make_page(samples[:count])) for count in range(1, 7)]
    slack = 200  # the words on what was left out
    for budget in range(sizes[0] + slack, sizes[-1] + slack + 997, 997):
        page = explorer_page(samples, LAYERS, asked=6, title="test", budget=budget)
        assert len(page.content) <= budget
        assert len(embedded(page.content.decode())["samples"]) == page.num_samples
        if page.num_samples < 6:
            assert sizes[page.num_samples] + slack > budget
    assert page.num_samples == 6


def test_page_says_how_many_were_left_out():
    samples = make_samples(6)
    budget = len(make_page(samples[:2])) + 500
    page = explorer_page(samples, LAYERS, asked=6, title="test", budget=budget).content.decode()
    assert f"2 of 6 samples, 4 left out to stay within {budget / 1e6:g} MB" in page
    assert "left out" not in make_page(samples)
    assert "6 samples" in make_page(samples)


def test_page_draws_no_more_samples_than_one_over_its_room():
    drawn = []

    def samples():
        for sample in make_samples(6):
            drawn.append(sample)
            yield sample

    budget = len(make_page(make_samples(2))) + 500
    explorer_page(samples(), LAYERS, asked=6, title="test", budget=budget)
    assert len(drawn) == 3


def test_page_refuses_a_budget_below_one_sample_and_says_what_is_needed():
    samples = make_samples(2)
    with pytest.raises(InvalidInputError, match=r"one sample takes 0\.\d+ MB, more than --budget-mb 0\.01"):
        explorer_page(samples, LAYERS, asked=2, title="test", budget=10_000)


def test_page_refuses_to_be_without_layers():
    with pytest.raises(InvalidInputError, match="at least one attention layer"):
        explorer_page(make_samples(1), [], asked=1, title="test")


# The command


def make_run(folder: Path, **networks) -> Path:
    """A run that has saved its first state, untrained but for its attention: gamma is 0.25 in G and -0.5 in D.

    G's scores are large, so that what it looks at differs from row to row, and so do its classes.
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
    game = wiring.build_adversarial_task(experiment)
    state = initial_state(game, 0, (32, 32, experiment.networks.image_channels))

    def opened(player, gamma):
        def changed(path, leaf):
            match path[-1].key:
                case "gamma":
                    return 0 * leaf + gamma
                case "query_kernel":
                    return 20 * leaf
                case "scale" if leaf.ndim == 2:  # a row a class
                    return leaf * np.arange(1, len(leaf) + 1, dtype=np.float32)[:, None]
            return leaf

        return dataclasses.replace(player, params=jax.tree_util.tree_map_with_path(changed, player.params))

    state = dataclasses.replace(
        state, generator=opened(state.generator, 0.25), discriminator=opened(state.discriminator, -0.5)
    )
    write_run_files(folder, to_dict(experiment))
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(0, state, {})
    return folder


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("explorer") / "run")


def explore(workdir: Path, out: Path, *flags: object) -> int:
    return main(["explore", "--workdir", str(workdir), "--out", str(out), *map(str, flags)])


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


def looks_of(workdir: Path, label: int, seed: int, steps: int):
    """Returns what the model gives from z1 to z2: the image `[T, ..]` and each layer's map `[T, N, M]`."""
    trained = wiring.load_run(workdir)
    ends = np.asarray(trained.latents(jax.random.key(seed), np.arange(2)), np.float64)
    latents = slerp(ends[:1], ends[1:], np.linspace(0, 1, steps))[0].astype(np.float32)
    seen = generator_attention(trained, latents, np.full(steps, label, np.int32))
    judged = discriminator_attention(wiring.load_networks(workdir)[1], seen.images, seen.labels)
    return seen.images, [*seen.layers, *judged.layers]


def test_explore_writes_the_maps_of_every_layer_in_order(workdir, tmp_path):
    explore(workdir, tmp_path / "e.html", "--classes", 1, "--seeds", 6, "--steps", 3)
    data = embedded((tmp_path / "e.html").read_text())
    images, layers = looks_of(workdir, 1, 6, 3)
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
    wanted = wiring.load_run(workdir).generate(2, labels=[1], seed=6).images
    # Another batch size changes the last bits, which may move a level.
    for frame, image in zip((frames[0], frames[2]), wanted, strict=True):
        assert np.abs(decoded(frame["image"]).astype(int) - image).max() <= 1


@pytest.mark.slow
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
    assert explore(workdir, tmp_path / "e.html", "--num-samples", 3, "--steps", 1, "--budget-mb", room / 1e6) == 0
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
        ("e.html", ("--budget-mb", "nan"), "--budget-mb needs"),
        ("e.html", ("--budget-mb", 0), "--budget-mb needs"),
        ("e.html", ("--budget-mb", 0.03), "more than --budget-mb 0.03"),
        ("e.html", ("--classes", 3), "the 3 classes 0 to 2"),
        ("e.html", ("--checkpoint", "best"), "no best checkpoint"),
    ],
)
def test_explore_refuses_in_one_line(workdir, tmp_path, capsys, out, flags, words):
    assert explore(workdir, tmp_path / out, *flags) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert words in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_explore_refuses_a_run_without_attention(tmp_path, capsys):
    run = make_run(tmp_path / "run", attention="residual")
    assert explore(run, tmp_path / "e.html") == 2
    assert "no attention layer to look at" in capsys.readouterr().err


def test_explore_refuses_a_folder_without_a_run_or_a_checkpoint(workdir, tmp_path, capsys):
    assert explore(tmp_path, tmp_path / "e.html") == 2
    assert "There is no run in" in capsys.readouterr().err
    shutil.copy(workdir / "config.json", tmp_path)
    assert explore(tmp_path, tmp_path / "e.html") == 2
    assert "no checkpoint" in capsys.readouterr().err


# What a browser shows


@pytest.fixture(scope="module")
def chromium():
    """A headless Chromium that downloads nothing."""
    found = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    absent = [name for name, path in found.items() if not path]
    if absent:
        reason = f"needs {' and '.join(absent)} (Debian: chromium, chromium-driver)"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    if os.environ.get("CI") != "true":
        pytest.importorskip("selenium")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = found["chromium"]
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1280,900",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(found["chromedriver"]))
    yield driver
    driver.quit()


class Opened:
    """The page in the browser."""

    def __init__(self, driver, path: Path) -> None:
        self.driver = driver
        self.data = embedded(path.read_text())
        driver.get_log("browser"), driver.get_log("performance")
        driver.get(path.resolve().as_uri())
        self.until(lambda state: state is not None)

    def state(self):
        return self.driver.execute_script("return window.explorer.state()")

    def until(self, condition):
        """Returns the state once it is as wanted."""
        last = time.monotonic() + 30
        while not condition(state := self.state()):
            assert time.monotonic() < last, state
            time.sleep(0.02)
        return state

    def find(self, name: str):
        return self.driver.find_element("css selector", name)

    def point(self, canvas, across: float, down: float) -> None:
        """Moves the pointer over a canvas, from 0 to 1 across and down."""
        from selenium.webdriver.common.action_chains import ActionChains

        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
        width, height = canvas.size["width"], canvas.size["height"]
        offset = round((across - 0.5) * width), round((down - 0.5) * height)
        ActionChains(self.driver, duration=0).move_to_element_with_offset(canvas, *offset).perform()

    def press(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def drag(self, name: str, value: int) -> None:
        """Sets a slider as dragging it does."""
        script = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))"
        self.driver.execute_script(script, self.find(name), value)

    def assert_embedded(self, state) -> None:
        """The rows that the page shows are those of the file, bit for bit."""
        texts = self.data["samples"][state["sample"]]["frames"][state["step"]]["maps"]
        for layer, shown, text in zip(self.data["layers"], state["layers"], texts, strict=True):
            (rows, columns), keys = layer["query_shape"], int(np.prod(layer["key_shape"]))
            scales, entropies, codes = unpack(text, rows * columns, keys)
            query = shown["row"] * columns + shown["column"]
            assert shown["codes"] == codes[query].tolist()
            assert (shown["scale"], shown["entropy"]) == (float(scales[query]), float(entropies[query]))
            assert shown["gamma"] == layer["gamma"]


@pytest.fixture
def opened(chromium, tmp_path):
    """A page of made-up maps: four samples, three steps, layers of two sizes."""
    (tmp_path / "page.html").write_text(make_page(make_samples()))
    return Opened(chromium, tmp_path / "page.html")


@pytest.mark.slow
def test_pointer_shows_the_rows_that_the_model_gave(chromium, workdir, tmp_path):
    explore(workdir, tmp_path / "e.html", "--num-samples", 2, "--steps", 2)
    opened = Opened(chromium, tmp_path / "e.html")
    _, layers = looks_of(workdir, 0, 0, 2)
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


@pytest.mark.slow
def test_pointer_over_any_layer_moves_all(opened):
    for number, canvas in enumerate(opened.driver.find_elements("css selector", "canvas")):
        row, column = 1 + 2 * number, 10 - 3 * number
        opened.point(canvas, (column + 0.5) / 12, (row + 0.5) / 8)
        state = opened.until(lambda state, at=[row, column]: [state["row"], state["column"]] == at)
        assert [(shown["row"], shown["column"]) for shown in state["layers"]] == [
            (row, column),
            (row // 2, column // 2),
        ]
        opened.assert_embedded(state)


@pytest.mark.slow
def test_top_links_are_the_heaviest_places_in_order(opened):
    opened.drag("#links", 5)
    opened.point(opened.find("#image"), 2.5 / 12, 1.5 / 8)
    state = opened.until(lambda state: [state["row"], state["column"]] == [1, 2])
    for layer, shown in zip(LAYERS, state["layers"], strict=True):
        weights = (np.array(shown["codes"]) * shown["scale"]).reshape(layer.key_shape)
        places = [(key["row"], key["column"]) for key in shown["top"]]
        assert len(set(places)) == 5
        assert [weights[place] for place in places] == sorted(weights.ravel(), reverse=True)[:5]
        assert [key["weight"] for key in shown["top"]] == [weights[place] for place in places]


@pytest.mark.slow
def test_click_holds_the_position_and_another_lets_go(opened):
    canvas = opened.find("#image")
    opened.point(canvas, 2.5 / 12, 1.5 / 8)
    canvas_click(opened)
    opened.point(canvas, 9.5 / 12, 5.5 / 8)
    assert [opened.state()[name] for name in ("row", "column", "held")] == [1, 2, True]
    canvas_click(opened)
    assert [opened.state()[name] for name in ("row", "column", "held")] == [5, 9, False]


def canvas_click(opened: Opened) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(opened.driver).click().perform()


@pytest.mark.slow
def test_keyboard_moves_the_position_and_stops_at_the_edge(opened):
    from selenium.webdriver.common.keys import Keys

    before = opened.state()
    opened.press(Keys.TAB)
    assert opened.driver.switch_to.active_element.get_attribute("id") == "image"
    opened.press(Keys.ARROW_DOWN, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    state = opened.state()
    assert [state["row"], state["column"]] == [before["row"] + 1, before["column"] + 2]
    assert state["layers"][0]["codes"] != before["layers"][0]["codes"]
    opened.assert_embedded(state)
    opened.press(*[Keys.ARROW_UP] * 20, Keys.HOME, Keys.ARROW_LEFT)
    state = opened.state()
    assert [state["row"], state["column"]] == [0, 0]


@pytest.mark.slow
def test_position_is_said_to_screen_readers_in_numbers_of_the_row(opened):
    opened.point(opened.find("#image"), 7.5 / 12, 6.5 / 8)
    state = opened.until(lambda state: [state["row"], state["column"]] == [6, 7])
    pooled, whole = (shown["top"][0] for shown in state["layers"])
    time.sleep(0.6)
    said = opened.find("#said")
    assert said.get_attribute("aria-live") == "polite"
    rows, columns = 2 * pooled["row"], 2 * pooled["column"]
    wanted = f"Generator 8×12: position 6, 7 looks most at rows {rows}–{rows + 1}, columns {columns}–{columns + 1} ("
    assert said.text.startswith(wanted)
    assert f"{100 * pooled['weight']:.0f}%" in said.text or f"{100 * pooled['weight']:.1f}%" in said.text
    assert f"position 3, 3 looks most at row {whole['row']}, column {whole['column']} (" in said.text
    entropies = [cell.text for cell in opened.driver.find_elements("css selector", "dl dd:last-of-type")]
    assert entropies == [f"{shown['entropy']:.2f} of {np.log(24):.2f}" for shown in state["layers"]]
    assert [cell.text for cell in opened.driver.find_elements("css selector", "dl dd:first-of-type")] == [
        "0.250",
        "−0.500",
    ]


@pytest.mark.slow
def test_slider_goes_from_z1_to_z2_with_attention_in_step(opened):
    rows = set()
    for step in (1, 2, 0):
        opened.drag("#step", step)
        state = opened.until(lambda state, at=step: state["step"] == at)
        opened.assert_embedded(state)
        rows.add(tuple(state["layers"][0]["codes"]))
    assert len(rows) == 3
    assert opened.find("#step").get_attribute("aria-valuetext") == "z₁"


@pytest.mark.slow
def test_sample_class_and_seed_are_chosen_and_agree(opened):
    from selenium.webdriver.support.select import Select

    opened.driver.find_elements("css selector", "#thumbs button")[3].click()
    state = opened.until(lambda state: state["sample"] == 3)
    assert (state["label"], state["seed"]) == (1, 11)
    assert [opened.find(f"#{name}").get_attribute("value") for name in ("class", "seed")] == ["1", "11"]
    Select(opened.find("#seed")).select_by_value("10")
    opened.assert_embedded(opened.until(lambda state: state["sample"] == 1))
    Select(opened.find("#class")).select_by_value("0")
    opened.assert_embedded(opened.until(lambda state: state["sample"] == 0))
    current = opened.driver.find_elements("css selector", "#thumbs [aria-current=true]")
    assert [button.get_attribute("aria-label") for button in current] == ["class 0, seed 10"]


@pytest.mark.slow
def test_canvas_of_a_layer_is_brightest_where_the_row_is(opened):
    opened.drag("#links", 0)
    canvas = opened.driver.find_elements("css selector", "canvas")[1]
    opened.point(canvas, 3.5 / 12, 7.5 / 8)
    state = opened.until(lambda state: [state["row"], state["column"]] == [7, 3])
    # The middle of each key's square: red, green and blue of inferno grow together with the weight, but for the image.
    script = """
        const [canvas, rows, columns] = arguments, context = canvas.getContext("2d"), light = [];
        for (let row = 0; row < rows; row++) for (let column = 0; column < columns; column++) {
          const x = (column + 0.25) * canvas.width / columns, y = (row + 0.25) * canvas.height / rows;
          const [red, green] = context.getImageData(x, y, 1, 1).data;
          light.push(red + green);
        }
        return light;"""
    light = np.array(opened.driver.execute_script(script, canvas, 4, 6))
    codes = np.array(state["layers"][0]["codes"])
    assert light.argmax() == codes.argmax()
    assert light[codes > 200].min() > light[codes < 60].max()


@pytest.mark.slow
def test_console_and_network_stay_silent(opened):
    for step in (1, 2):
        opened.drag("#step", step)
        opened.until(lambda state, at=step: state["step"] == at)
    opened.driver.find_elements("css selector", "#thumbs button")[2].click()
    opened.until(lambda state: state["sample"] == 2)
    assert opened.driver.get_log("browser") == []
    messages = [json.loads(line["message"])["message"] for line in opened.driver.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert asked
    assert {url.split(":")[0] for url in asked} <= {"file", "data"}
    assert len({url for url in asked if url.startswith("file:")}) == 1


@pytest.mark.slow
def test_damaged_page_says_so(chromium, tmp_path):
    page = make_page(make_samples(1, 1))
    text = embedded(page)["samples"][0]["frames"][0]["maps"][0]
    (tmp_path / "page.html").write_text(page.replace(text, base64.b64encode(b"no zlib stream").decode()))
    chromium.get((tmp_path / "page.html").as_uri())
    time.sleep(1)
    assert "could not be unpacked" in chromium.find_element("id", "trouble").text


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 390, 800, 1280])
def test_page_fits_the_width_of_the_screen(opened, width):
    metrics = {"width": width, "height": 844, "deviceScaleFactor": 2, "mobile": width < 500}
    opened.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        assert opened.driver.execute_script("return document.documentElement.scrollWidth") <= width
        small = [
            element.get_attribute("id")
            for element in opened.driver.find_elements("css selector", "canvas, select, #thumbs button")
            if element.size["width"] < 40
        ]
        assert small == []
    finally:
        opened.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
