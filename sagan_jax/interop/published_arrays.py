"""Check that a file contains exactly the arrays of a published network."""

from collections.abc import Mapping

import numpy as np

from sagan_jax.errors import InvalidInputError

_MAX_FAULTS = 3  # to list in one message


def published_arrays(
    arrays: Mapping[str, np.ndarray], wanted: Mapping[str, tuple[int, ...]], *, subject: str, hint: str
) -> dict[str, np.ndarray]:
    """Checks names and shapes, and returns the arrays of a network by their published names.

    Args:
        arrays: names to arrays. `*.num_batches_tracked` is ignored.
        wanted: the published names, and the shapes that the network needs.
        subject: the network, as the start of a message: `The FID network`.
        hint: the end of a message: the likely cause.

    Raises:
        InvalidInputError: when a name is missing or unknown, an array has a wrong shape, or a variance is negative.
    """
    given = {name: array for name, array in arrays.items() if not name.endswith("num_batches_tracked")}
    faults = [f"{name!r} is missing" for name in wanted if name not in given]
    faults += [f"{name!r} is unknown" for name in given if name not in wanted]
    faults += [
        f"{name!r} has {list(given[name].shape)} instead of {list(shape)}"
        for name, shape in wanted.items()
        if name in given and given[name].shape != shape
    ]
    faults += [
        f"{name!r} has a negative variance"
        for name, array in given.items()
        if name.endswith("running_var") and (array < 0).any()
    ]
    if faults:
        more = f", and {len(faults) - _MAX_FAULTS} more" if len(faults) > _MAX_FAULTS else ""
        raise InvalidInputError(
            f"{subject} needs the {len(wanted)} arrays of its published state dict; "
            f"{', '.join(faults[:_MAX_FAULTS])}{more}. {hint}"
        )
    return {name: given[name] for name in wanted}
