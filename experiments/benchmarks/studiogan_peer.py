"""StudioGAN's SAGAN in PyTorch, a plain rewrite with the speed of the published code: the peer of our training step.

It runs in a Python with PyTorch, started by `step_vs_studiogan.py`, and needs nothing else. It reimplements the design
of POSTECH-CVLab/PyTorch-StudioGAN (src/models/resnet.py, src/utils/ops.py, src/worker.py): residual blocks with 1x1
shortcuts at the larger size, batch norm whose gain and bias are linear maps of the one-hot label, pooled attention,
projection of the label, spectral norm of every layer, in-place ReLU, hinge loss, Adam.

Variants: `float32`; `channels-last`, the same with that memory layout; `bfloat16`, autocast with that layout.
"""

import argparse
import platform
import sys
import time
from collections.abc import Iterable

from worker import Work, read_work, serve

try:
    import torch  # pyrefly: ignore[missing-import]
    from torch import Tensor, nn  # pyrefly: ignore[missing-import]
    from torch.nn import functional  # pyrefly: ignore[missing-import]
    from torch.nn.utils import spectral_norm  # pyrefly: ignore[missing-import]
except ImportError as error:
    sys.exit(f"the peer needs a Python with PyTorch; {sys.executable} has none ({error}): give another --torch-python")

VARIANTS = ("float32", "channels-last", "bfloat16")

# Channels in multiples of the width: for G at 4x4 and after each block; for D after each block.
GENERATOR = {32: (4, 4, 4, 4), 64: (16, 8, 4, 2, 1), 128: (16, 16, 8, 4, 2, 1), 256: (16, 16, 8, 8, 4, 2, 1)}
DISCRIMINATOR = {32: (2, 2, 2, 2), 64: (1, 2, 4, 8, 16), 128: (1, 2, 4, 8, 16, 16), 256: (1, 2, 4, 8, 8, 16, 16)}
KEPT = {32: 2}
"""Number of the last blocks of D that keep the size of the map, by resolution; one for other resolutions."""


def normalized(layer: nn.Module) -> nn.Module:
    """Returns a layer with a spectrally normalised weight, Xavier-uniform, and a bias that starts at zero."""
    nn.init.xavier_uniform_(layer.weight)
    if getattr(layer, "bias", None) is not None:
        nn.init.zeros_(layer.bias)
    return spectral_norm(layer, eps=1e-6)


def convolution(inputs: int, outputs: int, size: int, bias: bool = True) -> nn.Module:
    """Returns a convolution that keeps the size of the map."""
    return normalized(nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=bias))


class ConditionalNorm(nn.Module):
    """Batch norm; gain - 1 and bias are linear maps of the one-hot label."""

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, eps=1e-4, affine=False)
        self.gain = normalized(nn.Linear(classes, channels, bias=False))
        self.bias = normalized(nn.Linear(classes, channels, bias=False))

    def forward(self, features: Tensor, one_hot: Tensor) -> Tensor:
        """Returns features of the same shape."""
        gain, bias = 1 + self.gain(one_hot), self.bias(one_hot)
        return self.norm(features) * gain[:, :, None, None] + bias[:, :, None, None]


class Attention(nn.Module):
    """Self-attention with pooled keys of C/8 channels and pooled values of C/2; computes the map explicitly."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        keys, values = max(1, channels // 8), max(1, channels // 2)
        self.query = convolution(channels, keys, 1, bias=False)
        self.key = convolution(channels, keys, 1, bias=False)
        self.value = convolution(channels, values, 1, bias=False)
        self.output = convolution(values, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, features: Tensor) -> Tensor:
        """Returns features of the same shape."""
        queries = self.query(features).flatten(2)
        keys = functional.max_pool2d(self.key(features), 2).flatten(2)
        weights = torch.bmm(queries.transpose(1, 2), keys).softmax(-1)
        values = functional.max_pool2d(self.value(features), 2).flatten(2)
        attended = torch.bmm(values, weights.transpose(1, 2)).unflatten(2, features.shape[2:])
        return features + self.gamma * self.output(attended)


class GeneratorBlock(nn.Module):
    """A residual block that doubles the size of the map."""

    def __init__(self, inputs: int, outputs: int, classes: int) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = ConditionalNorm(classes, inputs), ConditionalNorm(classes, outputs)
        self.conv_1, self.conv_2 = convolution(inputs, outputs, 3), convolution(outputs, outputs, 3)
        self.shortcut = convolution(inputs, outputs, 1)

    def forward(self, features: Tensor, one_hot: Tensor) -> Tensor:
        """Returns `[B, outputs, 2H, 2W]`."""
        hidden = functional.interpolate(functional.relu_(self.norm_1(features, one_hot)), scale_factor=2)
        hidden = self.conv_2(functional.relu_(self.norm_2(self.conv_1(hidden), one_hot)))
        return hidden + self.shortcut(functional.interpolate(features, scale_factor=2))


class Generator(nn.Module):
    """G: latents and one-hot labels to images."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        first, *widths = (work.width * width for width in GENERATOR[work.resolution])
        self.first, self.linear = first, normalized(nn.Linear(work.latent, 16 * first))
        self.blocks, self.attention, inputs = nn.ModuleList(), nn.ModuleDict(), first
        for number, outputs in enumerate(widths):
            self.blocks.append(GeneratorBlock(inputs, outputs, work.classes))
            if 8 * 2**number == work.attention:
                self.attention[str(number)] = Attention(outputs)
            inputs = outputs
        self.norm, self.conv = nn.BatchNorm2d(inputs, eps=1e-4), convolution(inputs, 3, 3)

    def forward(self, latents: Tensor, one_hot: Tensor) -> Tensor:
        """Returns `[B, 3, resolution, resolution]`."""
        features = self.linear(latents).unflatten(1, (self.first, 4, 4))
        for number, block in enumerate(self.blocks):
            features = block(features, one_hot)
            if str(number) in self.attention:
                features = self.attention[str(number)](features)
        return torch.tanh(self.conv(functional.relu_(self.norm(features))))


class DiscriminatorBlock(nn.Module):
    """A residual block that halves the size of the map, or keeps it.

    The first block has no initial ReLU. In later blocks the shortcut starts after that ReLU.
    """

    def __init__(self, inputs: int, outputs: int, *, first: bool, halves: bool) -> None:
        super().__init__()
        self.first, self.halves = first, halves
        self.conv_1, self.conv_2 = convolution(inputs, outputs, 3), convolution(outputs, outputs, 3)
        self.shortcut = convolution(inputs, outputs, 1) if halves or inputs != outputs else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """Returns `[B, outputs, H / 2, W / 2]`, or with the size of the features."""
        shortcut = features if self.first else functional.relu_(features)
        hidden = self.conv_2(functional.relu_(self.conv_1(shortcut)))
        if self.halves:
            hidden = functional.avg_pool2d(hidden, 2)
        if self.first:
            return hidden + self.shortcut(functional.avg_pool2d(features, 2))
        shortcut = self.shortcut(shortcut)
        return hidden + (functional.avg_pool2d(shortcut, 2) if self.halves else shortcut)


class Discriminator(nn.Module):
    """D: images and labels to one logit per image."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        widths = [work.width * width for width in DISCRIMINATOR[work.resolution]]
        self.blocks, self.attention, size, inputs = nn.ModuleList(), nn.ModuleDict(), work.resolution, 3
        for number, outputs in enumerate(widths):
            halves = number < len(widths) - KEPT.get(work.resolution, 1)
            self.blocks.append(DiscriminatorBlock(inputs, outputs, first=number == 0, halves=halves))
            inputs, size = outputs, size // 2 if halves else size
            if halves and size == work.attention:
                self.attention[str(number)] = Attention(outputs)
        self.linear = normalized(nn.Linear(inputs, 1))
        self.embedding = normalized(nn.Embedding(work.classes, inputs))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Returns `[B]`."""
        features = images
        for number, block in enumerate(self.blocks):
            features = block(features)
            if str(number) in self.attention:
                features = self.attention[str(number)](features)
        pooled = functional.relu_(features).sum((2, 3))
        return self.linear(pooled).squeeze(1) + (self.embedding(labels) * pooled).sum(1)


class Training:
    """Both networks, their optimisers, and the step."""

    def __init__(self, work: Work, variant: str) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.backends.cudnn.benchmark = True
        self.work, self.low = work, variant == "bfloat16"
        layout = torch.contiguous_format if variant == "float32" else torch.channels_last
        self.generator = Generator(work).to(self.device, memory_format=layout)
        self.discriminator = Discriminator(work).to(self.device, memory_format=layout)
        shape = (work.batch, 3, work.resolution, work.resolution)
        self.images = (2 * torch.rand(shape, device=self.device) - 1).contiguous(memory_format=layout)
        self.labels = self.draw_labels()
        rates = (self.generator, 1e-4), (self.discriminator, 4e-4)
        self.optimizers = [
            torch.optim.Adam(network.parameters(), rate, betas=(0.0, 0.9), eps=1e-6) for network, rate in rates
        ]

    def draw_labels(self) -> Tensor:
        """Returns `[B]`."""
        return torch.randint(self.work.classes, (self.work.batch,), device=self.device)

    def generate(self) -> tuple[Tensor, Tensor]:
        """Returns images for new random latents and labels, and the labels."""
        latents, labels = torch.randn(self.work.batch, self.work.latent, device=self.device), self.draw_labels()
        return self.generator(latents, functional.one_hot(labels, self.work.classes).float()), labels

    def set_trained(self, trained: nn.Module, fixed: nn.Module) -> None:
        """Enables gradients for one network and disables them for the other."""
        trained.requires_grad_(True)
        fixed.requires_grad_(False)

    def set_tracking(self, tracked: bool) -> None:
        """Sets whether G's norms update their running moments."""
        for module in self.generator.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.track_running_stats = tracked

    def step(self) -> None:
        """Takes one update of D, on real and on generated images, and one of G."""
        generator_optimizer, discriminator_optimizer = self.optimizers
        self.set_trained(self.discriminator, self.generator)
        self.set_tracking(False)
        discriminator_optimizer.zero_grad()
        with torch.autocast(self.device, torch.bfloat16, enabled=self.low):
            images, labels = self.generate()
            real, fake = self.discriminator(self.images, self.labels), self.discriminator(images, labels)
            loss = functional.relu(1 - real).mean() + functional.relu(1 + fake).mean()
        loss.backward()
        discriminator_optimizer.step()
        self.set_trained(self.generator, self.discriminator)
        self.set_tracking(True)
        generator_optimizer.zero_grad()
        with torch.autocast(self.device, torch.bfloat16, enabled=self.low):
            loss = -self.discriminator(*self.generate()).mean()
        loss.backward()
        generator_optimizer.step()

    def wait(self) -> None:
        """Waits for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def seconds(self, steps: int) -> float:
        """Returns the seconds of a number of steps in a row."""
        self.wait()
        start = time.perf_counter()
        for _ in range(steps):
            self.step()
        self.wait()
        return time.perf_counter() - start

    def memory(self) -> dict[str, int | None]:
        """Returns the peak number of bytes in use; None on a CPU, where PyTorch does not count them."""
        return {"bytes": torch.cuda.max_memory_allocated() if self.device == "cuda" else None}

    def peak(self) -> dict[str, float]:
        """Returns the GFLOP/s of a large matrix product, by dtype; see `product`."""
        return {str(kind).removeprefix("torch."): self.product(kind) for kind in (torch.float32, torch.bfloat16)}

    def product(self, kind: torch.dtype) -> float:
        """Returns the GFLOP/s of a product of two square matrices, the best of six."""
        size = 8192 if self.device == "cuda" else 2048
        one, other = (torch.randn(size, size, device=self.device).to(kind) for _ in range(2))

        def once() -> float:
            self.wait()
            start = time.perf_counter()
            one @ other
            self.wait()
            return time.perf_counter() - start

        return 2e-9 * size**3 / min(once() for _ in range(6))


def parameter_count(networks: Iterable[nn.Module]) -> int:
    """Returns the number of trainable parameters."""
    return sum(parameter.numel() for network in networks for parameter in network.parameters())


def main() -> None:
    """Takes the first step, and then serves requests."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", choices=VARIANTS, required=True)
    work, given = read_work(parser, sys.argv[1:])
    training = Training(work, given.variant)
    training.step()
    facts = {
        "library": f"PyTorch {torch.__version__}",
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if training.device == "cuda" else "cpu",
        "parameters": parameter_count((training.generator, training.discriminator)),
    }
    serve(facts, {"step": training.seconds, "memory": training.memory, "peak": training.peak})


if __name__ == "__main__":
    main()
