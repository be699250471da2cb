"""Fields of a config that a user's networks or optimiser do not read."""

from dataclasses import replace
from typing import TypeVar

from sagan_jax.config import AnyExperiment, Experiment, Networks, Training

READ_WITH_MODULES = {"modules", "resolution", "num_classes", "image_channels", "latent_size"}
READ_WITH_MODULES |= {"spectral_norm", "spectral_evaluation", "spectral_epsilon"}
"""The fields of `Networks` that are read if the modules are a user's own."""
OF_ADAM = ("generator_learning_rate", "discriminator_learning_rate")
OF_ADAM += ("adam_beta1", "adam_beta2", "adam_epsilon", "schedule", "warmup_steps")
"""The fields of `Training` that a user's own optimiser does not read."""

Section = TypeVar("Section", Networks, Training)


def without_unread(given: AnyExperiment, named: AnyExperiment) -> AnyExperiment:
    """Returns the config with default values for the fields that a user's modules or optimiser do not read.

    This applies if a flag sets the modules or the optimiser, and the experiment does not. The experiment's values of
    these fields have no effect then. A value that a flag changed stays, so that `check_config` refuses it.

    Args:
        given: the config after the flags.
        named: the config before the flags.

    Examples:
        >>> named = Experiment(networks=Networks(base_channels=8))
        >>> own = Networks(base_channels=8, modules=("a.py:G", "a.py:D"))
        >>> without_unread(Experiment(networks=own), named).networks.base_channels
        64
    """
    if not (isinstance(given, Experiment) and isinstance(named, Experiment)):
        return given
    networks, training = given.networks, given.training
    if networks.modules and not named.networks.modules:
        unread = tuple(name for name in vars(networks) if name not in READ_WITH_MODULES)
        networks = _with_defaults(networks, named.networks, unread)
    if training.optimizer != "adam" and named.training.optimizer == "adam":
        training = _with_defaults(training, named.training, OF_ADAM)
    return replace(given, networks=networks, training=training)


def _with_defaults(given: Section, named: Section, unread: tuple[str, ...]) -> Section:
    """Returns a section in which the unread fields have their defaults, except those that flags changed."""
    default = type(given)()
    unchanged = {name: getattr(default, name) for name in unread if getattr(given, name) == getattr(named, name)}
    return replace(given, **unchanged)
