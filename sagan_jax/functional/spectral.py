"""Spectral normalisation as a pure transformation of parameters, outside the networks."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from sagan_jax.functional.shape_checks import check_arrays, check_that

Tree = Any
"""Any pytree of arrays: nested dictionaries, lists, named tuples, an equinox module or an nnx state."""


def _matmul(left: Array, right: Array) -> Array:
    return jnp.matmul(left, right, precision="highest")


def _unit(vector: Array, epsilon: float) -> Array:
    return vector / (jnp.sqrt(jnp.sum(vector * vector)) + epsilon)


def power_iteration(matrix: Array, u: Array, *, iterations: int, epsilon: float = 1e-12) -> tuple[Array, Array]:
    """Returns u and v after some steps of power iteration towards the first singular vectors of the matrix.

        v <- W u / ||W u||,    u <- v W / ||v W||

    Args:
        matrix: `[R, C]`, floating: W. `spectral_normalize` states the supported range of values.
        u: `[C]`, not all zero, of any norm.
        iterations: at least 1.
        epsilon: added to each norm.

    Returns:
        u `[C]` and v `[R]`, each of norm one, float32 or wider.

    Raises:
        AssertionError: at trace time, when `u` does not have one entry per column or `iterations` is below 1.

    Source: brain-research/self-attention-gan:ops.py, `spectral_normed_weight`.

    Examples:
        >>> import jax.numpy as jnp
        >>> u, v = power_iteration(jnp.array([[3.0, 0.0], [0.0, 1.0], [0.0, 0.0]]), jnp.ones(2), iterations=20)
        >>> u.round(3).tolist(), v.round(3).tolist()
        ([1.0, 0.0], [1.0, 0.0, 0.0])
    """
    check_arrays("power_iteration", matrix=(matrix, "[R, C]"), u=(u, "[C]"))
    # Norms are roots of sums of squares, which overflow float16.
    wide = jnp.promote_types(jnp.promote_types(matrix.dtype, u.dtype), jnp.float32)
    matrix, u = matrix.astype(wide), u.astype(wide)
    fits = isinstance(iterations, int) and iterations >= 1
    check_that("power_iteration", fits, "at least 1 iteration", iterations)
    v = u  # overwritten by the first iteration
    for _ in range(iterations):
        v = _unit(_matmul(matrix, u), epsilon)
        u = _unit(_matmul(v, matrix), epsilon)
    return u, v


def spectral_normalize(
    kernel: Array,
    u: Array,
    v: Array | None = None,
    *,
    iterations: int = 1,
    epsilon: float = 1e-12,
    differentiate_vectors: bool = False,
) -> tuple[Array, Array, Array, Array]:
    """Returns the kernel divided by its largest singular value, estimated from the stored vectors.

        sigma = v W u^T,    W_bar = W / sigma

    W is the kernel with all axes but the last merged. Unlike `flax.linen.SpectralNorm`, this function stores nothing
    and leaves the parameter unnormalised, and the gradient may flow through u and v as in the release. Runs in float32
    or wider. A kernel of zeros gives NaN.

    The norms of W u and v W limit the supported range of kernel values. Norms far above `epsilon` are exact. With the
    default `epsilon` and a u of norm one, this holds for singular values above about 1e-5. For norms near `epsilon`,
    the estimate of sigma is too small. Kernel entries above about 1e18 overflow when they are squared in float32, and
    sigma is then 0 or NaN. The kernel is not rescaled first, since that would change the meaning of `epsilon`.

    Args:
        kernel: `[..., C]`, floating, two axes or more.
        u: `[C]`, the stored right vector.
        v: `[R]`, the stored left vector, with R the product of the other axes. It is read only when `iterations` is 0.
        iterations: steps from `u` before sigma is computed. The release takes 1, in training *and* evaluation.
            0 uses the stored vectors unchanged, as PyTorch does in evaluation.
        epsilon: added to the norms of u and v.
        differentiate_vectors: whether the gradient flows through the iteration, as in the release. Later
            implementations treat u and v as constants.

    Returns:
        The normalised kernel in its own dtype, the u `[C]` and v `[R]` that sigma was computed with, and sigma, a
        scalar.

    Raises:
        AssertionError: at trace time, when shapes do not fit, the kernel is not floating, or `iterations` is negative.
        ValueError: when `iterations` is 0 and `v` is missing.

    Source: Miyato et al. 2018 (arXiv:1802.05957), algorithm 1; brain-research/self-attention-gan:ops.py.

    Examples:
        >>> import jax.numpy as jnp
        >>> kernel, u, v, sigma = spectral_normalize(jnp.array([[0.0, 2.0], [0.0, 0.0]]), jnp.ones(2))
        >>> kernel.tolist(), float(sigma)
        ([[0.0, 1.0], [0.0, 0.0]], 2.0)
    """
    check_arrays("spectral_normalize", kernel=(kernel, "floating [..., R, C]"), u=(u, "[C]"))
    wide = jnp.promote_types(kernel.dtype, jnp.float32)
    matrix = kernel.astype(wide).reshape(-1, kernel.shape[-1])
    if iterations == 0:
        if v is None:
            raise ValueError("spectral_normalize with iterations=0 uses the stored pair: give v as well as u.")
        check_arrays("spectral_normalize", matrix=(matrix, "[R, C]"), v=(v, "[R]"))
        u, v = u.astype(wide), v.astype(wide)
    else:
        constant = matrix if differentiate_vectors else jax.lax.stop_gradient(matrix)
        u, v = power_iteration(constant, u.astype(wide), iterations=iterations, epsilon=epsilon)
    sigma = jnp.sum(_matmul(v, matrix) * u)
    return (kernel.astype(wide) / sigma).astype(kernel.dtype), u, v, sigma


def spectral_normalize_tree(
    params: Tree,
    spectral: Mapping[Any, Any],
    *,
    iterations: int = 1,
    epsilon: float = 1e-12,
    differentiate_vectors: bool = False,
) -> tuple[Any, dict[Any, Any], dict[Any, Any]]:
    """Returns the parameters after normalisation of each leaf that has an entry in `spectral`.

    Call it once per update, outside the networks. All forward passes of the update then share one result. The vectors
    depend only on the parameters, so they need no collective.

    Args:
        params: a pytree, such as nested dictionaries of arrays.
        spectral: nested dictionaries with the node names of `params`, as `init_spectral` returns them. Each leaf to be
            normalised is replaced by `{"u": [C], "v": [R]}`. Other leaves have no entry.
        iterations: as in `spectral_normalize`.
        epsilon: as in `spectral_normalize`.
        differentiate_vectors: as in `spectral_normalize`. No gradient flows through the returned vectors.

    Returns:
        The parameters as a pytree of the same structure, the new `spectral`, and the sigmas in nested dictionaries.

    Raises:
        AssertionError: at trace time, when the shapes of a leaf and its vectors do not match.
        KeyError: when `spectral` has an entry that `params` does not have, or an entry without u or v.
        ValueError: when `params` is a leaf.

    Examples:
        >>> import jax.numpy as jnp
        >>> params = {"conv": {"kernel": jnp.array([[0.0, 2.0]]), "bias": jnp.array([5.0, 5.0])}}
        >>> spectral = {"conv": {"kernel": {"u": jnp.ones(2), "v": jnp.ones(1)}}}
        >>> normalized, _, sigmas = spectral_normalize_tree(params, spectral)
        >>> normalized["conv"]["kernel"].tolist(), normalized["conv"]["bias"].tolist(), float(sigmas["conv"]["kernel"])
        ([[0.0, 1.0]], [5.0, 5.0], 2.0)
    """
    children, rebuild = _children(params) or (None, None)
    if children is None or rebuild is None:
        raise ValueError(f"spectral_normalize_tree needs a tree of arrays; got a {type(params).__name__}.")
    missing = sorted(set(spectral) - set(children))
    if missing:
        raise KeyError(f"spectral has entries for {missing}, but the parameters there are {sorted(children)}.")
    normalized, vectors, sigmas = {}, {}, {}
    rule = {"iterations": iterations, "epsilon": epsilon, "differentiate_vectors": differentiate_vectors}
    for name, entry in spectral.items():
        child = children[name]
        if _children(child):
            normalized[name], vectors[name], sigmas[name] = spectral_normalize_tree(child, entry, **rule)
        else:
            if set(entry) != {"u", "v"}:
                raise KeyError(f"spectral needs u and v for the parameter {name!r}; got {sorted(entry)}.")
            normalized[name], u, v, sigmas[name] = spectral_normalize(child, entry["u"], entry["v"], **rule)
            # The next update starts from these; they are state, so they get no gradient.
            vectors[name] = jax.lax.stop_gradient({"u": u, "v": v})
    return rebuild(normalized), vectors, sigmas


def _children(node: Any) -> tuple[dict[Any, Any], Callable[[dict[Any, Any]], Any]] | None:
    """Returns the children of a node by name, and a function that replaces some of them; None for a leaf.

    The names are dictionary keys. In other nodes they are the key names of `jax.tree_util`: a field or an index.
    """
    is_leaf = jax.tree_util.all_leaves([node])
    if isinstance(node, dict) or (is_leaf and isinstance(node, Mapping)):
        return dict(sorted(node.items())), lambda new: dict(node) | new
    if is_leaf:
        return None
    found, structure = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda inner: inner is not node)
    children = {jax.tree_util.keystr(path, simple=True): child for path, child in found}
    return children, lambda new: structure.unflatten((children | new).values())


def _is_kernel(path: str, leaf: Array) -> bool:
    """Returns whether the leaf at this path is a kernel; biases, gates and tables of conditional norms are not."""
    del leaf
    return path.removesuffix("/value").endswith("kernel")  # an nnx state holds the array of a parameter in `value`


def init_spectral(
    key: Array, params: Tree, *, select: Callable[[str, Array], bool] = _is_kernel, scope: str = ""
) -> dict[Any, Any]:
    """Returns a new `"spectral"` collection: a random u and a v computed from it for each selected leaf.

    Args:
        key: a PRNG key.
        params: a pytree, such as nested dictionaries of arrays. Leaves that are not arrays are skipped.
        select: called with the path of a leaf, such as `block_1/conv_1/kernel`, and the leaf; returns whether the leaf
            is normalised. Fields and indices are parts of a path too: `layers/0/weight`. Defaults to the leaves whose
            names end in `kernel`. `lambda path, leaf: leaf.ndim > 1` also selects the tables of conditional norms, and
            the weights of an equinox module.
        scope: prefix of all paths.

    Returns:
        Nested dictionaries with `{"u": [C], "v": [R]}` in place of each selected leaf. u is drawn from a normal
        distribution truncated at two standard deviations and is not normalised, as in the release. v is computed from
        u by one power iteration.

    Raises:
        ValueError: when a selected leaf has fewer than two axes, and so no singular vectors, or `params` is a leaf.

    Examples:
        >>> import jax
        >>> vectors = init_spectral(jax.random.key(0), {"kernel": jax.numpy.ones((3, 5, 2)), "bias": jax.numpy.ones(2)})
        >>> {name: {side: vector.shape for side, vector in pair.items()} for name, pair in vectors.items()}
        {'kernel': {'u': (2,), 'v': (15,)}}
    """
    children, _ = _children(params) or (None, None)
    if children is None:
        raise ValueError(f"init_spectral needs a tree of arrays; got a {type(params).__name__}.")
    spectral = {}
    for index, (name, leaf) in enumerate(children.items()):
        path = f"{scope}{name}"
        if _children(leaf):
            inside = init_spectral(jax.random.fold_in(key, index), leaf, select=select, scope=f"{path}/")
            if inside:
                spectral[name] = inside
        elif hasattr(leaf, "ndim") and select(path, leaf):
            if leaf.ndim < 2:
                raise ValueError(f"init_spectral needs leaves of two axes or more; {path!r} has {leaf.shape}.")
            wide = jnp.promote_types(leaf.dtype, jnp.float32)
            u = jax.random.truncated_normal(jax.random.fold_in(key, index), -2.0, 2.0, leaf.shape[-1:], wide)
            _, v = power_iteration(leaf.reshape(-1, leaf.shape[-1]), u, iterations=1)
            spectral[name] = {"u": u, "v": v}
    return spectral
