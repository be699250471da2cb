"""Images per second of the FID network on a CPU: ours and torch-fidelity's in turn, on the same images and weights.

    pip install torch && pip install --no-deps torch-fidelity
    JAX_PLATFORMS=cpu python experiments/benchmarks/inception_speed.py --batch-sizes 8 16 32
    JAX_PLATFORMS=cpu taskset -c 0 python experiments/benchmarks/inception_speed.py     # one core each

Both resize uint8 images and return `2048` and `logits_unbiased`. The weights are random, since the speed does not
depend on them. Each line is for one batch size. It gives the median images a second of both over the rounds, and
the median of the ratio in a round. A ratio above 1 means that ours is faster. On a busy machine, threads that wait for
each other make torch look far slower than it is. In this case, compare on one core each.

Reached, on one core of a busy AMD EPYC with jaxlib 0.10.2 and torch 2.13.0, 32-pixel images: batch 8: 14.0 against 8.0
images a second, ratio 1.79; batch 16: 13.0 against 8.1, ratio 1.60. The largest difference of a feature is 7e-7.
"""

import argparse
import importlib
import importlib.util
import os
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from sagan_jax.cli.main import explained
from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.inception import inception_taps
from sagan_jax.interop.inception import published_shapes, to_variables

FEATURES = ("2048", "logits_unbiased")


def random_state_dict() -> dict[str, np.ndarray]:
    """Returns arrays of the published names and shapes, at a scale that keeps activations finite."""
    random = np.random.default_rng(0)
    state = {}
    for name, shape in published_shapes().items():
        scale = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
        offset = name.endswith(("running_var", "bn.weight"))
        state[name] = (offset + scale * random.standard_normal(shape)).astype(np.float32)
        if name.endswith("running_var"):
            state[name] = np.abs(state[name]) + np.float32(0.5)
    return state


def require_peer() -> list[str]:
    """Returns the folders of torch-fidelity.

    Raises:
        InvalidInputError: torch or torch-fidelity is not installed.
    """
    found = importlib.util.find_spec("torch_fidelity")
    if not importlib.util.find_spec("torch") or found is None or found.submodule_search_locations is None:
        raise InvalidInputError(
            "This benchmark needs torch and torch-fidelity: pip install torch && pip install --no-deps torch-fidelity"
        )
    return list(found.submodule_search_locations)


def build_torch_fidelity(folders: list[str], state: dict[str, np.ndarray]) -> Callable[[np.ndarray], list[np.ndarray]]:
    """Returns torch-fidelity's network as a function of uint8 images `[N, H, W, 3]`."""
    import torch  # pyrefly: ignore[missing-import]

    # The whole package imports torchvision, which the one module here does not need.
    package = types.ModuleType("torch_fidelity")
    package.__path__ = folders
    sys.modules["torch_fidelity"] = package
    module = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pth"
        torch.save({name: torch.from_numpy(array) for name, array in state.items()}, path)
        network = module.FeatureExtractorInceptionV3("inception", list(FEATURES), str(path))

    def features(images: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            return [tap.numpy() for tap in network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))]

    return features


def build_ours(state: dict[str, np.ndarray]) -> Callable[[np.ndarray], list[np.ndarray]]:
    """Returns our network as a function of uint8 images `[N, H, W, 3]`."""
    variables = jax.device_put(to_variables(state))

    @jax.jit
    def taps(variables: dict, images: jax.Array) -> list[jax.Array]:
        return [inception_taps(variables, images)[tap] for tap in FEATURES]

    return lambda images: [np.asarray(tap) for tap in taps(variables, images)]


def seconds(function: Callable[[np.ndarray], list[np.ndarray]], images: np.ndarray) -> float:
    """Returns how long one call takes."""
    start = time.perf_counter()
    function(images)
    return time.perf_counter() - start


def run(arguments: list[str]) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parsed = parser.parse_args(arguments)
    if min(*parsed.batch_sizes, parsed.image_size, parsed.rounds) < 1:
        raise InvalidInputError("--batch-sizes, --image-size and --rounds need to be at least 1.")
    folders = require_peer()
    import torch  # pyrefly: ignore[missing-import]

    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    state = random_state_dict()
    ours, theirs = build_ours(state), build_torch_fidelity(folders, state)
    print(f"{cores} cores, jax {jax.__version__} on {jax.default_backend()}, torch {torch.__version__}")
    for batch_size in parsed.batch_sizes:
        shape = (batch_size, parsed.image_size, parsed.image_size, 3)
        images = np.random.default_rng(batch_size).integers(0, 256, shape, dtype=np.uint8)
        pairs = zip(ours(images), theirs(images), strict=True)  # this also compiles
        difference = max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)
        times = [(seconds(ours, images), seconds(theirs, images)) for _ in range(parsed.rounds)]
        our_median, their_median = (statistics.median(each) for each in zip(*times, strict=True))
        ratio = statistics.median(theirs / ours for ours, theirs in times)
        print(
            f"batch {batch_size:3}: ours {batch_size / our_median:6.2f} images/s, torch-fidelity "
            f"{batch_size / their_median:6.2f} images/s, ratio {ratio:.2f}; largest difference {difference:.1e}"
        )


if __name__ == "__main__":
    sys.exit(explained(lambda: run(sys.argv[1:]), "inception_speed"))
