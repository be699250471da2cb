"""Draws where a generator of CIFAR-10 images looks: `python docs/attention_picture.py GENERATOR.npz`.

GENERATOR.npz holds the arrays of `generator.safetensors`, as `sagan-jax export` writes it, of a network with class
maps. The picture of the manual is of a class-conditional SAGAN of width 64 with attention at 16x16, after 15,793 steps.
"""

import io
import sys
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import unflatten_dict
from PIL import Image

from sagan_jax.evaluation import TrainedGenerator, generator_attention
from sagan_jax.models.sagan import Generator
from sagan_jax.views.attention import Panel, attention_figure

OUT = Path(__file__).resolve().parent / "pictures" / "cifar10_attention.png"

# The class and the number of each image among the samples of seed 0, and x and y of its positions, in pixels.
SHOWN = {
    "ship": (8, 5, ((6, 5), (27, 9), (15, 17), (15, 28))),
    "ship (2)": (8, 15, ((5, 4), (16, 12), (9, 19), (20, 28))),
    "car": (1, 3, ((4, 4), (14, 13), (23, 20), (5, 28))),
}


def main(file: str) -> None:
    """Writes the picture."""
    with np.load(file) as arrays:
        params = unflatten_dict({tuple(name.split("/")): arrays[name].astype(np.float32) for name in arrays.files})
    network = Generator(
        resolution=32,
        num_classes=10,
        base_channels=64,
        attention_resolutions=(16,),
        conditional_gain="map",
        folded=True,
    )
    trained = TrainedGenerator(network, {"params": params}, latent_size=128, num_classes=10, step=15_793, averaged=True)
    rows = []
    for name, (label, number, queries) in SHOWN.items():
        latents = trained.latents(jax.random.key(0), np.array([10 * number + label]))
        record = generator_attention(trained, latents, np.array([label], np.int32))
        (layer,) = record.layers
        positions = [y // 2 * 16 + x // 2 for x, y in queries]
        weights = layer.attention_map[0, positions].reshape(-1, *layer.key_shape)
        panel = Panel(f"gamma {layer.gamma:.2f}", weights)
        picture = io.BytesIO()
        attention_figure(record.images[0], queries, [panel], title=name.partition(" ")[0]).savefig(picture, dpi=110)
        rows.append(Image.open(picture).convert("RGB"))
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    sheet.quantize(256).save(OUT, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
