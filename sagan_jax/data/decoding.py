"""One image file, or one array, to uint8 `[R, R, C]`: the only code that opens an image decoder."""

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from sagan_jax.errors import one_line

DECODING_RULES = 1
"""To be raised whenever the same file would give other pixels: what was decoded before is then decoded again."""

LARGEST_FILE = 64 * 2**20
"""Bytes of one image file; larger ones are refused."""

MODES = {1: "L", 3: "RGB"}
"""What Pillow calls images of 1 and 3 channels."""

_KINDS = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey",
    "I": "16-bit grey",
    "I;16": "16-bit grey",
    "I;16B": "16-bit grey",
}
_KINDS |= {"RGBA": "RGB", "P": "RGB"}  # of a palette, with what it stands for

_FORMATS = ("PNG", "JPEG", "WEBP")  # Pillow knows 40 more; one of them hands the file to Ghostscript
_MOST_PIXELS = 89_478_485  # Pillow warns above this; here it is an error


def decode(data: bytes, resolution: int, image_channels: int) -> tuple[np.ndarray, bool]:
    """Returns the image in a PNG, JPEG or WebP file, and whether it was CMYK.

    The centre square, resized with Pillow's antialiased Lanczos filter unless it has the right size already. EXIF
    orientation is applied, transparency is laid on white, 16-bit grey is scaled by 1/257 (never clipped). CMYK becomes
    RGB by Pillow's formula, without the colour profile. The first picture of an animation is taken.

    Args:
        data: the bytes of the file.
        resolution: R, from 1 up.
        image_channels: C, 3 for RGB or 1 for grey (ITU-R 601 luma).

    Returns:
        uint8 `[R, R, C]`, and whether a conversion from CMYK was needed.

    Raises:
        Exception: of many kinds, when the file is none of the three or is damaged: decoders raise OSError, ValueError,
            SyntaxError, struct.error, zlib.error, .. ValueError when it has more than 89,478,485 pixels, which its
            header says before anything is decoded.
    """
    image, cmyk = _open(data, image_channels)
    return _to_array(_fit(image, resolution)), cmyk


def decode_whole(data: bytes, image_channels: int) -> tuple[np.ndarray, list[str]]:
    """Returns the image in a PNG, JPEG or WebP file in its own size, uint8 `[H, W, C]`, and what was done to it.

    Otherwise as `decode`; nothing was done where all pixels are as they were in the file.
    """
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        kind, wanted = (_KINDS.get(mode, mode) for mode in (image.mode, MODES[image_channels]))
        done = [f"{kind} made {wanted}"] if kind != wanted else []
        if image.has_transparency_data and (
            image.mode.startswith("I") or np.asarray(image.convert("RGBA"))[..., 3].min() < 255
        ):
            done.append("what is transparent laid on white")
    return _to_array(_open(data, image_channels)[0]), done


def why_unreadable(error: BaseException) -> str:
    """Returns what a decoder's error says of a file, in a few words for a person."""
    return "it is none" if isinstance(error, UnidentifiedImageError) else one_line(error)


def resize(array: np.ndarray, height: int, width: int, *, area: bool = False) -> np.ndarray:
    """Returns an image `[H, W, 1 or 3]`, uint8, in another size, by Lanczos or by the mean over each pixel's area."""
    image = Image.fromarray(array if array.shape[2] == 3 else array[:, :, 0])
    return _to_array(image.resize((width, height), Image.Resampling.BOX if area else Image.Resampling.LANCZOS))


def _open(data: bytes, image_channels: int) -> tuple[Image.Image, bool]:
    """Returns the image in a file, turned upright and without transparency, and whether it was CMYK."""
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        if image.width * image.height > _MOST_PIXELS:
            raise ValueError(f"it has {image.width} x {image.height} pixels, more than {_MOST_PIXELS:,}")
        plain = _on_white(ImageOps.exif_transpose(image))
        return plain.convert(MODES[image_channels]), image.mode == "CMYK"


def natural_size(data: bytes) -> int:
    """Returns the shorter side of the image in a PNG, JPEG or WebP file, from its header; raises as `decode`."""
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        return min(image.size)


def fit_array(array: np.ndarray, resolution: int, image_channels: int) -> np.ndarray:
    """Returns an image `[H, W, 1 or 3]`, uint8, as `[resolution, resolution, image_channels]`, just as `decode`."""
    image = Image.fromarray(array if array.shape[2] == 3 else array[:, :, 0])
    return _to_array(_fit(image.convert(MODES[image_channels]), resolution))


def _on_white(image: Image.Image) -> Image.Image:
    """Returns `image` without 16-bit grey and alpha, transparent parts laid on white."""
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


def _fit(image: Image.Image, resolution: int) -> Image.Image:
    """Returns the centre square of `image` at `resolution`; an odd margin is larger at the right and the bottom."""
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
