"""The explorer page: what is in the file, and what a real Chromium shows of it."""

import base64
import doctest
import json
import re
import time

import numpy as np
import pytest

from sagan_jax.errors import InvalidInputError, NonFiniteError
from sagan_jax.views import explorer
from sagan_jax.views.explorer import Frame, Layer, Sample, explorer_page, pack_map, quantize_rows
from support.explorer_pages import OpenedPage, decoded, embedded, start_chromium, unpack

# Neither the page nor the browser depends on jax.
pytestmark = pytest.mark.one_jax

# The first layer pools its keys, as in the release. The second does not, as in the article. Heights and widths differ.
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
    """Samples of two classes in turn. Every two samples have a new seed."""
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
    return explorer_page(samples, LAYERS, num_requested=len(samples), title=title, **others).content.decode()


# The file


def test_doctests_of_the_page_hold():
    outcome = doctest.testmod(explorer)
    assert outcome.attempted
    assert not outcome.failed


def test_quantised_rows_are_within_half_a_step_and_reach_the_top_level():
    for attention_map in make_maps(1):
        codes, scales = quantize_rows(attention_map)
        steps = scales.astype(np.float64)[:, None]
        # The scale is rounded to float32, by at most 2**-24 of it. At the top of a row, this counts 255 times.
        assert (np.abs(codes * steps - attention_map) <= steps / 2 * (1 + 2**-15)).all()
        assert (codes.max(axis=1) == 255).all()


def test_quantised_rows_of_zeros_are_zeros():
    codes, scales = quantize_rows(np.zeros((2, 3), np.float32))
    assert not codes.any()
    assert not scales.any()


def test_packed_map_reads_back():
    for layer, attention_map in zip(LAYERS, make_maps(2), strict=True):
        scales, entropies, codes = unpack(pack_map(attention_map), *attention_map.shape)
        wanted_codes, wanted_scales = quantize_rows(attention_map)
        assert np.array_equal(codes, wanted_codes), layer
        assert np.array_equal(scales, wanted_scales)
        weights = attention_map.astype(np.float64)
        assert np.allclose(entropies, -(weights * np.log(weights + 1e-300)).sum(axis=1), atol=1e-5)


def test_pack_map_refuses_a_map_that_is_not_finite():
    with pytest.raises(NonFiniteError, match="needs finite attention weights"):
        pack_map(np.array([[0.5, np.nan]]))


def test_page_holds_every_image_and_map_of_every_sample():
    samples = make_samples()
    data = embedded(make_page(samples))
    assert [(line["label"], line["seed"]) for line in data["samples"]] == [(0, 10), (1, 10), (0, 11), (1, 11)]
    for sample, line in zip(samples, data["samples"], strict=True):
        for frame, written in zip(sample.frames, line["frames"], strict=True):
            assert written["maps"] == [pack_map(attention_map) for attention_map in frame.maps]
            assert np.array_equal(decoded(written["image"]), frame.image)


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


@pytest.mark.slow
def test_page_takes_all_that_fits_its_budget_and_no_more():
    samples = make_samples(6)
    sizes = [len(make_page(samples[:count])) for count in range(1, 7)]
    slack = 200  # room for the words on what was left out
    for budget in range(sizes[0] + slack, sizes[-1] + slack + 997, 997):
        page = explorer_page(samples, LAYERS, num_requested=6, title="test", budget=budget)
        assert len(page.content) <= budget
        assert len(embedded(page.content.decode())["samples"]) == page.num_samples
        if page.num_samples < 6:
            assert sizes[page.num_samples] + slack > budget
    assert page.num_samples == 6


def test_page_says_how_many_were_left_out():
    samples = make_samples(6)
    budget = len(make_page(samples[:2])) + 500
    page = explorer_page(samples, LAYERS, num_requested=6, title="test", budget=budget).content.decode()
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
    explorer_page(samples(), LAYERS, num_requested=6, title="test", budget=budget)
    assert len(drawn) == 3


def test_page_refuses_a_budget_below_one_sample_and_says_what_is_needed():
    samples = make_samples(2)
    with pytest.raises(InvalidInputError, match=r"one sample takes 0\.\d+ MB, more than --megabytes 0\.01"):
        explorer_page(samples, LAYERS, num_requested=2, title="test", budget=10_000)


def test_page_refuses_to_be_without_layers():
    with pytest.raises(InvalidInputError, match="at least one attention layer"):
        explorer_page(make_samples(1), [], num_requested=1, title="test")


# The page in a browser


@pytest.fixture(scope="module")
def chromium():
    yield from start_chromium()


@pytest.fixture
def opened(chromium, tmp_path):
    """A page of made-up maps: four samples, three steps, layers of two sizes."""
    (tmp_path / "page.html").write_text(make_page(make_samples()))
    return OpenedPage(chromium, tmp_path / "page.html")


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
def test_top_keys_are_the_heaviest_places_in_order(opened):
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
def test_click_holds_the_position_and_a_second_click_releases_it(opened):
    canvas = opened.find("#image")
    opened.point(canvas, 2.5 / 12, 1.5 / 8)
    canvas_click(opened)
    opened.point(canvas, 9.5 / 12, 5.5 / 8)
    assert [opened.state()[name] for name in ("row", "column", "held")] == [1, 2, True]
    canvas_click(opened)
    assert [opened.state()[name] for name in ("row", "column", "held")] == [5, 9, False]


def canvas_click(opened: OpenedPage) -> None:
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
def test_screen_readers_are_told_the_weights_of_the_query_position(opened):
    opened.point(opened.find("#image"), 7.5 / 12, 6.5 / 8)
    state = opened.until(lambda state: [state["row"], state["column"]] == [6, 7])
    pooled, whole = (shown["top"][0] for shown in state["layers"])
    time.sleep(0.6)
    said = opened.find("#said")
    assert said.get_attribute("aria-live") == "polite"
    rows, columns = 2 * pooled["row"], 2 * pooled["column"]
    wanted = f"Generator 8×12: position 6, 7 attends most to rows {rows}–{rows + 1}, columns {columns}–{columns + 1} ("
    assert said.text.startswith(wanted)
    assert f"{100 * pooled['weight']:.0f}%" in said.text or f"{100 * pooled['weight']:.1f}%" in said.text
    assert f"position 3, 3 attends most to row {whole['row']}, column {whole['column']} (" in said.text
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
    # A point in each key's square. Red and green of inferno grow with the weight, apart from the image behind.
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
