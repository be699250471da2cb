import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, features

from sagan_jax.data import decoding, layouts, natural_resolution, open_source, sources
from sagan_jax.data.decoding import decode, decode_full_size, natural_size
from support.archives import write_folder, write_zip
from support.assertions import refusal
from support.images import encoded, noise

pytestmark = pytest.mark.one_jax

PIXELS = noise(7, 7, 3)
TINY = encoded(PIXELS)


def opened(path, **options):
    """Returns a source and its messages."""
    lines = []
    return open_source(str(path), **{"resolution": 7, "notify": lines.append, **options}), lines


# kinds of files


LOSSLESS = [
    ("PNG", {}),
    ("WEBP", {"lossless": True}),
    ("BMP", {}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("JPEG2000", {}),
    ("PPM", {}),
    ("QOI", {}),
    ("DIB", {}),
    ("PCX", {}),
    ("SGI", {}),
    ("DDS", {}),
]


@pytest.mark.parametrize(("kind", "options"), LOSSLESS)
def test_image_of_a_kind_without_loss_keeps_every_bit(kind, options):
    np.testing.assert_array_equal(decode(encoded(PIXELS, kind, **options), 7, 3)[0], PIXELS)


def test_avif_image_is_read():
    if not features.check("avif"):
        pytest.skip("Pillow was built without AVIF")
    smooth = np.full((16, 16, 3), (200, 90, 30), np.uint8)
    np.testing.assert_allclose(decode(encoded(smooth, "AVIF", quality=100), 16, 3)[0], smooth, atol=4)


@pytest.mark.parametrize("pack", [write_folder, write_zip])
def test_every_name_of_an_image_is_read(tmp_path, pack):
    names = [f"{number:02}{suffix}" for number, suffix in enumerate(layouts.IMAGE_SUFFIXES)]
    files = {name: encoded(noise(7, 7, 3, seed=number)) for number, name in enumerate(names)}
    source, lines = opened(pack(tmp_path / "x.zip", files))
    np.testing.assert_array_equal(
        [source[i][0] for i in range(len(source))], [noise(7, 7, 3, seed=i) for i in range(len(names))]
    )
    assert lines == []


@pytest.mark.parametrize("name", ["a.jfif", "a.BMP", "a.tif", "a.tiff", "a.gif", "a.avif", "a.jpe", "a.jp2", "a.ppm"])
def test_name_that_other_programs_give_an_image_counts_as_one(name):
    assert layouts.is_image(name)


def animation(kind, **options):
    """Returns an animation of three frames: red, green and blue."""
    frames = [Image.new("RGB", (6, 6), colour) for colour in ("red", "lime", "blue")]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)


RED = [[[255, 0, 0]] * 6] * 6


@pytest.mark.parametrize(
    ("kind", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {"compression": "raw"})]
)
def test_first_frame_of_an_animation_is_read(kind, options):
    image, traits = decode(animation(kind, **options), 6, 3)
    assert image.tolist() == RED
    assert traits.frames
    assert not traits.cmyk
    image, remarks = decode_full_size(animation(kind, **options), 3)
    assert image.tolist() == RED
    assert remarks[-1] == "the first of its frames read"


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_still_image_is_not_reported_as_animation(kind):
    assert not decode(encoded(PIXELS, kind), 6, 3)[1].frames


def test_photograph_with_a_preview_is_no_animation():
    assert not decode(animation("MPO"), 6, 3)[1].frames


def test_animation_whose_second_frame_is_damaged_gives_its_first():
    data = animation("GIF")
    second = data.index(b"\0\x2c", data.index(b"\0\x2c") + 1)
    image, traits = decode(data[: second + 7], 6, 3)
    assert image.tolist() == RED
    assert traits.frames


@pytest.mark.parametrize("in_memory", [10**9, 0])
@pytest.mark.parametrize("cached", [False, True])
def test_animations_are_said_once(tmp_path, in_memory, cached, monkeypatch):
    monkeypatch.setattr(sources, "IN_MEMORY_BYTES", in_memory)
    path = write_folder(tmp_path / "f", {"a.png": TINY, "b.gif": animation("GIF"), "c.gif": animation("GIF")})
    cache = str(tmp_path / "kept") if cached else ""
    for _ in range(2):
        source, lines = opened(path, cache=cache)
        assert [source[index][0][3, 3].tolist() for index in (1, 2, 1)] == [[255, 0, 0]] * 3
        said = [line for line in lines if "frames" in line]
        count = "2 of 3 images" if in_memory or cached else "images"
        assert said == [
            f"'{path}' has {count} with several frames or pages, such as 'b.gif'; the first of each is read"
        ]


def test_grey_levels_of_16_bits_are_scaled_in_every_kind():
    levels = np.array([[0, 257, 128 * 257], [200 * 257 + 128, 200 * 257 + 129, 65535], [1, 2, 3]], np.uint16)
    wanted = [[0, 1, 128], [200, 201, 255], [0, 0, 0]]
    for kind in ("PNG", "TIFF", "PPM", "JPEG2000"):
        assert decode(encoded(levels, kind), 3, 1)[0][:, :, 0].tolist() == wanted, kind


def with_tag(data, tag, value):
    """Returns a little-endian TIFF in which a tag of one short has the given value."""
    return data.replace(struct.pack("<HHI", tag, 3, 1) + data[data.index(struct.pack("<HHI", tag, 3, 1)) + 8 :][:2],
                        struct.pack("<HHIH", tag, 3, 1, value))  # fmt: skip


UNKNOWN = {
    "floating point": encoded(np.linspace(0, 1, 9, dtype=np.float32).reshape(3, 3), "TIFF"),
    "32 bits": encoded(np.arange(9, dtype=np.int32).reshape(3, 3), "TIFF"),
    "16 bits, white is zero": with_tag(encoded(np.arange(9, dtype=np.uint16).reshape(3, 3), "TIFF"), 262, 0),
    "12 bits": with_tag(encoded(np.arange(9, dtype=np.uint16).reshape(3, 3), "TIFF"), 258, 12),
    "portable float map": encoded(np.linspace(0, 1, 9, dtype=np.float32).reshape(3, 3), "PPM"),
}


@pytest.mark.parametrize("fault", UNKNOWN)
def test_grey_levels_of_an_unknown_range_are_refused(fault):
    for read in (decode_full_size, lambda data, channels: decode(data, 3, channels)):
        with pytest.raises(ValueError, match="range of its grey levels is unknown"):
            read(UNKNOWN[fault], 1)


def test_grey_with_alpha_in_a_tiff_is_laid_on_white():
    image = Image.merge("LA", [Image.new("L", (3, 3), 40), Image.new("L", (3, 3), 0)])
    data = encoded(image, "TIFF")
    assert np.unique(decode(data, 3, 3)[0]).tolist() == [255]
    multiplied = with_tag(data, 338, 1)
    assert np.unique(decode(multiplied, 3, 3)[0]).tolist() == [255]
    assert decode_full_size(multiplied, 3)[1] == ["grey converted to RGB", "transparency blended with white"]


@pytest.mark.parametrize("kind", ["EPS", "TGA", "ICO", "PDF"])
def test_image_of_a_kind_that_is_not_read_safely_has_another_format(kind):
    with pytest.raises(decoding.UnidentifiedImageError):
        decode(encoded(PIXELS, kind), 7, 3)


def test_animations_that_are_looked_through_for_unreadable_ones_are_said_once(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "IN_MEMORY_BYTES", 0)
    path = write_folder(tmp_path / "f", {"a.png": TINY, "b.gif": animation("GIF")})
    source, lines = opened(path, skip_unreadable=1)
    assert source[1][0].shape == (7, 7, 3)
    assert sum("frames" in line for line in lines) == 1


# what is not an image


@pytest.mark.parametrize("pack", [write_folder, write_zip])
@pytest.mark.parametrize("prefix", ["", "all/"])
def test_files_that_are_not_images_are_counted_in_one_line(tmp_path, pack, prefix):
    names = ["a/1.png", "b/2.png", "b/3.TXT", "a/4.txt", "a/README", "a/.hidden", "b/5.tga"]
    path = pack(tmp_path / "x.zip", {prefix + name: TINY for name in names} | {"notes.md": b""})
    source, lines = opened(path)
    assert (len(source), source.class_names) == (2, ("a", "b"))
    assert len(lines) == 1
    start, _, kinds = lines[0].rpartition(": ")
    assert start == f"'{path}': ignored 5 files that are not read as images"
    assert set(kinds.split(", ")) == {"2 .txt", "1 without a suffix", "1 .tga", "1 .md"}


def test_line_on_files_that_are_not_images_stays_short(tmp_path):
    files = {f"{number}.x{number}": b"" for number in range(9)} | {"a.png": TINY, "b.evil\x1b[31m": b""}
    (line,) = opened(write_folder(tmp_path, files))[1]
    assert line.endswith("5 more kinds")
    assert line.count(",") == 5
    assert "\x1b" not in line


# metadata


def app1(payload, data=None):
    """Returns a JPEG with `payload` as its EXIF block."""
    data = data or encoded(noise(8, 8, 3), "JPEG", quality=95)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + data[2:]


def exif(*entries):
    """Returns an EXIF block of the entries: tag, type, count and at most eight bytes."""
    offset, body, long = 8 + 2 + 12 * len(entries) + 4, b"", b""
    for tag, kind, count, value in entries:
        held = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", offset + len(long))
        long += value if len(value) > 4 else b""
        body += struct.pack("<HHI", tag, kind, count) + held
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + bytes(4) + long


ORIENTATION = (0x112, 3, 1, struct.pack("<H", 6))
TURNED = {
    "plain": exif(ORIENTATION),
    "twice": b"Exif\0\0" + exif(ORIENTATION),
    "a rational without a denominator": exif(ORIENTATION, (0x11A, 5, 1, struct.pack("<II", 1, 0))),
    "a rational for the maker": exif((0x10F, 5, 1, struct.pack("<II", 72, 1)), ORIENTATION),
    "a rational for the title": exif(ORIENTATION, (0x9C9B, 5, 1, struct.pack("<II", 72, 1))),
    "two orientations": exif((0x112, 3, 2, struct.pack("<HH", 6, 6))),
}
AS_IT_IS = {
    "empty": b"Exif\0\0",
    "junk": b"Exif\0\0" + bytes(range(40)),
    "an offset past the end": b"Exif\0\0II*\0" + struct.pack("<I", 60000),
    "an orientation as text": exif((0x112, 2, 2, b"6\0")),
    "an orientation of 99": exif((0x112, 3, 1, struct.pack("<H", 99))),
}


@pytest.mark.parametrize(
    ("case", "turned"), [*((case, True) for case in TURNED), *((case, False) for case in AS_IT_IS)]
)
def test_jpeg_with_odd_exif_keeps_its_pixels(case, turned):
    plain = decode(encoded(noise(8, 8, 3), "JPEG", quality=95), 8, 3)[0]
    data = app1((TURNED | AS_IT_IS)[case])
    for image in (decode(data, 8, 3)[0], decode_full_size(data, 3)[0]):
        np.testing.assert_array_equal(image, np.rot90(plain, -1) if turned else plain)


@pytest.mark.parametrize("payload", [b"\0\x08\0\x02\x01\x12\0\x03", b"", b"II*\0\xff\xff\xff\xff", exif(ORIENTATION)])
def test_png_with_odd_exif_keeps_its_pixels(payload):
    framed = struct.pack(">I", len(payload)) + b"eXIf" + payload + struct.pack(">I", zlib.crc32(b"eXIf" + payload))
    turned = np.rot90(PIXELS, -1) if payload.startswith(b"Exif") else PIXELS
    np.testing.assert_array_equal(decode(TINY[:33] + framed + TINY[33:], 7, 3)[0], turned)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_orientation_is_undone(orientation):
    tags = Image.Exif()
    tags[0x112] = orientation
    turns = [
        lambda x: x,
        np.fliplr,
        lambda x: np.rot90(x, 2),
        np.flipud,
        lambda x: x.swapaxes(0, 1),
        lambda x: np.rot90(x, -1),
        lambda x: np.rot90(x, 2).swapaxes(0, 1),
        np.rot90,
    ]
    for kind in ("PNG", "TIFF"):
        image = decode(encoded(PIXELS, kind, exif=tags), 7, 3)[0]
        np.testing.assert_array_equal(image, turns[orientation - 1](PIXELS))


def test_warnings_of_pillow_do_not_reach_stderr(tmp_path):
    odd = {f"{number}.jpg": app1(payload) for number, payload in enumerate((TURNED | AS_IT_IS).values())}
    odd["large.png"] = header_of_a_png(9500, 9500)
    odd["samples.tif"] = with_tag(encoded(PIXELS, "TIFF"), 277, 99)  # Pillow logs this
    write_folder(tmp_path / "f", odd)
    program = (
        f"from sagan_jax.data import open_source\n"
        f"open_source({str(tmp_path / 'f')!r}, resolution=8, skip_unreadable=2, notify=print)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True, env=os.environ
    )
    assert done.stderr == ""
    assert "'large.png', 'samples.tif'" in done.stdout


# the header decides


def header_of_a_png(width, height):
    """Returns a PNG with alpha that says it has `width` x `height` pixels and holds none."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0), b"IDAT", b"IEND")
    framed = (struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


HUGE = {
    "png": header_of_a_png(13_300, 13_300),
    "bmp": encoded(Image.new("1", (8, 8)), "BMP").replace(struct.pack("<ii", 8, 8), struct.pack("<ii", 13_300, 13_300)),
    "gif": b"GIF89a" + struct.pack("<HH", 13_300, 13_300) + encoded(Image.new("L", (8, 8)), "GIF")[10:],
    "ppm": b"P6 13300 13300 255\n",
    "qoi": b"qoif" + struct.pack(">IIBB", 13_300, 13_300, 4, 0) + bytes(9),
}


@pytest.mark.parametrize("kind", HUGE)
@pytest.mark.parametrize(
    "read",
    [lambda data: decode(data, 8, 3), lambda data: decode_full_size(data, 3), natural_size],
    ids=["decode", "decode_full_size", "natural_size"],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # pytest's own filters come first
def test_header_of_too_many_pixels_is_refused_before_anything_is_decoded(kind, read, monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("it was decoded"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: pytest.fail("it was decoded"))
    with pytest.raises(ValueError, match=r"13300 x 13300 pixels, more than 89,478,485"):
        read(HUGE[kind])


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # pytest's own filters come first
def test_first_image_of_too_many_pixels_has_no_natural_resolution(tmp_path):
    message = refusal(natural_resolution, str(write_folder(tmp_path, {"a.png": HUGE["png"]})))
    assert "13300 x 13300 pixels" in message
