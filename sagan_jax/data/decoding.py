"""Decodes one image file, or fits one array, to uint8 `[R, R, C]`. No other module opens an image decoder."""

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from sagan_jax.errors import one_line

DECODING_VERSION = 1
"""Must increase whenever a file would decode to different pixels, so that cached images are decoded again."""

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
_KINDS |= {"RGBA": "RGB", "P": "RGB"}  # a palette image is read through its palette

_FORMATS = ("PNG", "JPEG", "WEBP")  # Pillow reads 40 more formats; one of them starts Ghostscript
_MAX_PIXELS = 89_478_485  # Pillow only warns above this size


def decode(data: bytes, resolution: int, image_channels: int) -> tuple[np.ndarray, bool]:
    """Returns the image in a PNG, JPEG or WebP file, and whether it was CMYK.

    The image is cropped to its centre square. It is resized with Pillow's antialiased Lanczos filter if its size
    differs from `resolution`. EXIF orientation is applied. Transparent pixels are blended with white. 16-bit grey is
    scaled by 1/257 and never clipped. CMYK becomes RGB by Pillow's formula, without the colour profile. Of an
    animation, the first frame is used.

    Args:
        data: the bytes of the file.
        resolution: R, at least 1.
        image_channels: C, 3 for RGB or 1 for grey (ITU-R 601 luma).

    Returns:
        The image, uint8 `[R, R, C]`, and whether it was converted from CMYK.

    Raises:
        ValueError: when the header states more than 89,478,485 pixels. Nothing is decoded then.
        Exception: when the file has another format or is damaged. Decoders raise many kinds of error, such as OSError,
            ValueError, SyntaxError, struct.error and zlib.error.
    """
    image, cmyk = _open(data, image_channels)
    return _to_array(_fit(image, resolution)), cmyk


def decode_full_size(data: bytes, image_channels: int) -> tuple[np.ndarray, list[str]]:
    """Returns the image in a PNG, JPEG or WebP file at its own size, and the conversions that changed its pixels.

    Conversions and errors are those of `decode`.

    Args:
        data: the bytes of the file.
        image_channels: C, 3 for RGB or 1 for grey.

    Returns:
        The image, uint8 `[H, W, C]`, and a list of short descriptions. The list is empty when no pixel was changed.
    """
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        kind, wanted = (_KINDS.get(mode, mode) for mode in (image.mode, MODES[image_channels]))
        done = [f"{kind} converted to {wanted}"] if kind != wanted else []
        if image.has_transparency_data and (
            image.mode.startswith("I") or np.asarray(image.convert("RGBA"))[..., 3].min() < 255
        ):
            done.append("transparency blended with white")
    return _to_array(_open(data, image_channels)[0]), done


def unreadable_reason(error: BaseException) -> str:
    """Returns the reason in a decoder's error, in a few words for the user."""
    return "it has another format" if isinstance(error, UnidentifiedImageError) else one_line(error)


def resize(array: np.ndarray, height: int, width: int, *, area: bool = False) -> np.ndarray:
    """Returns an image `[H, W, 1 or 3]`, uint8, at another size: by a Lanczos filter, or by area averaging."""
    image = Image.fromarray(array if array.shape[2] == 3 else array[:, :, 0])
    return _to_array(image.resize((width, height), Image.Resampling.BOX if area else Image.Resampling.LANCZOS))


def _open(data: bytes, image_channels: int) -> tuple[Image.Image, bool]:
    """Returns the image in a file, upright and without transparency, and whether it was CMYK."""
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        if image.width * image.height > _MAX_PIXELS:
            raise ValueError(f"it has {image.width} x {image.height} pixels, more than {_MAX_PIXELS:,}")
        plain = _on_white(ImageOps.exif_transpose(image))
        return plain.convert(MODES[image_channels]), image.mode == "CMYK"


def natural_size(data: bytes) -> int:
    """Returns the shorter side of an image file, from its header, in pixels. Raises the errors of `decode`."""
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        return min(image.size)


def fit_array(array: np.ndarray, resolution: int, image_channels: int) -> np.ndarray:
    """Returns an image `[H, W, 1 or 3]`, uint8, cropped, resized and converted as in `decode`: uint8 `[R, R, C]`."""
    image = Image.fromarray(array if array.shape[2] == 3 else array[:, :, 0])
    return _to_array(_fit(image.convert(MODES[image_channels]), resolution))


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
