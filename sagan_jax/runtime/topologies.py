"""TPU slices that need not be present: jax compiles for them with only libtpu. Checking a name loads no jax."""

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
"""The slices that Google offers, by chip: the number of chips along each axis."""

# Without these variables, libtpu queries the metadata server of a TPU host, and reports errors when there is none.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_LOG_DIR": "disabled",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
    # libtpu's lock restricts a TPU to one process. No TPU is used here.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def check_topology(name: str) -> None:
    """Raises InvalidInputError unless a name, such as `v5e:2x4`, is a slice of `TOPOLOGIES`."""
    known = [f"{chip}:{shape}" for chip, shapes in TOPOLOGIES.items() for shape in shapes]
    if name in known:
        return
    near = difflib.get_close_matches(name, known, 1)
    perhaps = f" Perhaps you meant {near[0]}." if near else ""
    listed = "; ".join(f"{chip}: {', '.join(shapes)}" for chip, shapes in TOPOLOGIES.items())
    raise InvalidInputError(f"There is no TPU slice {name!r}.{perhaps} There are, as CHIP:SHAPE, {listed}.")


def require_libtpu() -> None:
    """Raises InvalidInputError if libtpu, the compiler for TPUs, is not installed."""
    if is_installed("libtpu"):
        return
    newest = sys.version_info >= (3, 12)
    version = ".".join(map(str, sys.version_info[:2]))
    where = "" if newest else f" That needs the newest jax, on Python 3.12 or newer; this is Python {version}."
    raise InvalidInputError(
        f"Compiling for a TPU that is not present needs the package libtpu, which is not installed."
        f"{where} Run: pip install 'sagan-jax[plan]'."
    )


def prepare_environment() -> None:
    """Sets variables so that jax and its compilers start without a TPU or a GPU. User settings stay.

    Call it before importing jax.
    """
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    # XLA logs errors and warnings about every program that does not fit a GPU. The plan says so instead.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def topology_devices(name: str) -> Sequence[Any]:
    """Returns the devices of a TPU slice. Programs can be compiled for them, but not run.

    Args:
        name: one of `TOPOLOGIES`, such as `v5e:2x4`.

    Raises:
        InvalidInputError: there is no such slice, libtpu is not installed, or it does not know the slice.
    """
    check_topology(name)
    require_libtpu()
    prepare_environment()
    from jax.experimental import topologies

    # This option joins the two cores of a v4 chip, so that jax sees one device per chip, as for the other chips.
    options = {"chip_config_name": "megacore"} if name.startswith("v4:") else {}
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices
    except Exception as error:  # its type depends on the version of jax
        raise InvalidInputError(f"libtpu cannot describe {name}: {one_line(error)[:200]}.") from error
