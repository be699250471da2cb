"""Explorer pages, read from the file and in a browser."""

import base64
import io
import json
import os
import re
import shutil
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


def embedded(page: str) -> dict:
    """Returns the JSON data of a page."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


def unpack(text: str, rows: int, keys: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns scales and entropies `[rows]` float32 and codes `[rows, keys]` uint8 of a packed map."""
    content = zlib.decompress(base64.b64decode(text))
    assert len(content) == rows * (4 + 4 + keys)
    floats = np.frombuffer(content, "<f4", 2 * rows)
    return floats[:rows], floats[rows:], np.frombuffer(content, np.uint8, offset=8 * rows).reshape(rows, keys)


def decoded(text: str) -> np.ndarray:
    """Returns the pixels of a PNG in base64."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def start_chromium() -> Iterator[Any]:
    """Yields a headless Chromium that downloads nothing; skips the test where there is none, outside of CI."""
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


class OpenedPage:
    """An explorer page in the browser."""

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
