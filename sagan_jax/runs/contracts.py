"""Checks that a user's objects fulfil the contracts of `sagan_jax.training.protocols`. Only shapes are traced."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from sagan_jax.errors import InvalidInputError
from sagan_jax.evaluation.generator import TrainedGenerator
from sagan_jax.functional.spectral import init_spectral
from sagan_jax.import_paths import errors_of_user_code
from sagan_jax.models.fields import has_field
from sagan_jax.training.adversarial import AdversarialTask

_COLLECTIONS = {"params", "batch_stats"}
_B = 2  # batch size of the traces; the networks are initialised with the same size


def check_contracts(task: AdversarialTask, image_shape: tuple[int, int, int]) -> None:
    """Traces networks, loss, augmentations and optimisers of a task on shapes, one by one.

    Args:
        task: the task of a run.
        image_shape: (H, W, C) of the images.

    Raises:
        InvalidInputError: an object does not accept its arguments, or returns a wrong result. The message says what was
            expected. If a user's own file raised an error, it also gives the line.
    """
    images = _floats(_B, *image_shape)
    labels = jax.ShapeDtypeStruct((_B,), jnp.int32)
    generator = _check_network(
        task, "--modules: the generator", task.generator, _floats(_B, task.latent_size), labels, images
    )
    discriminator = _check_network(
        task, "--modules: the discriminator", task.discriminator, images, labels, _floats(_B)
    )
    _check_loss(task)
    for number, augmentation in enumerate(task.augmentation, start=1):
        if not isinstance(augmentation, str):
            what = f"--augmentation: number {number}, called with a key and an image {list(image_shape)}"
            _check(what, augmentation, _floats(*image_shape), _key(), _floats(*image_shape))
    for name, params in (("generator", generator), ("discriminator", discriminator)):
        _check_optimizer(f"--optimizer: that of the {name}", getattr(task.optimizers, name), params)


def _check_network(
    task: AdversarialTask, what: str, module: nn.Module, inputs: Any, labels: Any, wanted: Any
) -> Mapping[str, Any]:
    """Checks a network, and returns the shapes of its parameters."""
    if task.precision == "bfloat16" and not has_field(module, "dtype"):
        raise InvalidInputError(
            f"{what} needs a field dtype for --precision bfloat16; {type(module).__name__} has none. Give it one, or "
            f"give --precision tensorfloat32."
        )
    called = f"{what}, called with {_words(inputs)}, {_words(labels)} and train="
    with errors_of_user_code(f"{called}False"):
        variables = jax.eval_shape(
            lambda key, *arrays: module.init(key, *arrays, train=False), jax.random.key(0), inputs, labels
        )
    others = sorted(set(variables) - _COLLECTIONS)
    if others or "params" not in variables:
        raise InvalidInputError(
            f"{what} needs the variables params and, if it has norms, batch_stats; a run keeps no others; "
            f"got {', '.join(sorted(variables)) or 'none'}."
        )
    variables = {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}

    def apply(variables: Any, *arrays: Any, train: bool) -> Any:
        return module.apply(variables, *arrays, train=train, mutable=["batch_stats"])

    for train in (False, True):
        moved = _check(
            f"{called}{train}",
            lambda *arrays, train=train: apply(*arrays, train=train),
            wanted,
            variables,
            inputs,
            labels,
            with_others=True,
        )
        if train and "batch_stats" in moved and _shapes(moved["batch_stats"]) != _shapes(variables["batch_stats"]):
            raise InvalidInputError(f"{what} needs batch_stats of the same shapes before and after a step.")
    _check_params(what, variables["params"], normalized=task.spectral_norm in ("both", what.rpartition(" ")[2]))
    return variables["params"]


def _check_params(what: str, params: Mapping[str, Any], *, normalized: bool) -> None:
    """Refuses parameters that cannot be trained, or kernels that cannot be normalised."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise InvalidInputError(f"{what} needs floating-point parameters; {name} is {_words(leaf)}.")
    if normalized:
        with errors_of_user_code(f"{what} cannot be spectrally normalised (--spectral-norm)"):
            jax.eval_shape(lambda params: init_spectral(jax.random.key(0), params), params)


def _check_loss(task: AdversarialTask) -> None:
    logits = _floats(_B)
    called = f"called with real_logits {_words(logits)} and fake_logits {_words(logits)}"
    with errors_of_user_code(f"--loss: the discriminator's, {called}"):
        found = jax.eval_shape(task.loss.discriminator, logits, logits)
    if not isinstance(found, tuple | list) or len(found) != 2:
        number = len(found) if isinstance(found, tuple | list) else 1
        raise InvalidInputError(
            f"--loss: the discriminator's, {called}, needs to return 2 arrays, the loss on real and on generated "
            f"images; got {number}."
        )
    for part, on in zip(found, ("real", "generated"), strict=True):
        _check_array(f"--loss: the discriminator's on {on} images, {called}", part, logits, _NOT_THE_MEAN)
    given = (logits, logits) if task.loss.paired else (logits,)
    called = called if task.loss.paired else f"called with fake_logits {_words(logits)}"
    _check(f"--loss: the generator's, {called}", task.loss.generator, logits, *given, hint=_NOT_THE_MEAN)


_NOT_THE_MEAN = " It is one value for an image, not the mean of a batch."


def _check_optimizer(what: str, optimizer: Any, params: Mapping[str, Any]) -> None:
    with errors_of_user_code(f"{what}, initialised and updated with the parameters"):
        state = jax.eval_shape(optimizer.init, params)
        found = jax.eval_shape(optimizer.update, params, state, params)
    if not isinstance(found, tuple | list) or len(found) != 2:
        got = f"{len(found)} values" if isinstance(found, tuple | list) else f"an object of type {type(found).__name__}"
        raise InvalidInputError(f"{what} needs an update that returns a pair (updates, state); got {got}.")
    updates, after = found
    if _shapes(updates) != _shapes(params) or _shapes(after) != _shapes(state):
        raise InvalidInputError(
            f"{what} needs to return updates of the shapes of the parameters, and a state of the shapes of its state."
        )


def _check(
    what: str, function: Callable[..., Any], wanted: Any, *given: Any, with_others: bool = False, hint: str = ""
) -> Any:
    """Raises InvalidInputError unless a function returns a floating-point array of the wanted shape.

    Returns:
        The second result of the function if `with_others` is set, else None.
    """
    with errors_of_user_code(what):
        found = jax.eval_shape(function, *given)
    found, others = found if with_others else (found, None)
    _check_array(what, found, wanted, hint)
    return others


def _check_array(what: str, found: Any, wanted: Any, hint: str = "") -> None:
    if isinstance(found, tuple | list):
        raise InvalidInputError(f"{what}, needs to return one array {_words(wanted)}; got {len(found)}.")
    fits = getattr(found, "shape", None) == wanted.shape and jnp.issubdtype(found.dtype, jnp.floating)
    if not fits:
        raise InvalidInputError(f"{what}, needs to return {_words(wanted)}, floating-point; got {_words(found)}.{hint}")


def check_takes_mixtures(trained: TrainedGenerator) -> None:
    """Raises InvalidInputError for a user's generator that does not accept mixtures of classes instead of labels."""
    if not (trained.num_classes and is_own(trained.generator)):
        return
    latents, mixtures = _floats(_B, trained.latent_size), _floats(_B, trained.num_classes)
    with errors_of_user_code(f"Between classes the generator is called with mixtures {_words(mixtures)} as labels"):
        jax.eval_shape(
            lambda *given: trained.generator.apply(*given, train=False), trained.variables, latents, mixtures
        )


def is_own(module: nn.Module) -> bool:
    """Returns whether a module was written by the user, not by this package."""
    return not type(module).__module__.startswith("sagan_jax.")


def runs_own_code(network: nn.Module) -> bool:
    """Returns whether a network was written by the user, or has an attention layer of the user."""
    return is_own(network) or callable(getattr(network, "attention", None))


def _floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _key() -> Any:
    return jax.eval_shape(lambda: jax.random.key(0))


def _shapes(tree: Any) -> Any:
    """Returns the structure of a tree with the shapes of its leaves."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]


def _words(array: Any) -> str:
    """Returns the dtype and shape of an array, as `float32 [2, 8]`; the `repr` of anything else."""
    if not hasattr(array, "shape"):
        return repr(array)
    return f"{array.dtype} {list(array.shape)}"
