"""TPU slices that are not there: jax compiles for them with libtpu alone. Checking a name loads no jax."""

import difflib
import os
import sys
from collections.abc import Sequence
from typing import Any

from sagan_jax.errors import InvalidInputError, one_line
from sagan_jax.runtime.packages import is_installed

_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16")
TOPOLOGIES = {"v4": _CUBES, "v5e": _FLAT, "v5p": _CUBES, "v6e": _FLAT}
"""The slices by chip, as Google offers them: how many chips along each axis."""

# Without them libtpu asks a server for the metadata of a host that is none, and complains of what it does not find.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_LOG_DIR": "disabled",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
    # Its lock keeps a TPU to one process. Nothing here uses one.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def check_topology(name: str) -> None:
    """Raises InvalidInputError where a name is no slice of `TOPOLOGIES`, such as `v5e:2x4`."""
    known = [f"{chip}:{shape}" for chip, shapes in TOPOLOGIES.items() for shape in shapes]
    if name in known:
        return
    near = difflib.get_close_matches(name, known, 1)
    perhaps = f" Perhaps you meant {near[0]}." if near else ""
    listed = "; ".join(f"{chip}: {', '.join(shapes)}" for chip, shapes in TOPOLOGIES.items())
    raise InvalidInputError(f"There is no TPU slice {name!r}.{perhaps} There are, as CHIP:SHAPE, {listed}.")


def require_libtpu() -> None:
    """Raises InvalidInputError where libtpu is not installed, the compiler for TPUs."""
    if is_installed("libtpu"):
        return
    newest = sys.version_info >= (3, 12)
    version = ".".join(map(str, sys.version_info[:2]))
    where = "" if newest else f" That needs the newest jax, on Python 3.12 or newer; this is Python {version}."
    raise InvalidInputError(
        f"Compiling for a TPU that is not here needs the package libtpu, which is not installed."
        f"{where} Run: pip install 'sagan-jax[plan]'."
    )


def prepare_environment() -> None:
    """Lets jax and libtpu start without a TPU. Call it before jax is imported; what the user has set stays."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def topology_devices(name: str) -> Sequence[Any]:
    """Returns the devices of a TPU slice, which programs can be compiled for, and nothing can run on.

    Args:
        name: one of `TOPOLOGIES`, such as `v5e:2x4`.

    Raises:
        InvalidInputError: there is no such slice, or libtpu is absent or does not know it.
    """
    check_topology(name)
    require_libtpu()
    prepare_environment()
    from jax.experimental import topologies

    # jax sees one device in each chip of a v4, as it does of the others, only when this joins its two cores.
    options = {"chip_config_name": "megacore"} if name.startswith("v4:") else {}
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices
    except Exception as error:  # of several kinds, by the version of jax
        raise InvalidInputError(f"libtpu cannot describe {name}: {one_line(error)[:200]}.") from error
