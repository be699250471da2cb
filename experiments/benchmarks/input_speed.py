"""Speed of reading training images: exact, fast, from the cache, and with a PyTorch `DataLoader` and Pillow.

    pip install torch numpy pillow  # perhaps into a separate environment
    unzip imagenet-sample.zip -d sample
    python experiments/benchmarks/input_speed.py sample --torch-python PATH

The images are a folder of class folders with JPEGs. Each reader makes batches of floats in [-1, 1], cropped to the
centre square and resized with a Lanczos filter. They run in turn, each in a process that is bound to as many cores as
it has workers. PyTorch has one worker process per core, ours one thread per core. Each is timed after its first
batches; by then the files are in memory. `cached` maps the decoded images on disk into memory, and verifies their
checksums.

It prints a line for each reader: the median over rounds of images per second and core, and the ratio to PyTorch's.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

READERS = ("exact", "fast", "cached", "torch")


def read_with_torch(folder: str, resolution: int, batch_size: int, workers: int, batches: int) -> float:
    """Returns the images per second of a `DataLoader` that opens, crops and resizes with Pillow."""
    import numpy as np
    import torch  # pyrefly: ignore[missing-import]
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset  # pyrefly: ignore[missing-import]

    torch.set_num_threads(1)
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    classes = {name: number for number, name in enumerate(sorted({path.parent.name for path in paths}))}

    class Images(Dataset):
        def __len__(self) -> int:
            return len(paths) * 1000  # so that workers are started only once, not in each epoch

        def __getitem__(self, index: int):
            path = paths[index % len(paths)]
            with Image.open(path) as opened:
                image = opened.convert("RGB")
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            image = image.crop((left, top, left + side, top + side))
            image = image.resize((resolution, resolution), Image.Resampling.LANCZOS)
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
            return pixels.float().div_(127.5).sub_(1), classes[path.parent.name]

    order = torch.randint(len(paths) * 1000, (batch_size * (batches + 2 * workers + 2),)).tolist()
    loader = DataLoader(Images(), batch_size, sampler=order, num_workers=workers, drop_last=True)
    return _images_per_second(iter(loader), batch_size, 2 * workers, batches)


def read_with_ours(
    folder: str, resolution: int, batch_size: int, workers: int, batches: int, reader: str, cache: str
) -> float:
    """Returns the images per second of `training_batches`."""
    from sagan_jax.data import open_source, sources, training_batches

    os.cpu_count = lambda: workers  # imitates a machine with this many cores
    sources.IN_MEMORY_BYTES = 0  # imitates a data set that is too large for memory
    source = open_source(
        folder,
        resolution=resolution,
        decoding="fast" if reader == "fast" else "exact",
        cache=cache if reader == "cached" else "",
        notify=lambda line: None,
    )
    warm_up = 4 * workers  # the number of prefetched batches
    steps = training_batches(
        source, batch_size=batch_size, discriminator_steps=1, seed=0, first_step=0, total_steps=batches + 2 * warm_up
    )
    try:
        return _images_per_second(steps, batch_size, warm_up, batches)
    finally:
        steps.close()


def _images_per_second(steps, batch_size: int, warm_up: int, batches: int) -> float:
    """Returns the speed of `batches` batches, after `warm_up` batches that are not timed."""
    for _ in range(warm_up):
        next(steps)
    start = time.perf_counter()
    for _ in range(batches):
        next(steps)
    return batches * batch_size / (time.perf_counter() - start)


def measure(reader: str, cores: int, given: argparse.Namespace, cache: str) -> float:
    """Returns the images per second of a reader in its own process, on `cores` cores."""
    batches = given.batches * (10 if reader == "cached" else 1) * cores
    python = given.torch_python if reader == "torch" else sys.executable
    options = [reader, given.folder, given.resolution, given.batch_size, cores, batches, cache]
    done = subprocess.run(
        [python, __file__, "--child", json.dumps(options)], stdout=subprocess.PIPE, text=True, check=True
    )
    return float(done.stdout)


def child(options: str) -> None:
    """Measures one reader in this process, and prints its images per second."""
    reader, folder, resolution, batch_size, cores, batches, cache = json.loads(options)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    if reader == "torch":
        speed = read_with_torch(folder, resolution, batch_size, cores, batches)
    else:
        speed = read_with_ours(folder, resolution, batch_size, cores, batches, reader, cache)
    print(speed)


def main() -> None:
    """Measures all readers in turn, and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="class folders of JPEGs")
    parser.add_argument("--torch-python", default=sys.executable, help="a Python with torch and Pillow")
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--batches", type=int, default=40, help="per reader and core; ten times as many if cached")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--wanted", type=float, default=2700, help="images per second that a device consumes")
    given = parser.parse_args()
    if max(given.cores) > (there := len(os.sched_getaffinity(0))):
        parser.error(f"--cores needs at most the {there} cores of this process; got {max(given.cores)}.")
    with tempfile.TemporaryDirectory() as cache:
        measure("cached", 1, argparse.Namespace(**vars(given) | {"batches": 1}), cache)  # fills the cache
        for cores in given.cores:
            found: dict[str, list[float]] = {reader: [] for reader in READERS}
            for _ in range(given.rounds):
                for reader in READERS:
                    found[reader].append(measure(reader, cores, given, cache) / cores)
            for reader, speeds in found.items():
                speed = statistics.median(speeds)
                ratio = statistics.median(ours / peer for ours, peer in zip(speeds, found["torch"], strict=True))
                print(
                    f"{cores} core(s), {reader:6}: {speed:8.1f} images/s a core ({min(speeds):.1f} to "
                    f"{max(speeds):.1f}), {ratio:6.2f} times torch; {given.wanted:,.0f} images/s need "
                    f"{given.wanted / speed:.1f} cores",
                    flush=True,
                )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2])
    else:
        main()
