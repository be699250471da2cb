"""JPEGs that libjpeg reduces, against the same files decoded whole."""

import numpy as np
import pytest
from PIL import Image

from sagan_jax.data import cache, decoding, open_source, sources
from sagan_jax.data.decoding import decode
from sagan_jax.errors import InvalidInputError
from support.archives import write_folder
from support.images import encoded, noise
from support.sources import contents

pytestmark = pytest.mark.one_jax

SIZE = 24


def slopes(width, height):
    """Returns an image whose red rises with the column and whose green rises with the row, so that a shift shows."""
    across, down = np.linspace(0, 255, width), np.linspace(0, 255, height)
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0], image[..., 1] = across, down[:, None]
    image[: height // 3, : width // 4, 2] = 200  # marks one corner, so that each orientation looks different
    return image


def smooth(width, height):
    return Image.fromarray(noise(7, 9, 3)).resize((width, height), Image.Resampling.BICUBIC)


def turned(data_options, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return data_options | {"exif": exif}


def both(data, resolution=SIZE, channels=3):
    """Returns the pixels of both decodings as floats."""
    exact, fast = (decode(data, resolution, channels, how)[0].astype(float) for how in ("exact", "fast"))
    return exact, fast


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("width", "height"), [(107, 61), (62, 101), (99, 99), (403, 244)])
def test_reduced_image_shows_the_same_square(width, height, orientation):
    data = encoded(slopes(width, height), "JPEG", **turned({"quality": 95, "subsampling": 0}, orientation))
    exact, fast = both(data)
    inner = np.abs(exact - fast)[2:-2, 2:-2, :2]
    # At this size a neighbour differs by 4 to 10 levels, so a quarter of a source pixel shows.
    assert inner.mean() < 0.5


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
@pytest.mark.parametrize("divisor", [2, 4, 8])
def test_reduced_image_is_close_and_not_equal(divisor, options):
    exact, fast = both(encoded(smooth(divisor * 41, divisor * 37), "JPEG", quality=92, **options))
    assert 0 < np.abs(exact - fast).mean() < 1.5


def test_grey_jpeg_is_reduced_too():
    for channels in (1, 3):
        exact, fast = both(encoded(smooth(91, 77).convert("L"), "JPEG"), channels=channels)
        assert 0 < np.abs(exact - fast).mean() < 1.5


def test_jpeg_in_colour_becomes_grey():
    exact, fast = both(encoded(slopes(107, 61), "JPEG", quality=95), channels=1)
    assert fast.shape == (SIZE, SIZE, 1)
    assert np.abs(exact - fast).mean() < 1


@pytest.mark.parametrize(
    "data",
    [
        encoded(noise(90, 70, 3)),
        encoded(noise(90, 70, 3), "WEBP"),
        encoded(noise(59, 90, 3), "JPEG"),  # half of 59 is less than 1.25 times 24
        encoded(noise(7, 9, 3), "JPEG"),
        encoded(noise(SIZE, SIZE, 3), "JPEG"),
        encoded(Image.fromarray(noise(90, 70, 4), "CMYK"), "JPEG"),
        encoded(noise(90, 70, 3), "JPEG", subsampling=1),
    ],
    ids=["png", "webp", "not twice as large", "tiny", "as wanted", "cmyk", "4:2:2"],
)
def test_other_images_are_exact(data):
    exact, fast = both(data)
    np.testing.assert_array_equal(exact, fast)


def test_jpeg_just_large_enough_is_reduced():
    exact, fast = both(encoded(noise(60, 90, 3), "JPEG"))
    assert np.abs(exact - fast).max() > 0


def test_first_picture_of_several_is_reduced():
    data = encoded(smooth(91, 77), "MPO", save_all=True, append_images=[Image.new("RGB", (91, 77), "red")])
    exact, fast = both(data)
    assert 0 < np.abs(exact - fast).mean() < 1.5


@pytest.mark.parametrize("cut", [300, 1500])
def test_truncated_jpeg_is_named_as_in_exact_decoding(tmp_path, cut):
    whole = encoded(noise(90, 70, 3), "JPEG")
    folder = write_folder(tmp_path / "x", {"good.jpg": whole, "half.jpg": whole[:cut]})
    said = []
    for how in ("exact", "fast"):
        with pytest.raises(InvalidInputError, match=r"half\.jpg") as refused:
            open_source(str(folder), resolution=SIZE, decoding=how)
        said.append(str(refused.value))
    assert said[0] == said[1]


def test_unknown_decoding_is_refused():
    with pytest.raises(InvalidInputError, match="exact or fast; got 'slow'"):
        open_source("digits", resolution=32, decoding="slow")


FILES = {f"{number % 2}/{number}.jpg": encoded(noise(90, 70, 3, seed=number), "JPEG") for number in range(5)}


@pytest.fixture(params=["loaded", "mapped"])
def mode(request, monkeypatch):
    if request.param == "mapped":
        monkeypatch.setattr(sources, "IN_MEMORY_BYTES", 0)


def test_source_decodes_as_it_is_told_and_says_so(tmp_path, mode):
    folder = str(write_folder(tmp_path / "x", FILES))
    exact, fast = (open_source(folder, resolution=SIZE, decoding=how) for how in ("exact", "fast"))
    for index, data in enumerate([FILES[name] for name in sorted(FILES)]):
        np.testing.assert_array_equal(exact[index][0], decode(data, SIZE, 3, "exact")[0])
        np.testing.assert_array_equal(fast[index][0], decode(data, SIZE, 3, "fast")[0])
    assert fast.description == f"{exact.description}, fast decoding"
    assert fast.fingerprint == exact.fingerprint


def test_part_of_a_source_is_decoded_as_it_is_told(tmp_path):
    folder = str(write_folder(tmp_path / "x", FILES))
    exact, fast = (open_source(folder, resolution=SIZE, max_images=3, decoding=how) for how in ("exact", "fast"))
    assert np.abs(exact[0][0].astype(int) - fast[0][0]).max() > 0


def test_cache_keeps_the_decodings_apart(tmp_path, mode):
    folder, kept = str(write_folder(tmp_path / "x", FILES)), tmp_path / "kept"
    wanted = {how: contents(open_source(folder, resolution=SIZE, decoding=how)) for how in ("exact", "fast")}
    for how in ("exact", "fast", "exact", "fast"):
        found = open_source(folder, resolution=SIZE, decoding=how, cache=str(kept), notify=lambda line: None)
        assert contents(found) == wanted[how]
    assert len(list(kept.glob("*.npy"))) == 2


def test_key_of_exact_images_does_not_follow_the_rules_of_fast_ones(tmp_path, monkeypatch):
    folder, kept = str(write_folder(tmp_path / "x", FILES)), tmp_path / "kept"
    counts = []
    for version in (decoding.FAST_DECODING_VERSION, 99):
        monkeypatch.setattr(cache, "FAST_DECODING_VERSION", version)
        for how in ("exact", "fast"):
            open_source(folder, resolution=SIZE, decoding=how, cache=str(kept))
            counts.append(len(list(kept.glob("*.npy"))))
    assert counts == [1, 2, 2, 3]


def test_second_opening_decodes_nothing_and_maps_the_images(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "IN_MEMORY_BYTES", 0)
    folder, kept = str(write_folder(tmp_path / "x", FILES)), str(tmp_path / "kept")
    options = {"resolution": SIZE, "decoding": "fast", "cache": kept, "notify": lambda line: None}
    first = contents(open_source(folder, **options))

    def decode_nothing(*arguments):
        raise AssertionError("decoded again")

    monkeypatch.setattr("sagan_jax.data.encoded.decode", decode_nothing)
    second = open_source(folder, **options)
    assert contents(second) == first
    image = second[0][0]
    while isinstance(image, np.ndarray) and not isinstance(image, np.memmap):
        image = image.base
    assert isinstance(image, np.memmap)
