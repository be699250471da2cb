"""Decoding of an image file, or fitting of an array, to uint8 `[R, R, C]`. No other module opens an image decoder."""

import contextlib
import io
import logging
import math
import re
import warnings
from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile, get_sampling

from sagan_jax.errors import one_line

DECODING_VERSION = 2
"""Must be increased when files decode to different pixels, so that cached images are decoded again."""

Decoding = Literal["exact", "fast"]
"""How JPEGs are decoded: at full size, or downscaled by the decoder if the image is much larger than needed."""

DECODINGS: tuple[Decoding, ...] = get_args(Decoding)
"""All values of `Decoding`."""

FAST_DECODING_VERSION = 1
"""The same as `DECODING_VERSION` for changes of `fast` decoding only."""

MAX_FILE_BYTES = 64 * 2**20
"""The largest accepted size of an image file in bytes."""

MODES = {1: "L", 3: "RGB"}
"""Pillow's names for images with 1 and 3 channels."""

_KINDS = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey",
    "I": "16-bit grey",
    "I;16": "16-bit grey",
    "I;16B": "16-bit grey",
}
_KINDS |= {"La": "grey", "RGBa": "RGB", "RGBA": "RGB", "P": "RGB", "PA": "RGB"}  # a palette is converted to colours

# Pillow reads 25 more formats. One starts Ghostscript. Some are detected only by the file name (TGA). An icon may hold
# an image larger than its header states. Others hold drawings or measurements. JPEG includes MPO, and PPM includes PBM,
# PGM and PNM.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM", "QOI", "DIB", "PCX", "SGI", "DDS")
_FORMATS += ("PSD",)
_MAX_PIXELS = 89_478_485  # Pillow only warns above this size

# The minimum size of a downscaled JPEG relative to the wanted size. Half of 375 pixels, the usual side in ImageNet, is
# 1.46 x 128. A larger factor would decode most of ImageNet at full size, and a smaller one causes larger errors: see
# docs/data.md.
_SPARE_SIZE = 1.25

# 4:4:4 and 4:2:0. For 4:2:2, libjpeg downscales chroma further than luma, and shifts it by half a pixel at 1/8.
_EVEN_SAMPLING = (0, 2)

_ROTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MIRRORED_X = (2, 3, 7, 8)  # orientations that move the left side of the file to the right or the bottom
_MIRRORED_Y = (3, 4, 6, 7)

# A filter for Pillow's warnings about metadata and palettes, in the form in which `warnings.filterwarnings` stores it.
_ODD_METADATA = ("ignore", None, UserWarning, re.compile(r"PIL\."), 0)

TiffImagePlugin.logger.setLevel(logging.CRITICAL)  # it logs an error that it also raises


class Traits(NamedTuple):
    """Properties of a decoded image that the user may want to know."""

    cmyk: bool
    """whether it was converted from CMYK"""
    frames: bool
    """whether it has several frames or pages, of which the first was read"""


def decode(
    data: bytes, resolution: int, image_channels: int, decoding: Decoding = "exact"
) -> tuple[np.ndarray, Traits]:
    """Returns the image in a file, and its traits.

    The file is a PNG, JPEG, WebP, BMP, GIF, TIFF, AVIF, JPEG 2000, PPM, QOI, DIB, PCX, SGI, DDS or PSD file with any
    name.

    The image is cropped to its centre square. It is resized with Pillow's antialiased Lanczos filter if its size
    differs from `resolution`. EXIF orientation is applied; metadata that cannot be read are ignored. Transparent pixels
    are blended with white. 16-bit grey is scaled by 1/257 and never clipped. CMYK becomes RGB by Pillow's formula,
    without the colour profile. Of several frames or pages, the first is used.

    With `fast`, libjpeg decodes a JPEG at 1/2, 1/4 or 1/8 of its size if its shorter side is then still at least 1.25
    times `resolution`. The crop is the same up to a fraction of a pixel. Pixels differ by 1 to 2 grey levels on
    average. All other files are decoded exactly, as are JPEGs in CMYK or with 4:2:2 chroma subsampling.

    Args:
        data: the bytes of the file.
        resolution: R, at least 1.
        image_channels: C, 3 for RGB or 1 for grey (ITU-R 601 luma).
        decoding: `exact` or `fast`.

    Returns:
        The image, uint8 `[R, R, C]`, and its traits.

    Raises:
        ValueError: when the header states more than 89,478,485 pixels, or grey levels of an unknown range: floating
            point, 32 bits or signed. It is raised before decoding.
        Exception: when the file has another format or is damaged. Decoders raise many kinds of error, such as OSError,
            ValueError, SyntaxError, struct.error and zlib.error.
    """
    mode = MODES[image_channels]
    with _opened(data) as image:
        divisor = _divisor(image, resolution) if decoding == "fast" else 1
        if divisor > 1:
            fitted = _fit_reduced(image, divisor, resolution, mode)
        else:
            fitted = _fit(_in_mode(_on_white(_upright(image)), mode), resolution)
        traits = Traits(image.mode == "CMYK", _has_frames(image))
    return _to_array(fitted), traits


def decode_full_size(data: bytes, image_channels: int) -> tuple[np.ndarray, list[str]]:
    """Returns the image in a file at its original size, and the conversions that changed its pixels.

    Formats, conversions and errors are those of `decode`.

    Args:
        data: the bytes of the file.
        image_channels: C, 3 for RGB or 1 for grey.

    Returns:
        The image, uint8 `[H, W, C]`, and a list of short descriptions. The list is empty when no pixel was changed.
    """
    with _opened(data) as image:
        kind, wanted = (_KINDS.get(mode, mode) for mode in (image.mode, MODES[image_channels]))
        done = [f"{kind} converted to {wanted}"] if kind != wanted else []
        upright = _upright(image)
        if upright.has_transparency_data and (
            upright.mode.startswith("I") or np.asarray(upright.convert("RGBA"))[..., 3].min() < 255
        ):
            done.append("transparency blended with white")
        plain = _on_white(upright).convert(MODES[image_channels])
        if _has_frames(image):
            done.append("the first of its frames read")
    return _to_array(plain), done


def unreadable_reason(error: BaseException) -> str:
    """Returns a short description of a decoder's error for the user."""
    return "it has another format" if isinstance(error, UnidentifiedImageError) else one_line(error)


def resize(array: np.ndarray, height: int, width: int, *, area: bool = False) -> np.ndarray:
    """Returns an image `[H, W, 1 or 3]`, uint8, at another size: by a Lanczos filter, or by area averaging."""
    image = Image.fromarray(array if array.shape[2] == 3 else array[:, :, 0])
    return _to_array(image.resize((width, height), Image.Resampling.BOX if area else Image.Resampling.LANCZOS))


@contextlib.contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    """Opens the image in a file and reads only its header. Closes it at the end of the block.

    Raises:
        ValueError: when the header states too many pixels, or grey levels of an unknown range.
        Exception: when the file has another format, or its header is damaged.
    """
    if _ODD_METADATA not in warnings.filters:  # before other filters, so that a warning never becomes an error
        warnings.filterwarnings("ignore", category=UserWarning, module=_ODD_METADATA[3].pattern)
    # After all other filters, so that a program that turns this warning into an error still gets the error.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning, module=r"PIL\.", append=True)
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        if image.width * image.height > _MAX_PIXELS:
            raise ValueError(f"it has {image.width} x {image.height} pixels, more than {_MAX_PIXELS:,}")
        if _unknown_range(image):
            raise ValueError("the range of its grey levels is unknown; save it with 8 bits, or with 16 unsigned bits")
        yield image


def _unknown_range(image: Image.Image) -> bool:
    """Returns whether the white level of `image` is unknown: floating point, or a TIFF with 12 or 32 bits."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile) or not image.mode.startswith("I"):
        return image.mode == "F"
    bits = np.ravel(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, 1)).tolist()
    # Pillow does not invert 16-bit grey images in which 0 is white.
    inverted = image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
    return image.mode == "I" or bits != [16] or inverted


def _upright(image: Image.Image) -> Image.Image:
    """Returns `image`, decoded and rotated by its EXIF orientation, if that is readable.

    Premultiplied alpha, as in some TIFF files, is converted to straight alpha.
    """
    image.load()
    rotation = _ROTATIONS.get(_orientation(image))
    turned = image if rotation is None else image.transpose(rotation)
    return turned.convert(turned.mode.upper()) if turned.mode in ("La", "RGBa") else turned


def _orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation of `image`, or 1 if it has no readable one."""
    # `ImageOps.exif_transpose` also rewrites the metadata, which fails for many images that can be read.
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged metadata raise SyntaxError, struct.error, TypeError, ..; the pixels are intact
        return 1
    return orientation if orientation in _ROTATIONS else 1


def _has_frames(image: Image.Image) -> bool:
    """Returns whether a decoded image has several frames. In an MPO, the others are depth maps and previews."""
    try:
        return image.format != "MPO" and bool(getattr(image, "is_animated", False))
    except Exception:  # the second frame is damaged; it is not read
        return True


def natural_size(data: bytes) -> int:
    """Returns the shorter side of an image file, from its header, in pixels. Raises the errors of `decode`."""
    with _opened(data) as image:
        return min(image.size)


def plain_array(image: Image.Image) -> np.ndarray:
    """Returns a Pillow image of any mode at its original size: uint8 `[H, W, 1]` for grey, else `[H, W, 3]`.

    It is rotated, blended with white and converted as in `decode`.

    Raises:
        ValueError: when it has grey levels of an unknown range: floating point or 32 bits.
        Exception: when its file is damaged, or has been closed.
    """
    if image.mode == "F" or image.mode == "I" or _unknown_range(image):
        raise ValueError("the range of its grey levels is unknown; give 8 bits, or 16 unsigned bits")
    plain = _on_white(_upright(image))
    return _to_array(_in_mode(plain, "L" if plain.mode in ("1", "L") else "RGB"))


def fit_array(array: np.ndarray, resolution: int, image_channels: int) -> np.ndarray:
    """Returns an image `[H, W, 1 or 3]`, uint8, cropped, resized and converted as in `decode`: uint8 `[R, R, C]`."""
    image = Image.fromarray(array if array.shape[2] == 3 else array[:, :, 0])
    return _to_array(_fit(_in_mode(image, MODES[image_channels]), resolution))


def _on_white(image: Image.Image) -> Image.Image:
    """Returns `image` with 8-bit channels and without alpha; transparent pixels are blended with white."""
    transparent = image.info.get("transparency")
    if image.mode.startswith("I"):  # 16-bit grey; `convert` would clip at 255
        grey = np.asarray(image).astype(np.float32) / 257
        if transparent is not None:
            grey[np.asarray(image) == transparent] = 255
        return Image.fromarray(np.rint(grey).astype(np.uint8))
    if transparent is not None or image.mode in ("LA", "PA", "RGBA"):
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    """Returns `image` converted to a mode. Returns it without a copy if it already has that mode."""
    return image if image.mode == mode else image.convert(mode)


def _divisor(image: Image.Image, resolution: int) -> int:
    """Returns the factor by which libjpeg may downscale `image` for `resolution`: 8, 4, 2 or 1."""
    if not isinstance(image, JpegImageFile) or image.mode not in ("RGB", "L"):
        return 1
    if image.mode == "RGB" and get_sampling(image) not in _EVEN_SAMPLING:
        return 1
    return next((divisor for divisor in (8, 4, 2) if min(image.size) >= divisor * _SPARE_SIZE * resolution), 1)


def _fit_reduced(image: Image.Image, divisor: int, resolution: int, mode: str) -> Image.Image:
    """Returns the centre square of an undecoded JPEG at `resolution`, from an image that libjpeg downscales.

    The square is the same as in `_fit`, so its corners may lie inside a downscaled pixel. The size of the downscaled
    image is rounded up, so it may be larger than the original by a fraction of a pixel.
    """
    orientation, side = _orientation(image), min(image.size)
    corner = [
        (extent - side + mirrored) // 2  # after the rotation, an odd margin is larger at the right and the bottom
        for extent, mirrored in zip(image.size, (orientation in _MIRRORED_X, orientation in _MIRRORED_Y), strict=True)
    ]
    image.draft(image.mode, (image.width // divisor, image.height // divisor))
    first = [start // divisor for start in corner]
    last = [math.ceil((start + side) / divisor) for start in corner]
    left, top = (start / divisor - low for start, low in zip(corner, first, strict=True))
    square = _in_mode(image.crop((first[0], first[1], last[0], last[1])), mode)
    box = (left, top, left + side / divisor, top + side / divisor)
    fitted = square.resize((resolution, resolution), Image.Resampling.LANCZOS, box=box)
    rotation = _ROTATIONS.get(orientation)
    return fitted if rotation is None else fitted.transpose(rotation)


def _fit(image: Image.Image, resolution: int) -> Image.Image:
    """Returns the centre square of `image` at `resolution`. An odd margin is larger at the right and the bottom."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    if image.width != image.height:
        image = image.crop((left, top, left + side, top + side))
    if side != resolution:
        image = image.resize((resolution, resolution), Image.Resampling.LANCZOS)
    return image


def _to_array(image: Image.Image) -> np.ndarray:
    array = np.array(image)
    return array if array.ndim == 3 else array[:, :, None]
