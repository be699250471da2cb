"""Frames of an animation of training: a picture with its step above it."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_BAR_PIXELS = 3


def training_frame(picture: np.ndarray, step: int, last_step: int, *, pixels: int = 640) -> np.ndarray:
    """Returns a picture with a strip above it: its step, and a bar for the share of steps done.

    Args:
        picture: `[H, W, C]` uint8, C 1 or 3.
        step: steps done, at most `last_step`.
        last_step: the step at which the bar is as wide as the picture; at least 1.
        pixels: largest length of the longest side; a larger picture is made smaller.

    Returns:
        `[h + b, w, 3]` uint8, with a strip of b = max(16, w // 20) pixels above.
    """
    image = Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture).convert("RGB")
    if max(image.size) > pixels:
        shrunk = [max(1, side * pixels // max(image.size)) for side in image.size]
        image = image.resize((shrunk[0], shrunk[1]), Image.Resampling.LANCZOS)
    width, height = image.size
    line = max(16, width // 20)
    frame = Image.new("RGB", (width, height + line), "white")
    frame.paste(image, (0, line))
    draw = ImageDraw.Draw(frame)
    text = f"step {step:,}"
    draw.text((2, 0), text, fill="black", font=ImageFont.load_default(line - _BAR_PIXELS - 4))
    done = round(width * step / last_step)
    if done:
        draw.rectangle((0, line - _BAR_PIXELS, done - 1, line - 2), fill="black")
    return np.asarray(frame)
