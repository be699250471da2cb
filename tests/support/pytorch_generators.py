"""The generators of two PyTorch code bases in plain array operations: what a conversion has to agree with."""

import jax
import numpy as np

_STUDIOGAN = {
    "first": "linear0",
    "shortcut": "conv2d0",
    "conv_1": "conv2d1",
    "conv_2": "conv2d2",
    "norm": "bn4",
    "gain": "weight",
    "conv": "conv2d5",
    "mean": ("bn.running_mean", "bn.running_var"),
    "last": ("running_mean", "running_var"),
    "attention": ("conv1x1_theta", "conv1x1_phi", "conv1x1_g", "conv1x1_attn", "sigma"),
}
_BIGGAN = {
    "first": "linear",
    "shortcut": "conv_sc",
    "conv_1": "conv1",
    "conv_2": "conv2",
    "norm": "output_layer.0",
    "gain": "gain",
    "conv": "output_layer.2",
    "mean": ("stored_mean", "stored_var"),
    "last": ("stored_mean", "stored_var"),
    "attention": ("theta", "phi", "g", "o", "gamma"),
}


def generate(arrays, latents, labels, *, norm_epsilon, last_norm_epsilon):
    """Returns images `[B, C, H, W]` in evaluation.

    Args:
        arrays: the generator's tensors by their own names, of StudioGAN's `resnet` or of BigGAN-PyTorch. BigGAN's
            latent is split if the first layer takes a part of it.
        latents: `[B, Z]`.
        labels: `[B]`, integers.
        norm_epsilon: of the conditional norms.
        last_norm_epsilon: of the last norm.
    """
    is_biggan = "linear.weight" in arrays
    names = _BIGGAN if is_biggan else _STUDIOGAN
    first = kernel(arrays, names["first"])
    chunks = np.split(latents, latents.shape[1] // first.shape[1], axis=1)
    features = chunks[0] @ first.T + arrays[f"{names['first']}.bias"]
    features = features.reshape(len(latents), -1, 4, 4)
    parts = sorted({tuple(map(int, name.split(".")[1:3])) for name in arrays if name.startswith("blocks.")})
    block = 0
    for part in parts:
        prefix = f"blocks.{part[0]}.{part[1]}"
        if f"{prefix}.{names['attention'][-1]}" in arrays:
            features = attention(arrays, prefix, names["attention"], features)
            continue
        block += 1
        chunk = chunks[block] if len(chunks) > 1 else None
        features = residual(arrays, prefix, names, features, (labels, chunk, norm_epsilon))
    scale, shift = arrays[f"{names['norm']}.{names['gain']}"], arrays[f"{names['norm']}.bias"]
    moments = [arrays[f"{names['norm']}.{moment}"] for moment in names["last"]]
    features = normalize(features, *moments, last_norm_epsilon, scale[None], shift[None])
    return np.tanh(convolution(arrays, names["conv"], relu(features)))


def kernel(arrays, name):
    """Returns the kernel after spectral norm with the stored u and v, or after one iteration from u, or unchanged."""
    if f"{name}.weight_orig" in arrays:
        array = arrays[f"{name}.weight_orig"]
        return array / (arrays[f"{name}.weight_u"] @ array.reshape(len(array), -1) @ arrays[f"{name}.weight_v"])
    array = arrays[f"{name}.weight"]
    if f"{name}.u0" not in arrays:
        return array
    matrix = array.reshape(len(array), -1)
    v = arrays[f"{name}.u0"][0] @ matrix
    v = v / np.linalg.norm(v)
    u = matrix @ v
    return array / (u / np.linalg.norm(u) @ matrix @ v)


def relu(features):
    """Returns the positive part."""
    return np.maximum(features, 0)


def convolution(arrays, name, features):
    """Returns a convolution of stride 1 that keeps the size."""
    weight = kernel(arrays, name)
    pad = weight.shape[2] // 2
    found = jax.lax.conv_general_dilated(features, weight, (1, 1), [(pad, pad)] * 2, precision="highest")
    found = np.asarray(found)
    bias = arrays.get(f"{name}.bias")
    return found if bias is None else found + bias[:, None, None]


def normalize(features, mean, variance, epsilon, scale, shift):
    """Returns a batch norm with stored moments; scale and shift are `[B or 1, C]`."""
    standard = (features - mean[:, None, None]) / np.sqrt(variance + epsilon)[:, None, None]
    return standard * scale[:, :, None, None] + shift[:, :, None, None]


def conditional(arrays, name, names, features, condition):
    """Returns a norm whose gain, 1 + something, and shift depend on the class or on a vector."""
    labels, chunk, epsilon = condition
    if f"{name}.embed0.weight" in arrays or f"{name}.embed0.weight_orig" in arrays:
        scale, shift = (kernel(arrays, f"{name}.{table}")[labels] for table in ("embed0", "embed1"))
    elif "linear.weight" in arrays and f"{name}.gain.u0" not in arrays:
        scale, shift = (arrays[f"{name}.{table}.weight"][labels] for table in ("gain", "bias"))
    else:
        maps = [kernel(arrays, f"{name}.{part}") for part in ("gain", "bias")]
        vectors = [arrays["shared.weight"][labels]] if "shared.weight" in arrays else []
        vectors += [chunk] if chunk is not None else []
        vector = np.concatenate(vectors, axis=1) if vectors else np.eye(maps[0].shape[1], dtype=np.float32)[labels]
        scale, shift = (vector @ part.T for part in maps)
    return normalize(features, *(arrays[f"{name}.{moment}"] for moment in names["mean"]), epsilon, 1 + scale, shift)


def residual(arrays, prefix, names, features, condition):
    """Returns a block of G: upsampling, two convolutions and a shortcut."""
    hidden = relu(conditional(arrays, f"{prefix}.bn1", names, features, condition))
    hidden, features = (array.repeat(2, axis=2).repeat(2, axis=3) for array in (hidden, features))
    hidden = convolution(arrays, f"{prefix}.{names['conv_1']}", hidden)
    hidden = relu(conditional(arrays, f"{prefix}.bn2", names, hidden, condition))
    hidden = convolution(arrays, f"{prefix}.{names['conv_2']}", hidden)
    return hidden + convolution(arrays, f"{prefix}.{names['shortcut']}", features)


def attention(arrays, prefix, names, features):
    """Returns the attention layer with pooled keys and values."""
    batch, _, height, width = features.shape
    theta, phi, values = (convolution(arrays, f"{prefix}.{name}", features) for name in names[:3])
    phi, values = (
        array.reshape(batch, -1, height // 2, 2, width // 2, 2).max(axis=(3, 5)).reshape(batch, array.shape[1], -1)
        for array in (phi, values)
    )
    scores = np.einsum("bcn,bcm->bnm", theta.reshape(batch, -1, height * width), phi)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    found = np.einsum("bcm,bnm->bcn", values, weights).reshape(batch, -1, height, width)
    return features + arrays[f"{prefix}.{names[4]}"].item() * convolution(arrays, f"{prefix}.{names[3]}", found)
